"""The networks: pictures go in, tensors of answers come out.

`specification` lists them, `unet` holds their classes, `inference` loads the shipped weights and runs them, `fold`
makes them fast.  This room imports nothing of the other rooms; a stage asks for its network by the specification.
"""
