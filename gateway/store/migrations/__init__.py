"""The database's schema, version by version; `gateway.store.Store` applies what is missing when it opens."""
