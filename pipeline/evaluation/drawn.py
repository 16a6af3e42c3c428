"""What is known of a drawn page, in the words of the stages: its rows, columns, layout and sheet, in any frame.

The page frame is shared by what was drawn and what was found, so truth passes from the drawn sheet to the found one
through page pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import (
    FloatArray,
    GridScale,
    Layout,
    LayoutMatch,
    PageImage,
    RectifiedPage,
    RowBand,
    TraceSet,
)
from pipeline.networks.specification import ROW_COLUMNS_PER_MM
from pipeline.sheet.paper import page_to_paper
from pipeline.training.drawing.render import Picture

Points = npt.NDArray[np.floating[Any]]
NODE_MM = 5.0
_SAMPLE_S = 1 / 500


def same_print(found: Layout, rhythm: tuple[object, ...], drawn: Layout) -> bool:
    """Tell whether two layouts print the same leads at the same places, however they are named.

    Lengths of columns are left out (a page may show less), and a single column is as well sequential as not.
    """
    return (
        found.rows == drawn.rows
        and found.inverted & set(found.leads) == drawn.inverted & set(drawn.leads)
        and rhythm == drawn.rhythm
        and (len(drawn.rows[0]) == 1 or found.sequential == drawn.sequential)
    )


@dataclass(frozen=True, eq=False)
class Drawn:
    """A drawn page as the stages would see it if none of them erred."""

    picture: Picture

    @cached_property
    def image(self) -> PageImage:
        """The picture as a page."""
        return PageImage(pixels=self.picture.pixels)

    def paper(self, xy_px: Points) -> FloatArray:
        """Drawn paper points (n, 2) mm under page pixels (n, 2), continued straight outside the picture."""
        h, w = self.picture.paper_mm.shape[:2]
        inside = np.clip(np.nan_to_num(xy_px), 0, [w - 1, h - 1]).astype(np.float32)
        known = cv2.remap(self.picture.paper_mm, inside[:, None, 0], inside[:, None, 1], cv2.INTER_LINEAR)[:, 0]
        return np.asarray(known + (xy_px - inside) @ self._affine[:2], np.float32)

    def pixels(self, xy_mm: Points, *, iterations: int = 15) -> Points:
        """Page pixels (n, 2) of drawn paper points (n, 2) mm, both (x, y)."""
        back = np.linalg.inv(self._affine[:2])
        xy_px = (xy_mm - self._affine[2]) @ back
        for _ in range(iterations):
            xy_px = xy_px + (xy_mm - self.paper(xy_px)) @ back
        result: Points = xy_px
        return result

    @cached_property
    def _affine(self) -> npt.NDArray[np.float64]:
        """Best affine map of the picture, (3, 2): (x px, y px, 1) @ map = paper mm."""
        h, w = self.picture.paper_mm.shape[:2]
        j, i = (
            v.ravel() for v in np.meshgrid(np.linspace(0, w - 1, 20, dtype=int), np.linspace(0, h - 1, 20, dtype=int))
        )
        solution = np.linalg.lstsq(np.column_stack([j, i, np.ones(j.size)]), self.picture.paper_mm[i, j], rcond=None)
        return np.asarray(solution[0], np.float64)

    @cached_property
    def sheet(self) -> RectifiedPage:
        """The drawn sheet, flattened without error; its canvas is empty."""
        style = self.picture.page.style
        n_i, n_j = (int(np.ceil(side / NODE_MM)) + 1 for side in (style.height_mm, style.width_mm))
        i, j = np.mgrid[:n_i, :n_j]
        nodes = self.pixels(np.stack([j.ravel(), i.ravel()], -1) * NODE_MM).reshape(n_i, n_j, 2)
        scale = self.picture.px_per_mm
        return RectifiedPage(
            node_xy=nodes.astype(np.float32),
            node_mm=NODE_MM,
            pixels=np.zeros((1, 1, 3), np.uint8),
            px_per_mm=scale,
            grid_scale=GridScale(px_per_mm_x=scale, px_per_mm_y=scale, score=1.0, source="grid"),
            homography=np.diag([scale, scale, 1.0]),
        )

    def _in(self, frame: RectifiedPage | None, xy_mm: Points) -> Points:
        """Drawn paper points in the paper frame that was found; None: in the drawn one."""
        return np.asarray(xy_mm) if frame is None else page_to_paper(frame, self.pixels(xy_mm))

    def rows(self, frame: RectifiedPage | None = None) -> tuple[RowBand, ...]:
        """Every row that was drawn, top to bottom as drawn.

        In the drawn frame they start half a column early, so that the tracer's columns fall on the drawn samples: half
        a sample off, which no shift by whole samples corrects, a sharp QRS scores 24 dB.
        """
        early = 0.5 / ROW_COLUMNS_PER_MM if frame is None else 0.0
        bands = []
        for row in self.picture.page.rows:
            x = np.linspace(row.segments[0].x0_mm, row.segments[-1].x1_mm, 20)
            at = self._in(frame, np.column_stack([x, np.full(x.size, row.baseline_mm)]))
            ends = np.sort(at[[0, -1], 0])
            bands.append(
                RowBand(
                    baseline_mm=float(np.median(at[:, 1])),
                    x0_mm=float(ends[0]) - early,
                    x1_mm=float(ends[1]),
                )
            )
        return tuple(bands)

    def match(self, traces: TraceSet, frame: RectifiedPage | None = None) -> LayoutMatch:
        """Return the layout as drawn, its rows looked up among `traces` and its columns in the given frame."""
        page = self.picture.page
        segments = max((row.segments for row in page.rows), key=len)
        middle = float(np.mean([row.baseline_mm for row in page.rows]))
        step = page.style.speed_mm_per_s * _SAMPLE_S
        edges = np.array([[s.x0_mm, s.x1_mm + step] for s in segments]).ravel()
        x = self._in(frame, np.column_stack([edges, np.full(edges.size, middle)]))[:, 0].reshape(-1, 2)
        return LayoutMatch(
            layout=page.layout,
            cost=0.0,
            score=1.0,
            certain=True,
            labels=(),
            rhythm=page.layout.rhythm,
            row_index=self.row_index(traces, frame),
            column_mm=tuple((float(start), float(end)) for start, end in x),
        )

    def row_index(self, traces: TraceSet, frame: RectifiedPage | None = None) -> tuple[int, ...]:
        """Traced row of every drawn row: the nearest baseline, at most a third of the rows' distance off; else -1."""
        drawn = np.array([row.baseline_mm for row in self.rows(frame)])
        reach = max(3.0, float(np.median(np.abs(np.diff(drawn)))) / 3) if drawn.size > 1 else 8.0
        distance = np.abs(drawn[:, None] - traces.baseline_mm[None, :])
        index = np.full(drawn.size, -1)
        while distance.size and distance.min() <= reach:
            row, found = np.unravel_index(int(distance.argmin()), distance.shape)
            index[row] = found
            distance[row], distance[:, found] = np.inf, np.inf
        return tuple(int(k) for k in index)

    def lines(self, traces: TraceSet) -> TraceSet:
        """Return the lines that were drawn on the columns of `traces`, which lie in the drawn frame."""
        at = traces.x0_mm + np.arange(traces.row_mm.shape[1]) / traces.columns_per_mm
        rows = self.picture.page.rows
        y = np.stack([np.interp(at, row.x_mm, row.y_mm, left=np.nan, right=np.nan) for row in rows]).astype(np.float32)
        return TraceSet(
            row_mm=y,
            confidence=np.isfinite(y).astype(np.float32),
            baseline_mm=np.array([row.baseline_mm for row in rows], np.float32),
            x0_mm=traces.x0_mm,
            columns_per_mm=traces.columns_per_mm,
        )
