"""A reading as bytes, kept beside a page so that a correction goes on from it.

It holds no pixels of the page, and only what the later stages ask for: bit for bit the same record follows from it.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import (
    DrawnLine,
    GridScale,
    Lead,
    LeadLabel,
    PageImage,
    PrintedMarks,
    PulseBox,
    Reading,
    RectifiedPage,
    RowBand,
    SegmentationMap,
    TextLine,
    TraceSet,
)
from pipeline.sheet.paper import Sheet

_FORM = 1  # of what is written here


def pack_reading(reading: Reading) -> bytes:
    """Return a reading as bytes; b"" where a correction of speed or layout would change it."""
    if reading.rectified.grid_scale.source == "columns":
        return b""
    maps, traces, rectified = reading.segmentation, reading.traces, reading.rectified
    about = {
        "form": _FORM,
        "key": reading.key,
        "labels": [asdict(label) for label in reading.labels],
        "text": [asdict(line) for line in reading.text],
        "found": [asdict(row) for row in reading.marks.rows],
        "pulses": [asdict(pulse) for pulse in reading.marks.pulses],
        "rows": [asdict(row) for row in reading.rows],
        "row_baselines_px": reading.row_baselines_px,
        "scale": asdict(rectified.grid_scale),
        "sheet": [rectified.node_mm, rectified.px_per_mm, rectified.quarter_turns, *rectified.pixels.shape[:2]],
        "map_scale": maps.scale,
        "trace": [traces.x0_mm, traces.columns_per_mm],
        "lines": [[line.row, line.first, line.y_mm.size] for line in traces.lines],
    }
    arrays = {
        "maps": (255 * (1 - np.stack([maps.grid, maps.trace, maps.text]))).astype(np.uint8),
        "node_xy": rectified.node_xy,
        "homography": rectified.homography,
        "row_mm": traces.row_mm,
        "confidence": traces.confidence,
        "baseline_mm": traces.baseline_mm,
        "line_mm": np.concatenate([np.zeros(0, np.float32), *(line.y_mm for line in traces.lines)]),
    }
    if traces.doubt_mm is not None:
        arrays["doubt_mm"] = traces.doubt_mm
    file = io.BytesIO()
    np.savez(file, about=np.array(json.dumps(about, default=float)), **arrays)  # type: ignore[arg-type]
    return zlib.compress(file.getvalue(), 1)


def unpack_reading(data: bytes, key: str, page: PageImage, to_original: npt.NDArray[np.float64]) -> Reading | None:
    """Return what `pack_reading` wrote.

    Parameters
    ----------
    data : bytes
    key : str
        Of the reading that is wanted.
    page : PageImage
        The sheet as it was cut out for it.
    to_original : (3, 3)

    Returns
    -------
    Reading, or None if the bytes hold none, or another.
    """
    try:
        with np.load(io.BytesIO(zlib.decompress(data))) as stored:
            arrays = dict(stored)
        about: dict[str, Any] = json.loads(str(arrays["about"]))
    except (zlib.error, zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError):
        return None
    if (about["form"], about["key"]) != (_FORM, key):
        return None
    # as `Sheet.ink` rounds them: between what was cut off and the next step
    grid, trace, text = (254.5 - arrays["maps"].astype(np.float32)) / np.float32(255)
    segmentation = SegmentationMap(grid=grid, trace=trace, text=text, scale=about["map_scale"])
    points = about["row_baselines_px"]
    return Reading(
        key=key,
        page=page,
        to_original=to_original,
        segmentation=segmentation,
        rectified=_sheet(about, arrays, page, segmentation),
        labels=tuple(LeadLabel(**{**label, "lead": Lead(label["lead"])}) for label in about["labels"]),
        text=tuple(TextLine(**line) for line in about["text"]),
        marks=PrintedMarks(rows=_rows(about["found"]), pulses=tuple(PulseBox(**each) for each in about["pulses"])),
        rows=_rows(about["rows"]),
        row_baselines_px=None if points is None else tuple((x, y) for x, y in points),
        traces=_traces(about, arrays),
    )


def _rows(rows: list[dict[str, Any]]) -> tuple[RowBand, ...]:
    return tuple(RowBand(**{**row, "boundaries_mm": tuple(row["boundaries_mm"])}) for row in rows)


def _sheet(about: dict[str, Any], arrays: dict[str, Any], page: PageImage, maps: SegmentationMap) -> RectifiedPage:
    node_mm, px_per_mm, quarter_turns, height, width = about["sheet"]
    rectified = RectifiedPage(
        node_xy=arrays["node_xy"],
        node_mm=node_mm,
        pixels=np.zeros((height, width, 3), np.uint8),
        px_per_mm=px_per_mm,
        grid_scale=GridScale(**about["scale"]),
        homography=arrays["homography"],
        quarter_turns=quarter_turns,
    )
    return Sheet(page=page, segmentation=maps, rectified=rectified).sampled().rectified


def _traces(about: dict[str, Any], arrays: dict[str, Any]) -> TraceSet:
    lines, start = [], 0
    for row, first, size in about["lines"]:
        lines.append(DrawnLine(row=row, first=first, y_mm=arrays["line_mm"][start : start + size]))
        start += size
    x0_mm, columns_per_mm = about["trace"]
    return TraceSet(
        row_mm=arrays["row_mm"],
        confidence=arrays["confidence"],
        baseline_mm=arrays["baseline_mm"],
        x0_mm=x0_mm,
        columns_per_mm=columns_per_mm,
        doubt_mm=arrays.get("doubt_mm"),
        lines=tuple(lines),
    )
