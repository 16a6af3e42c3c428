"""What keeps a gateway right for years: settings that fit and are followed, backup and restore, and what is deleted."""
