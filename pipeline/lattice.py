"""Where the grid's nodes really lie: paper bends, a homography does not.

The sheet, roughly flattened, is demodulated like a carrier: in windows of 10 mm the phase of the 5 mm and of the 1 mm
grid says how far lines stand from where they should.  The phase is unwrapped outward from wherever the grid is clear,
a smooth field is fitted to it (weighted by signal to noise, stiff where there is no grid, so that such parts follow
their neighbours), the sheet is flattened again through it and measured again.

All of this happens on the probability map at low resolution; nothing here touches the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse
from scipy.sparse import csgraph

from pipeline.paper import apply_homography, interpolate_points, interpolate_raster

FloatArray = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]

NODE_MM = 5.0
_CANVAS_PX_PER_MM = 4.0
_PHASE_FLOOR = 0.02  # cycles; no line is drawn or seen truer than that


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Lattice:
    """Nodes every `NODE_MM` of paper: the map pixel under each, and how clearly the grid was seen there."""

    node_xy: Array  # (n_i, n_j, 2) map pixels
    clarity: Array  # (n_i, n_j) signal to noise of the grid, both axes
    homography: Array  # (3, 3) paper mm -> map px, the best flat approximation


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Phase:
    """Line displacement per node along one axis, modulo `period_mm`, and its signal-to-noise ratio."""

    shift_mm: Array  # (n_i, n_j)
    clarity: Array  # (n_i, n_j)
    period_mm: float


def fit_lattice(lines: FloatArray, homography: Array, *, passes: int = 3) -> Lattice:
    """Fit nodes to the grid lines of a map.

    `lines` (h, w) is line evidence with its local mean removed, at about 2.5 to 6 px/mm; `homography` maps paper mm
    (any origin) to its pixels, and may be off by a tenth in scale and 10 degrees in direction.  Lines of the 5 mm grid
    come to lie on whole nodes where such lines can be told from the 1 mm lines.
    """
    origin, shape = _cover(lines.shape, homography)
    homography = homography @ _shift(origin)
    nodes = _flat_nodes(homography, shape)
    clarity = np.zeros(shape)
    for step in range(passes):
        measured = _measure(_flatten(lines, nodes))
        if step == 0:
            fields = [_unwrap_and_fit(*_primary(measured, axis)) for axis in (0, 1)]
        else:
            fields = [_fit_residual(measured[axis], use_fine=step > 1) for axis in (0, 1)]
        clarity = np.sqrt(np.prod([np.maximum(*(p.clarity for p in measured[axis])) for axis in (0, 1)], axis=0))
        nodes = _move(nodes, np.stack(fields, axis=-1))
        if step == 0:
            homography, nodes, clarity = _recentre(homography, nodes, clarity)
    return Lattice(node_xy=nodes, clarity=clarity, homography=homography)


def _shift(xy_mm: Array) -> Array:
    return np.array([[1.0, 0.0, xy_mm[0]], [0.0, 1.0, xy_mm[1]], [0.0, 0.0, 1.0]])


def _cover(shape: tuple[int, ...], homography: Array, *, largest_mm: float = 480.0) -> tuple[Array, tuple[int, int]]:
    """Paper origin (2,) in mm and node counts that cover the whole map."""
    height, width = shape
    centre = apply_homography(np.linalg.inv(homography), np.array([(width - 1) / 2, (height - 1) / 2]))
    edge = np.linspace(-0.5, 0.5, 9)
    border = np.concatenate([np.stack([edge, np.full(9, s)], -1) for s in (-0.5, 0.5)])
    border = np.concatenate([border, border[:, ::-1]]) * [width, height] + [width / 2, height / 2]
    paper = apply_homography(np.linalg.inv(homography), border)
    low = np.maximum(paper.min(axis=0), centre - largest_mm / 2)
    high = np.minimum(paper.max(axis=0), centre + largest_mm / 2)
    count = np.ceil((high - low) / NODE_MM).astype(int) + 1
    return low, (max(int(count[1]), 4), max(int(count[0]), 4))


def _flat_nodes(homography: Array, shape: tuple[int, int]) -> Array:
    i, j = np.mgrid[: shape[0], : shape[1]] * NODE_MM
    return apply_homography(homography, np.stack([j, i], axis=-1))


def _flatten(lines: FloatArray, nodes: Array) -> FloatArray:
    """Sample the map through the nodes at `_CANVAS_PX_PER_MM`; pixel 0 is centred on the first node."""
    step = NODE_MM * _CANVAS_PX_PER_MM
    rows, columns = (np.arange(int((n - 1) * step) + 1) / step for n in nodes.shape[:2])
    xy = interpolate_raster(nodes, rows, columns)
    return np.asarray(cv2.remap(lines, xy, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.float32)


def _measure(canvas: FloatArray) -> tuple[tuple[_Phase, _Phase], tuple[_Phase, _Phase]]:
    """Displacements of the 5 mm and of the 1 mm lines: ((x at 5, x at 1), (y at 5, y at 1))."""
    floor = 0.05 * float(np.sqrt(np.mean(canvas**2)))
    along_x = [_demodulate(canvas, period, floor) for period in (5.0, 1.0)]
    along_y = [_demodulate(canvas.T, period, floor) for period in (5.0, 1.0)]
    turned = [_Phase(shift_mm=p.shift_mm.T, clarity=p.clarity.T, period_mm=p.period_mm) for p in along_y]
    return (along_x[0], along_x[1]), (turned[0], turned[1])


def _demodulate(canvas: FloatArray, period_mm: float, floor: float) -> _Phase:
    """Phase of vertical lines `period_mm` apart around every node of a flattened map.

    The window is 10 mm of Hann along x (blind to the mean and to the slope of the shading) and 5 mm across.  Slabs of
    1.25 mm are demodulated on their own first, so that slanted lines are not averaged away before their noise is known.
    """
    step = NODE_MM * _CANVAS_PX_PER_MM
    n_i, n_j = (round((n - 1) / step) + 1 for n in canvas.shape)
    slab = int(1.25 * _CANVAS_PX_PER_MM)
    pad = 2 * slab
    padded = np.pad(canvas, ((pad, pad), (0, 0)))
    slabs = padded[: (n_i - 1) * int(step) + 2 * pad].reshape(-1, slab, canvas.shape[1]).mean(axis=1)
    x = np.arange(canvas.shape[1])
    offset = (x[:, None] - np.arange(n_j) * step) / (2 * step)  # in windows
    window = np.where(np.abs(offset) < 1.0, 0.5 + 0.5 * np.cos(np.pi * np.clip(offset, -1, 1)), 0.0)
    carrier = np.exp(-2j * np.pi * x / (period_mm * _CANVAS_PX_PER_MM))
    phasor = slabs @ (carrier[:, None] * window)  # (n_slabs, n_j)
    noise = (slabs**2 + floor**2) @ window**2
    across = _slab_weights(len(slabs), n_i)
    total = across @ phasor
    clarity = np.abs(total) / np.sqrt((across**2) @ noise)
    shift = -np.angle(total) * period_mm / (2 * np.pi)
    return _Phase(shift_mm=shift, clarity=clarity, period_mm=period_mm)


def _slab_weights(n_slabs: int, n_nodes: int) -> Array:
    """(n_nodes, n_slabs): each node sums the four slabs of 1.25 mm about it and half of their neighbours."""
    weights = np.zeros((n_nodes, n_slabs))
    for i in range(n_nodes):
        for offset, weight in zip(range(-1, 5), (0.5, 1, 1, 1, 1, 0.5), strict=True):
            if 0 <= 4 * i + offset < n_slabs:
                weights[i, 4 * i + offset] = weight
    return weights


def _primary(measured: tuple[tuple[_Phase, _Phase], tuple[_Phase, _Phase]], axis: int) -> tuple[_Phase, _Phase]:
    """The carrier to unwrap along an axis, and the other: 5 mm unless only the 1 mm lines can be seen."""
    coarse, fine = measured[axis]
    clear = np.maximum(coarse.clarity, fine.clarity)
    where = clear > max(3.0, 0.5 * float(np.quantile(clear, 0.9)))
    if where.any() and np.median(coarse.clarity[where]) < 0.35 * np.median(fine.clarity[where]):
        return fine, coarse
    return coarse, fine


def _variance(phase: _Phase) -> Array:
    """Variance in mm^2 of a displacement, from its signal-to-noise ratio."""
    cycles = 1 / (np.sqrt(2) * 2 * np.pi * np.maximum(phase.clarity, 1e-3))
    result: Array = (phase.period_mm**2) * (np.minimum(cycles, 0.5) ** 2 + _PHASE_FLOOR**2)
    result[phase.clarity < max(2.5, 0.25 * float(np.quantile(phase.clarity, 0.9)))] = np.inf
    return result


def _unwrap_and_fit(phase: _Phase, other: _Phase) -> Array:
    """Displacement of each node's grid line in mm, (n_i, n_j), over the whole sheet and any number of periods."""
    weight = 1 / _variance(phase)
    seeds = phase.clarity > max(2.5, 0.35 * float(np.quantile(phase.clarity, 0.9)))
    if not seeds.any():
        return np.zeros_like(phase.shift_mm)
    shift, island = _unwrap(phase, seeds)
    # Islands of grid are unwrapped each on its own; the largest decides how many periods the others are off.
    order = np.argsort(-np.bincount(island[seeds]))
    field = _smooth(shift, np.where(seeds & (island == order[0]), weight, 0.0))
    for label in order[1:12]:
        where = seeds & (island == label)
        if where.sum() < 3:
            break
        shift[where] += phase.period_mm * np.round(np.median(field[where] - shift[where]) / phase.period_mm)
        field = _smooth(shift, np.where(seeds & np.isin(island, order[: np.flatnonzero(order == label)[0] + 1]), weight, 0))
    for _ in range(3):
        shift = _nearest(phase, field)
        field = _smooth(shift, _robust(weight, shift - field))
    if phase.period_mm < NODE_MM:
        # Put whole nodes on the 5 mm lines, if they show at all; else any 1 mm line will do.
        lag = np.exp(2j * np.pi * (other.shift_mm - field) / NODE_MM) * np.where(np.isfinite(_variance(other)), other.clarity, 0)
        field = field + np.round(np.angle(lag.sum()) * NODE_MM / (2 * np.pi))
    return field


def _nearest(phase: _Phase, field: Array) -> Array:
    """The displacement, of all that differ by whole periods, that is nearest to `field`."""
    return phase.shift_mm + phase.period_mm * np.round((field - phase.shift_mm) / phase.period_mm)


def _robust(weight: Array, residual: Array) -> Array:
    """Cauchy weights: a window that a trace or print misled loses its say (scale: the larger of 3 sigma and 0.1 mm)."""
    scale = np.maximum(3 / np.sqrt(np.maximum(weight, 1e-9)), 0.1)
    result: Array = weight / (1 + (residual / scale) ** 2)
    return result


def _unwrap(phase: _Phase, seeds: npt.NDArray[np.bool_]) -> tuple[Array, npt.NDArray[np.intp]]:
    """Unwrap along the tree of clearest links: displacements, and the island number of each node."""
    number = np.arange(seeds.size).reshape(seeds.shape)
    starts, ends = [], []
    for a, b in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        both = seeds[a] & seeds[b]
        starts.append(number[a][both])
        ends.append(number[b][both])
    start, end = np.concatenate(starts), np.concatenate(ends)
    period = phase.period_mm
    flat, clarity = phase.shift_mm.ravel(), phase.clarity.ravel()
    difference = flat[end] - flat[start]
    difference -= period * np.round(difference / period)
    cost = (0.05 + np.abs(difference) / period) / np.minimum(clarity[start], clarity[end])
    size = (seeds.size, seeds.size)
    tree = csgraph.minimum_spanning_tree(sparse.csr_matrix((cost, (start, end)), shape=size))
    _, island = csgraph.connected_components(tree, directed=False)
    shift = flat.copy()
    largest_first = np.argsort(-np.bincount(island[seeds.ravel()], minlength=island.max() + 1))
    for label in largest_first[:12]:
        members = np.flatnonzero((island == label) & seeds.ravel())
        if len(members) < 3:
            break
        root = members[clarity[members].argmax()]
        order, parent = csgraph.breadth_first_order(tree, root, directed=False)
        for node in order[1:]:
            step = flat[node] - flat[parent[node]]
            shift[node] = shift[parent[node]] + step - period * np.round(step / period)
    return shift.reshape(seeds.shape), island.reshape(seeds.shape).astype(np.intp)


def _smooth(shift: Array, weight: Array, *, bend_mm: float = 0.08) -> Array:
    """The smoothest field near the weighted displacements.

    `bend_mm` is how much a sheet bends between neighbouring nodes (second difference, standard deviation): 0.03 mm for
    a curl of 10 mm over a sheet, 0.5 mm at a sharp fold.
    """
    transpose = shift.shape[0] > shift.shape[1]
    if transpose:
        shift, weight = shift.T, weight.T
    n_i, n_j = shift.shape  # numbered down the shorter side, which keeps the band narrow
    stiffness = _stiffness(n_i, n_j) / bend_mm**2
    diagonal = weight.T.ravel()
    stiffness[0] += diagonal + 1e-6  # the last term holds a sheet without any grid in place
    solution = linalg.solveh_banded(stiffness, diagonal * shift.T.ravel(), lower=True, check_finite=False)
    field: Array = solution.reshape(n_j, n_i).T
    return field.T if transpose else field


@lru_cache(maxsize=8)
def _stiffness(n_i: int, n_j: int) -> Array:
    """Bending energy (u_xx^2 + 2 u_xy^2 + u_yy^2) of an (n_i, n_j) lattice, numbered column by column, lower banded.

    The result is shared between calls: not to be written to.
    """
    second_i, second_j = (sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(n - 2, n)) for n in (n_i, n_j))
    first_i, first_j = (sparse.diags([-1.0, 1.0], [0, 1], shape=(n - 1, n)) for n in (n_i, n_j))
    terms = (
        sparse.kron(second_j, sparse.identity(n_i)),
        sparse.kron(sparse.identity(n_j), second_i),
        np.sqrt(2) * sparse.kron(first_j, first_i),
    )
    energy = sum(term.T @ term for term in terms).todia()
    banded = np.zeros((2 * n_i + 1, n_i * n_j))
    for offset, values in zip(energy.offsets, energy.data, strict=True):
        if offset <= 0:
            banded[-offset] = values
    return banded


def _fit_residual(phases: tuple[_Phase, _Phase], *, use_fine: bool) -> Array:
    """What is left after a first flattening: the 5 mm and (once it is unmistakable) the 1 mm phase together."""
    coarse, fine = phases
    field = np.zeros_like(coarse.shift_mm)
    for _ in range(3):
        total, moment = np.full_like(field, 1e-9), np.zeros_like(field)
        for phase in (coarse, fine) if use_fine or not _any(coarse) else (coarse,):
            shift = _nearest(phase, field)
            weight = _robust(1 / _variance(phase), shift - field)
            total, moment = total + weight, moment + weight * shift
        field = _smooth(moment / total, total)
    return field


def _any(phase: _Phase) -> bool:
    return bool(np.quantile(phase.clarity, 0.9) > 3)


def _move(nodes: Array, shift_mm: Array) -> Array:
    """Nodes moved onto their lines: paper X now lies where the old sheet had X + shift, both in mm.

    The shift is known where the line was seen, not where it belongs; a few steps of iteration settle that.
    """
    i, j = np.mgrid[: nodes.shape[0], : nodes.shape[1]]
    home = np.stack([j, i], axis=-1).reshape(-1, 2).astype(np.float64)
    seen = home.copy()
    for _ in range(8):
        seen = home + interpolate_points(shift_mm, seen) / NODE_MM
    return interpolate_points(nodes, seen).reshape(nodes.shape)


def _recentre(homography: Array, nodes: Array, clarity: Array) -> tuple[Array, Array, Array]:
    """Crop to the part of the sheet that shows grid, and refit the flat approximation to it."""
    clear = clarity > max(2.5, 0.3 * float(np.quantile(clarity, 0.95)))
    clear = cv2.morphologyEx(clear.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)).astype(bool)
    if clear.sum() < 12:
        return homography, nodes, clarity
    rows, columns = np.flatnonzero(clear.any(axis=1)), np.flatnonzero(clear.any(axis=0))
    i, j = np.mgrid[: nodes.shape[0], : nodes.shape[1]]
    paper = np.stack([j, i], axis=-1) * NODE_MM
    fitted, _ = cv2.findHomography(paper[clear], nodes[clear], 0)
    if fitted is None:
        return homography, nodes, clarity
    first = np.maximum([rows[0] - 3, columns[0] - 3], 0)
    last = np.minimum([rows[-1] + 4, columns[-1] + 4], clarity.shape)
    area = np.s_[first[0] : last[0], first[1] : last[1]]
    return np.asarray(fitted, np.float64) @ _shift(first[::-1] * NODE_MM), nodes[area], clarity[area]
