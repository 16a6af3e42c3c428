"""Audit messages (PS3.15 A.5): what happened goes in; syslog messages to the site's audit repository come out."""
