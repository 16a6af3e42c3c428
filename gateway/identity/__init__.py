"""The identity of an ECG: its patient, its order, its study.

What a sidecar, a file name, a code, an order, a peer or the print says goes in; a context, or a reason to wait for a
person, comes out.
"""
