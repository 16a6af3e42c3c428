"""What looks after the whole: jobs found by a filter, changed in batches, counted; their files, destinations, nodes.

In: a `JobFilter`.  Out: the jobs that match it, with pages and deliveries; how many there are; statistics of them.
"""
