"""Jobs by the thousand, for who looks after them: found by a filter, changed in batches, counted; and their files.

In: a `JobFilter`.  Out: the jobs that match it, with pages and deliveries; how many there are; statistics of them.
"""
