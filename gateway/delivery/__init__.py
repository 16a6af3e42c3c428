"""Delivery: artefacts are sent to their destinations.

A pending delivery comes in; it leaves DELIVERED, or REFUSED or FAILED for a person to decide.  One module a kind of
destination says what that kind is sent, how it is sent, and how it is checked; `kinds` selects the kind.
"""
