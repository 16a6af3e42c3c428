"""What the lattice left over: Sheet in, Sheet out, its nodes where the paper really is.

The lattice measures in windows of 10 mm; wrinkles and folds are finer.  The bend network sees the canvas and answers,
for every millimetre, how far the paper there is from where the canvas has it, and how far off that answer may be.
Answers are averaged over a few millimetres, the sure ones counting for more, and the nodes moved accordingly.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import FloatArray, RectifiedPage
from pipeline.networks.inference import Network
from pipeline.networks.specification import BEND
from pipeline.sheet.paper import Sheet, paper_to_page

_CELL_MM = BEND.cell_mm


def unbend(sheet: Sheet, network: Network, *, node_mm: float = 2.5, again_mm: float = 0.15, passes: int = 3) -> Sheet:
    """Move the nodes of a flattened sheet onto its grid.

    Parameters
    ----------
    sheet : Sheet
        As the lattice has it.  A sheet without a grid is returned as it is.
    network : Network
        The bend network.
    node_mm : float
        Spacing of the new nodes.
    again_mm : float
        If the worst twentieth of a sheet moved by more than this, it is measured again: photographs need that.
    passes : int
        Most measurements of one sheet.

    Returns
    -------
    Sheet
        Its canvas sampled again; `doubt_mm` of its scale says how far off the network expects itself to be.
    """
    if sheet.rectified.grid_scale.source != "grid":
        return sheet
    for _ in range(passes):
        field, doubt_mm = _field(sheet, network)
        sheet = replace(sheet, rectified=_moved(sheet.rectified, field, node_mm))
        if np.quantile(np.abs(field), 0.95) <= again_mm:
            break
    moved = sheet.rectified
    scale = replace(moved.grid_scale, doubt_mm=doubt_mm)
    return replace(sheet, rectified=replace(moved, grid_scale=scale)).sampled()


def _field(sheet: Sheet, network: Network) -> tuple[FloatArray, float]:
    """Return how far, in mm, the paper is from where the canvas has it, for every cell (h, w, 2), and the doubt."""
    canvas = sheet.canvas(BEND.px_per_mm)
    (answer,) = network.run(canvas[None])
    rows, columns = (side // BEND.stride_px for side in canvas.shape[:2])
    shift_mm, doubt = np.split(answer[0, :, :rows, :columns].numpy(), 2)
    return averaged(shift_mm, np.exp(doubt)), float(np.exp(np.median(doubt)))


def _moved(rectified: RectifiedPage, field: FloatArray, node_mm: float) -> RectifiedPage:
    """Lay the nodes where the field says the paper is; the canvas is left as it was."""
    steps = (round((n - 1) * rectified.node_mm / node_mm) for n in rectified.node_xy.shape[1::-1])
    at = np.meshgrid(*(np.arange(n + 1) * node_mm for n in steps))
    nodes = paper_to_page(rectified, _before(field, np.stack(at, -1).astype(np.float32))).astype(np.float32)
    return replace(rectified, node_xy=nodes, node_mm=node_mm)


def averaged(shift_mm: FloatArray, doubt_mm: FloatArray, *, reach_mm: float = 2.0) -> FloatArray:
    """Return the mean of the answers (2, h, w) around every cell, weighed by 1 / doubt squared, (h, w, 2).

    `reach_mm` is the standard deviation of the neighbourhood.  Where all around is in doubt, a wider one counts.
    """
    weight = np.clip(doubt_mm, 0.01, 1.0) ** -2
    total, sum_ = (np.zeros((*shift_mm.shape[1:], 2), np.float32) for _ in range(2))
    for reach, share in ((reach_mm, 1.0), (4 * reach_mm, 0.03)):
        sigma = reach / _CELL_MM
        for axis in (0, 1):
            total[..., axis] += share * cv2.GaussianBlur(weight[axis], (0, 0), sigma)
            sum_[..., axis] += share * cv2.GaussianBlur(weight[axis] * shift_mm[axis], (0, 0), sigma)
    return np.asarray(sum_ / total, np.float32)


def _before(field: FloatArray, paper_mm: FloatArray, *, steps: int = 4) -> npt.NDArray[np.float32]:
    """Return the canvas points (..., 2) that show `paper_mm`: c + field(c) = paper."""
    seen = paper_mm.copy()
    for _ in range(steps):
        cell = seen / np.float32(_CELL_MM) - np.float32(0.5)
        moved = cv2.remap(field, cell[..., 0], cell[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        seen = paper_mm - moved
    return seen
