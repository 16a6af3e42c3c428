"""Recordings of hearts: folders of several formats or a simulation go in, 12-lead signals in millivolts come out."""
