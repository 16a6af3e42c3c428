"""DICOM objects that come in: bytes go in, pages and their context come out."""
