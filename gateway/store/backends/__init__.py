"""What differs between the databases: SQLite, a file; PostgreSQL, a server; and copies from one into another."""
