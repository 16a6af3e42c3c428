"""Every way in: objects and files go in, a job comes out, and only then is the sender's object acknowledged."""
