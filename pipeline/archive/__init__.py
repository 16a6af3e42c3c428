"""An archive goes in, as a folder or a list of files; Parquet with one row a page comes out, and a report.

`manifest` says which files there are.  `flow` digitizes them on Ray, part by part: a part is a few files of the
manifest, and becomes one file of the output (`output`).  Each Ray actor has a process of its own that digitizes
(`guard`, `child`): a page that ends or blocks that process costs its own row only.
"""
