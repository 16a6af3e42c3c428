"""DICOM: intake of pictures, delivery of waveforms."""
