"""Domain: the types that all rooms share: states and their transitions, identity, digitized pages, artefacts.

No SQL, no protocol, no files.
"""
