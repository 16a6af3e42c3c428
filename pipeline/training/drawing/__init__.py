"""Drawn pages: signals, a layout and a style go in, pictures with their exact truth come out."""
