"""The flat sheet goes in; where the pen went comes out: rows, traces, calibration pulses."""
