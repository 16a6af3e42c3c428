"""What a person takes out of a record: leads that are not accepted, and findings that this settles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.datatypes import Act, ByPerson, Corrections, EcgRecord, InkAudit
from pipeline.errors import BrokenRule, CorrectionError


def leave_out(
    record: EcgRecord, found: InkAudit, corrections: Corrections, *, beside_s: float = 0.1
) -> tuple[EcgRecord, InkAudit]:
    """Take out the leads that a person did not accept, and what the audit found in them and in unreadable stretches.

    Parameters
    ----------
    record : EcgRecord
    found : InkAudit
        Of the record.
    corrections : Corrections
    beside_s : float
        A finding may reach this far beyond an unreadable stretch.

    Returns
    -------
    record : EcgRecord
        These leads are NaN; `by_person` names them.
    found : InkAudit

    Raises
    ------
    CorrectionError
        No lead with a signal would remain.
    """
    if not corrections.left_out and not any(part.act is Act.UNREADABLE for part in record.by_person):
        return record, found
    if missing := [lead for lead in corrections.left_out if lead not in record.leads]:
        raise CorrectionError([BrokenRule("left_out", ", ".join(missing), "must be on the page")])
    signal_mv, confidence = record.signal_mv.copy(), record.confidence.copy()
    acts = [part for part in record.by_person if part.lead not in corrections.left_out]
    for lead in corrections.left_out:
        row = record.leads.index(lead)
        known = np.flatnonzero(np.isfinite(signal_mv[row]))
        span = (int(known[0]), int(known[-1]) + 1) if known.size else (0, signal_mv.shape[1])
        acts.append(ByPerson(act=Act.LEFT_OUT, lead=lead, first_sample=span[0], stop_sample=span[1]))
        signal_mv[row], confidence[row] = np.nan, 0.0
    if not np.isfinite(signal_mv).any():
        left = ", ".join(corrections.left_out)
        raise CorrectionError([BrokenRule("left_out", left, "a lead with a signal must remain; else reject the page")])
    rate = record.sampling_frequency_hz
    settled = [
        (part.lead, part.first_sample / rate - beside_s, part.stop_sample / rate + beside_s)
        for part in acts
        if part.act is not Act.DRAWN
    ]
    marks = tuple(
        mark
        for mark in found.marks
        if mark.lead not in corrections.left_out
        and not any(mark.lead is lead and start <= mark.start_s and mark.end_s <= end for lead, start, end in settled)
    )
    kept = tuple(second for second in record.second_prints if second.lead not in corrections.left_out)
    record = replace(
        record,
        signal_mv=signal_mv,
        confidence=confidence,
        second_prints=kept,
        by_person=tuple(acts),
        pacing=tuple(spike for spike in record.pacing if spike[0] not in corrections.left_out),
    )
    return record, replace(found, marks=marks)
