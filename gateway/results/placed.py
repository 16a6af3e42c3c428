"""Where corrections lie on the paper of a page: what breaks a rule is refused before the page is read again.

The digitizer has the last word (`pipeline.rows.by_hand`); here are the rules that need only the page's geometry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.domain.artefact import Role, kept_name
from gateway.results.person import corrections_of
from gateway.spool.folder import Spool
from gateway.store.tables import Job
from pipeline import BrokenRule, CorrectionError, Corrections

Points = npt.NDArray[np.float64]

_APART_MM = 1.0  # rows, and columns
_BACK_MM = 0.5  # a hand may tremble
_TOGETHER_MM = 0.05  # a column of the trace


def check_placed(spool: Spool, job: Job, pages: Mapping[int, Corrections]) -> None:
    """Check where corrections lie on their pages.

    A page of which no geometry was kept, and one that is now cut or turned in another way, is not checked.

    Raises
    ------
    CorrectionError
        Rows or columns are out of order, a line runs back, or two statements are about one stretch of a row.
    """
    before = corrections_of(job)
    for number, stated in pages.items():
        kept = spool.read(job.id, kept_name(number, Role.GEOMETRY))
        geometry = json.loads(kept) if kept is not None else {}
        if "lattice" in geometry and stated.cut == before.get(number, Corrections()).cut:
            if broken := [*_out_of_order(stated, _Paper(geometry)), *_lines(stated, _Paper(geometry))]:
                raise CorrectionError(broken)


class _Paper:
    """Leads from pixels of the page to its paper, in mm."""

    def __init__(self, geometry: Mapping[str, Any]) -> None:
        lattice = geometry["lattice"]
        self._zoom, self._node_mm = geometry["zoom"], lattice["node_mm"]
        self._nodes = np.array(lattice["xy"], np.float64)  # (rows, columns, 2) pixels of the picture
        rows, columns = self._nodes.shape[:2]
        paper = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2) * self._node_mm
        flat = np.column_stack([self._nodes.reshape(-1, 2), np.ones(rows * columns)])
        self._affine = np.linalg.lstsq(flat, paper, rcond=None)[0]  # (3, 2)

    def __call__(self, points: Sequence[tuple[float, float]]) -> Points:
        """Return the paper points (n, 2) of page pixels: the affine guess, improved on the lattice."""
        target = self._guess((np.array(points, np.float64) + 0.5) * self._zoom)
        paper = target.copy()
        for _ in range(8):
            paper += target - self._guess(self._picture(paper))
        return paper

    def _guess(self, xy: Points) -> Points:
        return np.asarray(np.column_stack([xy, np.ones(len(xy))]) @ self._affine)

    def _picture(self, paper: Points) -> Points:
        last = np.array(self._nodes.shape[1::-1]) - 2
        at = paper / self._node_mm
        cell = np.clip(np.floor(at).astype(int), 0, np.maximum(last, 0))
        (x, y), (column, row) = (at - cell).T, cell.T
        upper = self._nodes[row, column] * (1 - x)[:, None] + self._nodes[row, column + 1] * x[:, None]
        lower = self._nodes[row + 1, column] * (1 - x)[:, None] + self._nodes[row + 1, column + 1] * x[:, None]
        return np.asarray(upper * (1 - y)[:, None] + lower * y[:, None])


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of a row that a statement is about."""

    field: str
    words: str
    row: int
    start_mm: float
    end_mm: float


def _out_of_order(stated: Corrections, paper: _Paper) -> Iterator[BrokenRule]:
    for field, points, axis, words in (
        ("row_baselines_px", stated.row_baselines_px, 1, "rows must go from top to bottom"),
        ("column_edges_px", stated.column_edges_px, 0, "columns must go from left to right"),
    ):
        if points is not None and (np.diff(paper(points)[:, axis]) < _APART_MM).any():
            yield BrokenRule(field, f"{len(points)} lines", f"{words}, {_APART_MM:g} mm apart at least")


def _lines(stated: Corrections, paper: _Paper) -> Iterator[BrokenRule]:
    parts: list[_Part] = []
    for k, line in enumerate(stated.lines):
        x_mm = paper(line.points_px)[:, 0]
        x_mm = x_mm if x_mm[-1] >= x_mm[0] else x_mm[::-1]
        field, words = f"lines[{k}]", f"a line in row {line.row}"
        if np.diff(x_mm).min() < -_BACK_MM:
            yield BrokenRule(field, words, "must run along time, not back")
        elif x_mm.max() - x_mm.min() < _TOGETHER_MM:
            yield BrokenRule(field, words, f"must be as long as a column of the trace ({_TOGETHER_MM:g} mm) at least")
        parts.append(_Part(field, words, line.row, x_mm.min(), x_mm.max()))
    for k, part in enumerate(stated.unreadable):
        x_mm = paper((part.from_px, part.to_px))[:, 0]
        words = f"an unreadable part of row {part.row}"
        parts.append(_Part(f"unreadable[{k}]", words, part.row, x_mm.min(), x_mm.max()))
    for k, one in enumerate(parts):
        for other in parts[:k]:
            shared_mm = min(one.end_mm, other.end_mm) - max(one.start_mm, other.start_mm)
            if one.row == other.row and shared_mm > _TOGETHER_MM:
                yield BrokenRule(one.field, one.words, "must not overlap what is stated there already")
