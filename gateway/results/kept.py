"""What is kept of a digitization: the record as an .npz file, the figures as JSON.  A confirmation reads both."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from datetime import date, time

import numpy as np

from pipeline import Act, ByPerson, Calibration, Digitization, EcgRecord, Lead, PrintedValues, Quality


def record_npz(record: EcgRecord) -> bytes:
    """Return a record as an .npz file: signal_mv, confidence (n_leads, n_samples), leads, sampling_frequency_hz."""
    file = io.BytesIO()
    np.savez_compressed(
        file,
        signal_mv=record.signal_mv,
        confidence=record.confidence,
        leads=np.array([lead.value for lead in record.leads]),
        sampling_frequency_hz=np.float64(record.sampling_frequency_hz),
        paper_speed_mm_per_s=np.float64(record.calibration.paper_speed_mm_per_s),
        gain_mm_per_mv=np.float64(record.calibration.gain_mm_per_mv),
        by_person=np.array(
            [
                (part.act, record.leads.index(part.lead), part.first_sample, part.stop_sample)
                for part in record.by_person
            ],
            np.int64,
        ).reshape(-1, 4),
    )
    return file.getvalue()


def read_result(npz: bytes, figures: str) -> tuple[EcgRecord, Quality]:
    """Return record and quality from what `record_npz` and `quality_json` kept."""
    kept = json.loads(figures)
    with np.load(io.BytesIO(npz)) as arrays:
        leads = tuple(Lead(name) for name in arrays["leads"].tolist())
        record = EcgRecord(
            signal_mv=arrays["signal_mv"],
            confidence=arrays["confidence"],
            leads=leads,
            sampling_frequency_hz=float(arrays["sampling_frequency_hz"]),
            calibration=Calibration(
                paper_speed_mm_per_s=float(arrays["paper_speed_mm_per_s"]),
                gain_mm_per_mv=float(arrays["gain_mm_per_mv"]),
                speed_source=kept["paper_speed_source"],
                gain_source=kept["gain_source"],
            ),
            by_person=tuple(
                ByPerson(act=Act(act), lead=leads[lead], first_sample=first, stop_sample=stop)
                for act, lead, first, stop in (arrays["by_person"].tolist() if "by_person" in arrays else ())
            ),
        )
    quality = Quality(
        coverage={Lead(name): share for name, share in kept["coverage"].items()},
        confidence={Lead(name): share for name, share in kept["confidence"].items()},
        einthoven_residual_mv=kept["einthoven_residual_mv"],
        layout_score=kept["layout_score"],
        estimated_snr_db=kept["estimated_snr_db"],
        warnings=tuple(kept["warnings"]),
        notes=tuple(kept.get("notes", ())),
        limb_leads_agree=kept.get("limb_leads_agree"),
    )
    return record, quality


def quality_json(digitization: Digitization, archive_run: dict[str, str] | None = None) -> str:
    """Return the figures a person wants to see beside a page, as JSON; `archive_run` says which run has read it."""
    quality, calibration = digitization.quality, digitization.record.calibration
    residual = quality.einthoven_residual_mv
    return json.dumps(
        {
            "coverage": {lead.value: round(share, 4) for lead, share in quality.coverage.items()},
            "confidence": {lead.value: round(share, 4) for lead, share in quality.confidence.items()},
            "einthoven_residual_mv": None if residual is None else round(residual, 4),
            "limb_leads_agree": quality.limb_leads_agree,
            "layout_score": round(quality.layout_score, 4),
            "estimated_snr_db": round(quality.estimated_snr_db, 2),
            "warnings": list(quality.warnings),
            "notes": list(quality.notes),
            "rhythm": [lead.value for lead in digitization.layout_match.rhythm],
            "paper_speed_mm_per_s": calibration.paper_speed_mm_per_s,
            "paper_speed_source": calibration.speed_source,
            "gain_mm_per_mv": calibration.gain_mm_per_mv,
            "gain_source": calibration.gain_source,
            "weights_sha256": digitization.weights_sha256,
            "page_px": list(digitization.page.pixels.shape[1::-1]),
            "printed": json.loads(json.dumps(asdict(digitization.printed), default=str)),  # dates in ISO 8601
            **({"archive_run": archive_run} if archive_run else {}),
        }
    )


def read_printed(figures: str) -> PrintedValues:
    """Return the printed time of recording from what `quality_json` kept; earlier versions kept none."""
    printed = json.loads(figures).get("printed", {})
    day, clock = printed.get("recorded_on"), printed.get("recorded_at")
    return PrintedValues(
        recorded_on=date.fromisoformat(day) if day else None,
        recorded_at=time.fromisoformat(clock) if clock else None,
        reasons=tuple(printed.get("reasons", ())),
    )
