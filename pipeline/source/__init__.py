"""Bytes go in; pages (pictures, drawn lines, codes) come out."""
