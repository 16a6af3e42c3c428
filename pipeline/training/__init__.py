"""Drawing pages, training the networks on them, exporting weights.  Not needed to digitize."""
