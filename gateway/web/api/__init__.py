"""The REST interface, `/api/v1`: requests of other software with a token go in; JSON, files and problems come out.

It has no cookies, no forms and no sessions.  What it does, the store, the intake and the results do, as for the pages.
"""
