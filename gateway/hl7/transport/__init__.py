"""HL7 on the wire: MLLP frames in and out, over TCP and TLS."""
