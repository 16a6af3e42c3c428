"""Where the grid's nodes really lie: paper bends, a homography does not.

The sheet, roughly flattened, is demodulated like a carrier: in windows of 10 mm the phase of the 5 mm and of the 1 mm
grid says how far lines stand from where they should.  The phase is unwrapped outward from wherever the grid is clear,
a smooth field is fitted to it (weighted by signal to noise, stiff where there is no grid, so that such parts follow
their neighbours), the sheet is flattened again through it and measured again.

All of this happens on the probability map at low resolution; nothing here touches the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse
from scipy.sparse import csgraph

from pipeline.datatypes import FloatArray
from pipeline.sheet.paper import apply_homography, interpolate_planes, interpolate_points
from pipeline.threads import side_by_side

Array = npt.NDArray[np.floating[Any]]
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
class _Fit:
    """A flat sheet, and by how many mm of it every node moved from there to where the grid was seen."""

    homography: Array  # (3, 3) paper mm -> map px
    moved: Array  # (n_i, n_j, 2) mm
    clear: npt.NDArray[np.bool_]  # (n_i, n_j) the grid was seen here, along both axes

    @property
    def home(self) -> Array:
        """Paper (n_i, n_j, 2) in mm of the nodes."""
        i, j = np.mgrid[: self.moved.shape[0], : self.moved.shape[1]] * NODE_MM
        return np.stack([j, i], axis=-1)

    @property
    def nodes(self) -> Array:
        """Map pixels (n_i, n_j, 2) under the nodes."""
        return apply_homography(self.homography, self.home + self.moved)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Shift:
    """How far from its node each line was seen, over any number of periods, and the weight (mm^-2) of that."""

    mm: Array  # (n_i, n_j)
    weight: Array  # (n_i, n_j)
    field: Array  # (n_i, n_j) `mm` smoothed


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Phase:
    """Line displacement per node along one axis, modulo `period_mm`, and its signal-to-noise ratio."""

    shift_mm: Array  # (n_i, n_j)
    clarity: Array  # (n_i, n_j)
    period_mm: float


def fit_lattice(lines: FloatArray, homography: Array, *, keep: Array | None = None, growing: int = 8) -> Lattice:
    """Fit nodes to the grid lines of a map.

    `lines` (h, w) is line evidence with its local mean removed, at about 2.5 to 6 px/mm; `homography` maps paper mm
    (any origin) to its pixels, and may be off by a tenth in scale and 10 degrees in direction.  Lines of the 5 mm grid
    come to lie on whole nodes where such lines can be told from the 1 mm lines.  The nodes reach a little beyond the
    grid that is seen, and as far as the map points `keep` (n, 2).  Where a sheet bends much, what is locked grows from
    its flattest part outward, in at most `growing` passes.  A sheet that proves flat where its grid is seen is taken as
    flat where it is not.
    """
    origin, shape = _cover(lines.shape, homography)
    homography = homography @ _shift(origin)
    sheet = _Fit(homography=homography, moved=np.zeros((*shape, 2)), clear=np.zeros(shape, bool))
    for step in range(growing):
        # Far from flat, lines slant and only windows that follow the slant see them.
        slants = np.linspace(-0.18, 0.18, 9) if step == 0 else np.linspace(-0.09, 0.09, 5)
        measured = _measure(_flatten(lines, sheet.nodes), slants)
        shifts = side_by_side(_unwrapped, [_primary(measured, axis) for axis in (0, 1)])
        before, sheet = sheet, _refit(sheet, shifts, stiff=False)
        if step == 0:
            sheet = _trimmed(sheet, keep)
        elif sheet.clear.sum() < 1.03 * before.clear.sum():
            break
    flat = _flat(sheet)
    sheet = flat or sheet
    for use_fine in (False, True):
        measured = _measure(_flatten(lines, sheet.nodes), np.zeros(1))
        shifts = side_by_side(partial(_residual, use_fine=use_fine), [_primary(measured, axis) for axis in (0, 1)])
        sheet = _refit(sheet, shifts if flat is None else _held_flat(shifts), stiff=True)
    clarity = np.sqrt(np.prod([np.maximum(*(p.clarity for p in measured[axis])) for axis in (0, 1)], axis=0))
    return Lattice(node_xy=sheet.nodes, clarity=clarity * sheet.clear, homography=sheet.homography)


def _shift(xy_mm: Array) -> Array:
    return np.array([[1.0, 0.0, xy_mm[0]], [0.0, 1.0, xy_mm[1]], [0.0, 0.0, 1.0]])


def _cover(shape: tuple[int, ...], homography: Array, *, largest_mm: float = 600.0) -> tuple[Array, tuple[int, int]]:
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


def _flatten(lines: FloatArray, nodes: Array) -> FloatArray:
    """Sample the map through the nodes at `_CANVAS_PX_PER_MM`; pixel 0 is centred on the first node."""
    step = NODE_MM * _CANVAS_PX_PER_MM
    rows, columns = (np.arange(int((n - 1) * step) + 1) / step for n in nodes.shape[:2])
    x, y = interpolate_planes(nodes, rows, columns)
    return np.asarray(cv2.remap(lines, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.float32)


def _measure(canvas: FloatArray, slants: Array) -> tuple[tuple[_Phase, _Phase], tuple[_Phase, _Phase]]:
    """Displacements of the 5 mm and of the 1 mm lines: ((x at 5, x at 1), (y at 5, y at 1))."""
    along_x, along_y = side_by_side(partial(_demodulate, slants=slants), [canvas, canvas.T])
    return along_x, (_turned(along_y[0]), _turned(along_y[1]))


def _turned(phase: _Phase) -> _Phase:
    return _Phase(shift_mm=phase.shift_mm.T, clarity=phase.clarity.T, period_mm=phase.period_mm)


def _demodulate(canvas: FloatArray, slants: Array) -> tuple[_Phase, _Phase]:
    """Phase of vertical lines 5 mm and 1 mm apart around every node of a flattened map.

    The window is 10 mm of Hann along x (blind to the mean and to the slope of the shading) and 5 mm across, in slabs of
    1.25 mm.  For each of the `slants` (mm along x per mm across) the slabs are added up along lines leaning so; at
    every node the clearest counts.
    """
    step = int(NODE_MM * _CANVAS_PX_PER_MM)
    n_i, n_j = (round((n - 1) / step) + 1 for n in canvas.shape)
    slab = step // 4
    padded = np.pad(canvas, ((2 * slab, 2 * slab), (0, 0)))[: (n_i - 1) * step + 4 * slab]
    slabs = padded.reshape(-1, slab, canvas.shape[1]).mean(axis=1)
    x = np.arange(canvas.shape[1])
    offset = np.clip((x[:, None] - np.arange(n_j) * step) / (2 * step), -1, 1)
    window = (0.5 + 0.5 * np.cos(np.pi * offset)).astype(np.float32)
    floor = 0.05 * float(np.sqrt(np.mean(slabs**2)))
    noise = (slabs**2 + floor**2) @ window**2  # (n_slabs, n_j)
    phases = []
    for period_mm in (5.0, 1.0):
        cycles = x / (period_mm * _CANVAS_PX_PER_MM)
        carrier = np.stack([np.cos(2 * np.pi * cycles), -np.sin(2 * np.pi * cycles)]).astype(np.float32)
        real, imaginary = (slabs @ (part[:, None] * window) for part in carrier)
        phases.append(_clearest(real + 1j * imaginary, noise, n_i, period_mm, slants))
    return phases[0], phases[1]


def _clearest(phasor: Complex, noise: Array, n_i: int, period_mm: float, slants: Array) -> _Phase:
    """Add up the slabs (n_slabs, n_j) about each node along the slant that shows its lines best."""
    shift, clarity = np.zeros((n_i, phasor.shape[1])), np.zeros((n_i, phasor.shape[1]))
    weight = np.array([0.5, 1, 1, 1, 1, 0.5])
    lean = (np.arange(6) - 2.5) * NODE_MM / 4  # mm from the node to each slab's middle
    padded = np.pad(phasor, ((1, 1), (0, 0)))
    quiet = np.pad(noise, ((1, 1), (0, 0)))
    spread = np.sqrt(sum(w**2 * quiet[k : k + 4 * n_i : 4] for k, w in enumerate(weight)))
    for slant in slants:
        ramp = weight * np.exp(2j * np.pi * slant * lean / period_mm)
        total = sum(factor * padded[k : k + 4 * n_i : 4] for k, factor in enumerate(ramp))
        clear = np.abs(total) / spread
        better = clear > clarity
        shift[better] = -np.angle(total[better]) * period_mm / (2 * np.pi)
        clarity[better] = clear[better]
    return _Phase(shift_mm=shift, clarity=clarity, period_mm=period_mm)


def _primary(measured: tuple[tuple[_Phase, _Phase], tuple[_Phase, _Phase]], axis: int) -> tuple[_Phase, _Phase]:
    """Return the carrier to unwrap along an axis, and the other: 5 mm unless the 1 mm lines are seen far better."""
    coarse, fine = measured[axis]
    clear = np.maximum(coarse.clarity, fine.clarity)
    where = clear > max(3.0, 0.5 * float(np.quantile(clear, 0.9)))
    if not where.any():
        return coarse, fine
    major, minor = float(np.median(coarse.clarity[where])), float(np.median(fine.clarity[where]))
    faint = major < 3.3 and major < 0.66 * minor
    return (fine, coarse) if faint or major < 0.35 * minor else (coarse, fine)


def _weight(phase: _Phase) -> Array:
    """Weight (mm^-2) of a displacement by its signal-to-noise ratio; none where it may be noise."""
    cycles = np.hypot(1 / (np.sqrt(2) * 2 * np.pi * np.maximum(phase.clarity, 1e-3)), _PHASE_FLOOR)
    threshold = max(2.5, 0.25 * float(np.quantile(phase.clarity, 0.9)))
    return np.where(phase.clarity > threshold, 1 / (phase.period_mm * cycles) ** 2, 0.0)


def _unwrapped(phases: tuple[_Phase, _Phase]) -> _Shift:
    """Displacements over any number of periods, unwrapped from the clearest nodes outward."""
    phase, other = phases
    weight = _weight(phase)
    seeds = phase.clarity > max(2.5, 0.35 * float(np.quantile(phase.clarity, 0.9)))
    if not seeds.any():
        still = np.zeros_like(weight)
        return _Shift(mm=still, weight=still, field=still)
    shift, island = _unwrap(phase, seeds)
    # Islands of grid are unwrapped each on its own; the largest decides how many periods the others are off.
    order = np.argsort(-np.bincount(island[seeds]))[:12]
    joined = seeds & (island == order[0])
    field = _smooth(shift, np.where(joined, weight, 0.0))
    for label in order[1:]:
        where = seeds & (island == label)
        if where.sum() < 3:
            break
        shift[where] += phase.period_mm * np.round(np.median(field[where] - shift[where]) / phase.period_mm)
        joined |= where
        field = _smooth(shift, np.where(joined, weight, 0.0))
    for _ in range(2):
        shift = _nearest(phase, field)
        robust = _robust(weight, shift - field)
        field = _smooth(shift, robust)
    if phase.period_mm < NODE_MM:
        # Put whole nodes on the 5 mm lines, if they show at all; else any 1 mm line will do.
        lag = np.exp(2j * np.pi * (other.shift_mm - field) / NODE_MM) * (_weight(other) > 0) * other.clarity
        shift = shift + np.round(np.angle(lag.sum()) * NODE_MM / (2 * np.pi))
        field = _smooth(shift, robust)
    return _Shift(mm=shift, weight=robust, field=field)


def _nearest(phase: _Phase, field: Array) -> Array:
    """Return the displacement, of all that differ by whole periods, that is nearest to `field`."""
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
        upward = parent[order[1:]]
        step = flat[order[1:]] - flat[upward]
        step -= period * np.round(step / period)
        for node, above, on in zip(order[1:].tolist(), upward.tolist(), step.tolist(), strict=True):
            shift[node] = shift[above] + on
    return shift.reshape(seeds.shape), island.reshape(seeds.shape).astype(np.intp)


def _smooth(shift: Array, weight: Array, *, bend_mm: float = 0.08) -> Array:
    """Return the smoothest field near the weighted displacements.

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
    pull = diagonal * shift.T.ravel()
    solution = linalg.solveh_banded(stiffness, pull, overwrite_ab=True, lower=True, check_finite=False)
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
    banded = np.zeros((2 * n_i + 1, n_i * n_j), order="F")  # as the solver takes it
    for offset, values in zip(energy.offsets, energy.data, strict=True):
        if offset <= 0:
            banded[-offset] = values
    return banded


def _residual(phases: tuple[_Phase, _Phase], *, use_fine: bool) -> _Shift:
    """Measure what is left after a first flattening: the 5 mm and (once it is unmistakable) the 1 mm phase together.

    Where only the 1 mm lines can be seen (they are `primary` then), they stand alone.
    """
    primary, other = phases
    used = (primary, other) if use_fine and primary.period_mm > other.period_mm else (primary,)
    weights = [_weight(phase) for phase in used]
    field = _smooth(_nearest(primary, np.zeros_like(primary.shift_mm)), weights[0])
    if len(used) > 1:
        # Between two 1 mm lines there is no telling which is meant, unless the 5 mm lines are silent.
        between = np.abs(_nearest(other, field) - field) > 0.35
        weights[1] = np.where(between & (weights[0] > 0), 0.0, weights[1])
    for _ in range(3):
        shifts = [_nearest(phase, field) for phase in used]
        robust = [_robust(weight, shift - field) for weight, shift in zip(weights, shifts, strict=True)]
        total = np.sum(robust, axis=0)
        mean = np.sum([w * shift for w, shift in zip(robust, shifts, strict=True)], axis=0) / np.maximum(total, 1e-9)
        field = _smooth(mean, total)
    return _Shift(mm=mean, weight=total, field=field)


def _refit(sheet: _Fit, shifts: list[_Shift], *, stiff: bool) -> _Fit:
    """Move the nodes onto their lines; what they moved altogether is kept as smooth as the sheet proves to be.

    A shift is known where the line was seen, not where it belongs; a few steps of iteration settle that.
    """
    seen_shift = np.stack([shift.field for shift in shifts], axis=-1)
    raw = np.stack([np.where(s.weight > 0, s.mm, seen_shift[..., k]) for k, s in enumerate(shifts)], axis=-1)
    home = (sheet.home / NODE_MM).reshape(-1, 2)
    seen = home.copy()
    for _ in range(8):
        before, seen = seen, home + interpolate_points(seen_shift, seen) / NODE_MM
        if np.abs(seen - before).max() < 1e-4:  # half a micrometre
            break
    # Smooth first, then add each node's own deviation, which the final fit weighs.
    total = interpolate_points(sheet.home + sheet.moved, seen).reshape(raw.shape) - sheet.home
    if not stiff:
        return _Fit(homography=sheet.homography, moved=total, clear=_clear(shifts, seen_shift))
    total += raw - seen_shift
    clear = _clear(shifts, seen_shift)
    bend = _bend(sheet.moved, clear)
    smooth = side_by_side(lambda k: _smooth(total[..., k], shifts[k].weight, bend_mm=bend), (0, 1))
    return _Fit(homography=sheet.homography, moved=np.stack(smooth, axis=-1), clear=clear)


def _flat(sheet: _Fit, *, off_mm: float = 0.15, share: float = 0.7, least: int = 100) -> _Fit | None:
    """Return the sheet without bends, if most of its grid lies on one plane: of 24 photographs half did at most."""
    if sheet.clear.sum() < least:
        return None
    home, nodes = sheet.home[sheet.clear], sheet.nodes[sheet.clear]
    px_per_mm = float(np.median(np.linalg.norm(np.diff(sheet.nodes, axis=1), axis=-1))) / NODE_MM
    fitted, _ = cv2.findHomography(home, nodes, cv2.RANSAC, off_mm * px_per_mm)
    if fitted is None:
        return None
    homography = np.asarray(fitted, np.float64)
    off = np.linalg.norm(apply_homography(np.linalg.inv(homography), nodes) - home, axis=-1)
    if np.mean(off < off_mm) < share:
        return None
    return _Fit(homography=homography, moved=np.zeros_like(sheet.moved), clear=sheet.clear)


def _held_flat(shifts: list[_Shift], *, far_mm: float = 0.5, hold_mm: float = 0.15) -> list[_Shift]:
    """Hold the nodes of a flat sheet where no lines are seen near their place: what is seen there is something else."""
    seen = _clear(shifts, np.stack([shift.field for shift in shifts], axis=-1))
    for shift in shifts:
        seen &= np.abs(shift.mm) < far_mm
    held = []
    for shift in shifts:
        mm, weight = np.where(seen, shift.mm, 0.0), np.where(seen, shift.weight, hold_mm**-2)
        held.append(_Shift(mm=mm, weight=weight, field=_smooth(mm, weight)))
    return held


def _clear(shifts: list[_Shift], field: Array, *, tolerance_mm: float = 0.7) -> npt.NDArray[np.bool_]:
    """Nodes in whose neighbourhood most windows show lines, and show them where the smooth field has them."""
    agree = np.ones(field.shape[:2], bool)
    for k, shift in enumerate(shifts):
        agree &= (shift.weight > 0) & (np.abs(shift.mm - field[..., k]) < tolerance_mm)
    return np.asarray(cv2.blur(agree.astype(np.float32), (3, 3), borderType=cv2.BORDER_REPLICATE) > 0.5)


def _bend(moved: Array, clear: npt.NDArray[np.bool_]) -> float:
    """How much this sheet bends between neighbouring nodes, in mm (1.5 root mean square second differences)."""
    found = []
    for axis in (0, 1):
        second = np.diff(moved, 2, axis=axis)
        where = clear[1:-1] if axis == 0 else clear[:, 1:-1]
        found.append(second[where].ravel())
    values = np.concatenate(found)
    return float(np.clip(1.5 * np.sqrt(np.mean(values**2)), 0.015, 0.25)) if len(values) else 0.08


def _trimmed(sheet: _Fit, keep: Array | None, *, margin: int = 4) -> _Fit:
    """Crop to the part of the sheet that shows grid or holds `keep`, and refit the flat approximation to the grid."""
    clear = sheet.clear
    if clear.sum() < 12:
        return sheet
    fitted, _ = cv2.findHomography(sheet.home[clear], sheet.nodes[clear], 0)
    if fitted is None:
        return sheet
    rows, columns = np.flatnonzero(clear.any(axis=1)), np.flatnonzero(clear.any(axis=0))
    low, high = np.array([rows[0], columns[0]]), np.array([rows[-1], columns[-1]])
    if keep is not None:
        held = apply_homography(np.linalg.inv(fitted), keep)[:, ::-1] / NODE_MM
        low, high = (
            np.minimum(low, np.floor(held.min(0)).astype(int)),
            np.maximum(high, np.ceil(held.max(0)).astype(int)),
        )
    first, last = np.maximum(low - margin, 0), np.minimum(high + margin + 1, clear.shape)
    area = np.s_[first[0] : last[0], first[1] : last[1]]
    moved = apply_homography(np.linalg.inv(fitted), sheet.nodes) - sheet.home
    return _Fit(
        homography=np.asarray(fitted, np.float64) @ _shift(first[::-1] * NODE_MM), moved=moved[area], clear=clear[area]
    )
