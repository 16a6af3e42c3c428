"""TLS contexts from settings, and how long certificates last."""
