"""The ECG gateway: receives pictures of ECGs, returns waveforms."""

__version__ = "0.1.0"
