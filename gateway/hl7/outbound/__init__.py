"""Messages that leave: a result goes in, the bytes of an ORU or MDM come out."""
