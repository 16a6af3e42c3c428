"""HL7 v2: MLLP transport and messages."""
