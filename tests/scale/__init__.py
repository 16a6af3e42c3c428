"""How many jobs several nodes do on one database, and that the death of any of them loses and doubles nothing."""
