"""Whole pages with truth, to measure on: what `evaluate` reads, made of recordings the networks never saw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import ByteArray, FloatArray
from pipeline.training.drawing.augment import Warp, supersampling
from pipeline.training.drawing.capture import Capture, expose, random_capture
from pipeline.training.drawing.families import family as named
from pipeline.training.drawing.synth import INK_PX_PER_MM, DrawnPage, random_page, system_fonts


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Picture:
    """A drawn page as a scanner, copier or camera saw it, with the geometry it was seen in."""

    name: str
    page: DrawnPage
    px_per_mm: float
    pixels: ByteArray  # (h, w, 3)
    paper_mm: FloatArray  # (h, w, 2) paper x, y under the centre of every pixel


def paper_under(
    page: DrawnPage, capture: Capture, px_per_mm: float, rng: np.random.Generator, *, margin_mm: float = 12.0
) -> FloatArray:
    """Return the paper point (x, y) in mm under every pixel of a picture of the whole page, (h, w, 2).

    Flat and nearly straight from a scanner, in perspective and bent from a camera; see `photograph`.

    Parameters
    ----------
    page : DrawnPage
    capture : Capture
    px_per_mm : float
        Of the picture.
    rng : Generator
        All chance comes from it.
    margin_mm : float
        Of the desk around the page in a photograph.
    """
    photo = capture.kind == "photo"
    width, height = page.style.width_mm, page.style.height_mm
    margin = margin_mm if photo else 0.0
    w, h = round((width + 2 * margin) * px_per_mm), round((height + 2 * margin) * px_per_mm)
    u, v = np.meshgrid(
        (np.arange(w, dtype=np.float32) + 0.5) / px_per_mm - margin - width / 2,
        (np.arange(h, dtype=np.float32) + 0.5) / px_per_mm - margin - height / 2,
    )
    turn = rng.normal(0, 0.06) if photo else rng.normal(0, 0.006)
    if photo:
        lean = rng.normal(0, 0.0004, 2)
        depth = 1 + lean[0] * u + lean[1] * v
        u, v = u / depth, v / depth
    x = np.cos(turn) * u - np.sin(turn) * v + width / 2
    y = np.sin(turn) * u + np.cos(turn) * v + height / 2
    warp = Warp(rng, 2.0 if photo else 0.0, kinks=1 if photo else 0, shortest_mm=90)
    dx, dy = warp(x.astype(np.float32), y.astype(np.float32))
    return np.stack([x + dx, y + dy], -1).astype(np.float32)


def _exposed(
    page: DrawnPage, paper_mm: FloatArray, capture: Capture, px_per_mm: float, rng: np.random.Generator
) -> ByteArray:
    """Return the picture (h, w, 3) of a page that shows the paper points `paper_mm`."""
    at = paper_mm * np.float32(page.px_per_mm) - np.float32(0.5)
    steps = supersampling(page.px_per_mm, px_per_mm)
    source = cv2.blur(page.pixels, (steps, steps)) if steps > 1 else page.pixels
    around = (96, 84, 70) if capture.kind == "photo" else (255, 255, 255)
    seen = cv2.remap(
        source, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=around
    )
    return expose(np.asarray(seen, np.uint8), replace(capture, native_px_per_mm=px_per_mm), px_per_mm, rng)


def photograph(page: DrawnPage, capture: Capture, px_per_mm: float, rng: np.random.Generator) -> ByteArray:
    """Return a picture of a whole page: flat and nearly straight from a scanner, in perspective and bent from a camera.

    Parameters
    ----------
    page : DrawnPage
    capture : Capture
        Its kind decides about geometry: "photo" leans, turns and bends; everything else is skewed by under a degree.
    px_per_mm : float
        Resolution of the picture.

    Returns
    -------
    (h, w, 3) uint8
    """
    return _exposed(page, paper_under(page, capture, px_per_mm, rng), capture, px_per_mm, rng)


def photograph_flat(
    page: DrawnPage, capture: Capture, px_per_mm: float, rng: np.random.Generator
) -> tuple[ByteArray, npt.NDArray[np.float64]]:
    """Return a picture of a whole page that lay flat, whatever took it, and the map (2, 3) from paper to its pixels.

    Parameters
    ----------
    page : DrawnPage
    capture : Capture
    px_per_mm : float
        Resolution of the picture.
    rng : Generator
        All chance comes from it.
    """
    paper_mm = paper_under(page, replace(capture, kind="scan"), px_per_mm, rng)
    height, width = paper_mm.shape[:2]
    corners = np.array([(0, 0), (0, width - 1), (height - 1, 0)])  # row, column; the map is linear
    at_mm = np.column_stack([paper_mm[tuple(corners.T)], np.ones(3)]).astype(np.float64)
    to_pixel = np.linalg.solve(at_mm, corners[:, ::-1].astype(np.float64)).T
    return _exposed(page, paper_mm, capture, px_per_mm, rng), np.asarray(to_pixel, np.float64)


def draw_pictures(
    records: list[FloatArray],
    *,
    count: int,
    kind: str,
    seed: int,
    family: str = "",
    layout: str = "",
    headed: bool = False,
) -> Iterator[Picture]:
    """Draw `count` pages of one kind, one by one; the same seed gives the same pages.

    Parameters
    ----------
    records : list of (12, n) float32
    kind : {"clean", "scan", "copy", "photo"}
        What became of the paper.
    family : str
        Of `families.FAMILIES`, or "all" for each in turn; "" draws usual pages.
    layout : str
        Of the layouts that come with the package; "" leaves it to chance.
    headed : bool
        Print headers that state known values.
    """
    fonts = system_fonts()
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        page = random_page(records, rng, fonts, named(family, index), layout_name=layout, headed=headed)
        capture = random_capture(rng)
        while capture.kind != kind:
            capture = random_capture(rng)
        finer = page.px_per_mm / INK_PX_PER_MM
        px_per_mm = finer * float(rng.uniform(5.0, 11.8) if kind != "photo" else rng.uniform(7.0, 11.0))
        paper_mm = paper_under(page, capture, px_per_mm, rng)
        pixels = _exposed(page, paper_mm, capture, px_per_mm, rng)
        yield Picture(name=f"{index:04d}", page=page, px_per_mm=px_per_mm, pixels=pixels, paper_mm=paper_mm)


def spike_list(page: DrawnPage) -> npt.NDArray[np.int32]:
    """List the pacing spikes of a page once, also where two rows print them: (n, 3) lead, sample, microvolts.

    Parameters
    ----------
    page : DrawnPage
    """
    places = {(page.leads.index(s.lead), s.sample): round(s.height_mv * 1000) for s in page.spikes}
    return np.array([(*place, height) for place, height in sorted(places.items())], np.int32).reshape(-1, 3)


def render_pages(
    records: list[FloatArray], out: Path, *, count: int, kind: str, seed: int, family: str = "", layout: str = ""
) -> None:
    """Write `count` pages as PNG with ``truth.npz``.

    It holds ``r<id>``, int16 microvolts (n_leads, n) at 500 Hz, -32768 not printed; ``s<id>``, the pacing spikes in
    it, int32 (n, 3): row of the lead, first sample, height in microvolts; and `info`, which names the leads where there
    are more than twelve.

    Parameters
    ----------
    records : list of (12, n) float32
    out : Path
    kind : {"clean", "scan", "copy", "photo"}
        What became of the paper.
    family : str
        Of `families.FAMILIES`, or "all" for each in turn; "" draws usual pages.
    layout : str
        Of the layouts that come with the package; "" leaves it to chance.
    """
    out.mkdir(parents=True, exist_ok=True)
    truth: dict[str, npt.NDArray[np.int16 | np.int32]] = {}
    info = []
    for picture in draw_pictures(records, count=count, kind=kind, seed=seed, family=family, layout=layout):
        name, page = picture.name, picture.page
        cv2.imwrite(str(out / f"{name}_{kind}.png"), picture.pixels[..., ::-1])
        microvolts = np.nan_to_num(page.signal_mv * 1000, nan=-32768)
        truth[f"r{name}"] = np.clip(np.rint(microvolts), -32768, 32767).astype(np.int16)
        truth[f"s{name}"] = spike_list(page)
        info.append(
            {
                "id": name,
                "family": next(iter(page.style.families), "usual"),
                "layout": page.layout.name,
                "leads": list(page.leads),
                "paper_speed_mm_per_s": page.style.speed_mm_per_s,
                "gain_mm_per_mv": page.style.gain_mm_per_mv,
                "px_per_mm": round(picture.px_per_mm, 3),
            }
        )
    np.savez_compressed(out / "truth.npz", info=json.dumps(info), **truth)  # type: ignore[arg-type]  # stub: allow_pickle
