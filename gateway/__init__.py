"""The ECG gateway: receives pictures of ECGs, returns waveforms."""

import os

# As in `pipeline`, which a worker imports after libraries that import NumPy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
