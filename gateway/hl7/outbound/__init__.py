"""HL7 messages that are sent: a digitized page comes in, the bytes of an ORU or MDM go out."""
