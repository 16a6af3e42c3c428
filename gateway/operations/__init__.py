"""Operating the gateway: settings come in; what does not fit this machine goes out, or changes a running service."""
