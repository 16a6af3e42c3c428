"""Messages that come in: bytes go in, patient and order updates and an acknowledgement come out."""
