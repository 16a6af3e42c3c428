"""A digitization as files: the signals as CSV, everything else that was learned as JSON."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from datetime import date, time
from pathlib import Path
from typing import Any

import numpy as np

import pipeline
from pipeline.corrections import corrections_json
from pipeline.datatypes import (
    ALL_LEADS,
    MARKS_OF_THE_LINE,
    ByPerson,
    Calibration,
    Digitization,
    EcgRecord,
    FloatArray,
    InkAudit,
    LayoutMatch,
    Lead,
    PrintedValues,
    Quality,
    RectifiedPage,
    SecondPrint,
    in_order,
    record_leads,
)


def to_csv(record: EcgRecord) -> str:
    """Write a record as CSV: `time_s` and its leads in mV, the twelve first, an empty cell where nothing is known."""
    leads = record_leads(record.leads)
    columns = in_order(record.signal_mv, record.leads, leads)
    lines = [",".join(["time_s", *leads])]
    for k, values in enumerate(columns.T.tolist()):
        cells = ("" if value != value else f"{value:.4f}" for value in values)
        lines.append(",".join([f"{k / record.sampling_frequency_hz:.6g}", *cells]))
    return "\n".join(lines) + "\n"


def read_csv(path: Path) -> tuple[float, tuple[Lead, ...], FloatArray]:
    """Read what `to_csv` wrote: sampling frequency in Hz, leads and (n_leads, n) mV.

    Raises
    ------
    ValueError
        If the file has no `time_s` column, or fewer than two samples.
    """
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    if header[:1] != ["time_s"] or len(rows) < 2 or not set(header[1:]) <= set(ALL_LEADS):
        raise ValueError(
            f"{path}: not a page's signals: the columns must be time_s and leads, with two samples or more"
        )
    table = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows])
    leads = tuple(Lead(name) for name in header[1:])
    return (len(rows) - 1) / (table[-1, 0] - table[0, 0]), leads, table.T[1:].astype(np.float32)


def to_json(digitization: Digitization) -> str:
    """Write what was learned about a page, and how, as JSON.

    Parameters
    ----------
    digitization : Digitization

    Returns
    -------
    str
        Everything but the signals, which `to_csv` writes, and the text on the page, which may hold patient data.  What
        is printed about the recording is in it, with its date and the patient's age.
    """
    record, traces = digitization.record, digitization.traces
    drawn = float(traces.drawn()[np.isfinite(traces.row_mm)].mean()) if np.isfinite(traces.row_mm).any() else 0.0
    content = {
        "page_number": digitization.page.page_number,
        "page_px": list(digitization.page.pixels.shape[1::-1]),
        "layout": _layout(digitization.layout_match),
        "calibration": _calibration(record.calibration),
        "geometry": _geometry(digitization.rectified),
        "traces": {"rows": len(traces.row_mm), "share_from_drawing": round(drawn, 4)},
        "sampling_frequency_hz": record.sampling_frequency_hz,
        "samples": record.signal_mv.shape[1],
        "leads": [
            lead for lead, signal in zip(record.leads, record.signal_mv, strict=True) if np.isfinite(signal).any()
        ],
        "pacing_spikes": [_pacing_spike(record, lead, at) for lead, at in record.pacing],
        "second_prints": [_second_print(second) for second in record.second_prints],
        "quality": _quality(digitization.quality),
        "audit": _audit(digitization.audit),
        "printed": _printed(digitization.printed),
        "corrections": corrections_json(digitization.corrections),
        "by_person": [_by_person(part, record.sampling_frequency_hz) for part in record.by_person],
        "version": pipeline.__version__,
        "weights_sha256": digitization.weights_sha256,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _layout(match: LayoutMatch) -> dict[str, Any]:
    return {
        "name": match.layout.name,
        "rows": [list(row) for row in match.layout.rows],
        "part": match.layout.part or None,
        "score": round(match.score, 4),
        "cost": round(match.cost, 4),
        "certain": match.certain,
        "reasons": list(match.reasons),
        "rhythm": list(match.rhythm),
        "labels": [
            {"lead": x.lead, "x_mm": round(x.x_mm, 2), "y_mm": round(x.y_mm, 2), "score": round(x.score, 3)}
            for x in match.labels
        ],
        "column_mm": [[round(edge, 3) for edge in span] for span in match.column_mm],
    }


def _calibration(calibration: Calibration) -> dict[str, Any]:
    return {
        "paper_speed_mm_per_s": calibration.paper_speed_mm_per_s,
        "paper_speed_source": calibration.speed_source,
        "paper_speed_score": round(calibration.speed_score, 4),
        "gain_mm_per_mv": calibration.gain_mm_per_mv,
        "chest_gain_mm_per_mv": calibration.chest_gain_mm_per_mv,
        "gain_source": calibration.gain_source,
        "gain_score": round(calibration.gain_score, 4),
    }


def _geometry(rectified: RectifiedPage) -> dict[str, Any]:
    scale = rectified.grid_scale
    return {
        "px_per_mm_x": round(scale.px_per_mm_x, 4),
        "px_per_mm_y": round(scale.px_per_mm_y, 4),
        "grid_score": round(scale.score, 4),
        "scale_source": scale.source,
        "quarter_turns": rectified.quarter_turns,
        "homography_mm_to_px": [[float(f"{value:.8g}") for value in row] for row in rectified.homography],
    }


def _pacing_spike(record: EcgRecord, lead: Lead, at: int) -> dict[str, Any]:
    row = record.leads.index(lead)
    return {
        "lead": lead,
        "time_s": round(at / record.sampling_frequency_hz, 4),
        "value_mv": round(float(record.signal_mv[row, at]), 3),
        "confidence": round(float(record.confidence[row, at]), 3),
    }


def _second_print(second: SecondPrint) -> dict[str, Any]:
    return {
        "lead": second.lead,
        "first_sample": second.first_sample,
        "samples": second.signal_mv.size,
        "agreement_db": round(second.agreement_db, 2),
        "used": second.used,
    }


def _by_person(part: ByPerson, sampling_frequency_hz: float) -> dict[str, Any]:
    """Write which samples a person drew, could not read, or left out; times are those of the record."""
    return {
        "act": part.act.name.lower(),
        "lead": part.lead,
        "first_sample": part.first_sample,
        "stop_sample": part.stop_sample,
        "start_s": round(part.first_sample / sampling_frequency_hz, 3),
        "end_s": round(part.stop_sample / sampling_frequency_hz, 3),
    }


def _quality(quality: Quality) -> dict[str, Any]:
    residual_mv = quality.einthoven_residual_mv
    return {
        "estimated_snr_db": round(quality.estimated_snr_db, 2),
        "einthoven_residual_mv": None if residual_mv is None else round(residual_mv, 4),
        "limb_leads_agree": quality.limb_leads_agree,
        "coverage": {lead: round(share, 4) for lead, share in quality.coverage.items()},
        "confidence": {lead: round(sure, 4) for lead, sure in quality.confidence.items()},
        "warnings": list(quality.warnings),
        "notes": list(quality.notes),
    }


def _audit(audit: InkAudit) -> dict[str, Any]:
    """Write where record and ink differ: `unexplained` ink, and stretches of the record by what is wrong with them."""
    marks: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ("unexplained", *MARKS_OF_THE_LINE)}
    for mark in audit.marks:
        box_mm = (mark.x0_mm, mark.y0_mm, mark.x1_mm, mark.y1_mm)
        marks[mark.kind if mark.kind in marks else "unexplained"].append(
            {
                "kind": mark.kind,
                "lead": mark.lead,
                "start_s": round(mark.start_s, 3),
                "end_s": round(mark.end_s, 3),
                "box_mm": [round(edge, 2) for edge in box_mm],
                "reach_mm": round(mark.reach_mm, 2),
                "doubtful": mark.doubtful,
            }
            | ({"other": mark.other} if mark.other else {})
        )
    return {"pen_mm": round(audit.pen_mm, 3)} | marks


def _printed(printed: PrintedValues) -> dict[str, Any]:
    """Write what the page states in print: nothing of it is measured here."""
    content = asdict(printed)
    moments = {name: value.isoformat() for name, value in content.items() if isinstance(value, (date, time))}
    may_be = [day.isoformat() for day in printed.may_be_recorded_on]
    return content | moments | {"may_be_recorded_on": may_be}
