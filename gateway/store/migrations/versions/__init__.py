"""One file a schema version, applied in the order of their `down_revision`."""
