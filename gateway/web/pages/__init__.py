"""The pages of the web: one module a page.

A request goes in; what the store holds, in words and figures, comes out, and a person's decision goes to its room.
"""
