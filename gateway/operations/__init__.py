"""What keeps a gateway running for years: backup and restore, and what is deleted when, or never."""
