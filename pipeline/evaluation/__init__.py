"""Scoring digitized pages against recordings of the same ECG.  Not needed to digitize."""
