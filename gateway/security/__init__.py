"""TLS contexts from settings, how long certificates last, and how many connections may be open."""
