"""Training: recordings go in, weights come out.  Digitizing needs nothing of it.

`records` reads recordings (`wfdb`, `code15`), `vary` and `synth` (`style`) draw pages of them, `augment` and `capture`
make crops as cameras and scanners see them.  `tasks` says what each network learns from, `losses` how it is judged,
`dataset` and `train` do the work.  `simulate`, `sample` and `render` draw pages for tests and measurements.
"""
