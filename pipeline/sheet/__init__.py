"""A page goes in; the flat sheet and the one map between it and the page come out."""
