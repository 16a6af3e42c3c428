"""Traces and a layout go in; millivolts, seconds and their quality come out."""
