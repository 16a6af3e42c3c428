"""What a digitized page becomes.

A digitization and a context go in; objects, messages, a report and their deliveries come out.
"""
