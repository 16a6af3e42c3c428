"""The networks, their weights, and how they are run."""
