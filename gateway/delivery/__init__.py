"""Every way out: artefacts go to their destinations until the peer has agreed or a person must look."""
