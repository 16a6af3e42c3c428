"""DICOM objects that leave: a record and its context go in, data sets come out."""
