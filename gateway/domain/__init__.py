"""The words everybody speaks: states and their transitions, whose ECG it is, what HL7 messages say.

No SQL, no protocol, no files.
"""
