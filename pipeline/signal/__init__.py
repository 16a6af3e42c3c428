"""From paper to signal: traces and a layout go in, millivolts, seconds and their quality come out.

`calibration` finds paper speed and gain, `calibrate` makes the record, `audit` compares it with the `ink` of its sheet,
`quality` judges it.  `weights` holds the numbers.
"""
