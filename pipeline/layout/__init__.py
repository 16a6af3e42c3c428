"""Which layout a page has: lead names and traced rows go in, the layout, its columns and its leads come out.

`file` reads the layouts, `placement` lays them over names and rows, `columns` finds where columns start, `beats` and
`evidence` ask the signals, `strips` names the rhythm strips, `identify` decides.  `weights` holds the numbers.
"""
