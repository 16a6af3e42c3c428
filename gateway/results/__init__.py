"""Results: what a digitized page becomes.

A digitization and a context come in; a page's row, its artefacts and their deliveries go out.
"""
