"""The queue: an address with filters comes in; a page of jobs, a CSV file, or a change of many jobs goes out.

Who may not see patients finds and gets no patient data; many jobs at once are changed by administrators only.
"""
