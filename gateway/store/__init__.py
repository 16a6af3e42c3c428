"""The database: everything that must survive a restart goes in and comes out here, each change in one transaction."""
