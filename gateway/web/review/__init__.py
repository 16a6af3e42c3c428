"""The review workbench: a job, its page and its record in; what a reviewer sees, corrects and decides out.

`worklist` lists what waits; `bench` assembles one job's workbench; `pictures` serves what its scripts draw; `patient`,
`decide` and `correct` are the targets of its forms.
"""
