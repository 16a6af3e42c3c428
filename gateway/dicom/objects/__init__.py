"""DICOM objects that the gateway creates: a digitized page comes in, data sets and files go out."""
