"""What differs between the databases: SQLite, a file; PostgreSQL, a server."""
