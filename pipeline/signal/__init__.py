"""From paper to signal: traces and a layout go in, millivolts, seconds and their quality come out.

`calibration` finds paper speed and gain, `calibrate` makes the record, `quality` judges it.  `weights` holds the
numbers.
"""
