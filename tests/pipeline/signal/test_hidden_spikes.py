"""Where a pacing spike may be missing is named, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from pipeline.datatypes import Calibration, EcgRecord, LayoutMatch, Lead, SpikeMark, TraceSet
from pipeline.signal.hidden_spikes import hidden_spikes, unread_strokes

LEADS = (Lead.I, Lead.II, Lead.III)
BEATS = tuple(range(400, 5000, 400))
FIRED = tuple(beat - 40 for beat in BEATS)


def _record(pacing: list[tuple[Lead, int]], waves: tuple[tuple[int, int], ...] = ()) -> EcgRecord:
    """Three leads with a beat every 0.8 s, and `waves`, each a lead and a sample."""
    signal = np.zeros((3, 5000), np.float32)
    shape = np.exp(-0.5 * (np.arange(-25, 26) / 5.0) ** 2).astype(np.float32)
    for beat in BEATS:
        signal[:, beat - 25 : beat + 26] += shape
    for row, at in waves:
        signal[row, at - 25 : at + 26] += shape
    for lead, at in pacing:
        signal[LEADS.index(lead), at] += 1.0
    return EcgRecord(
        signal_mv=signal,
        confidence=np.ones(signal.shape, np.float32),
        leads=LEADS,
        sampling_frequency_hz=500.0,
        calibration=Calibration(),
        pacing=tuple(pacing),
    )


def _all(*, but: tuple[tuple[Lead, int], ...] = ()) -> list[tuple[Lead, int]]:
    return [(lead, at) for at in FIRED for lead in LEADS if (lead, at) not in but]


@pytest.mark.parametrize(
    ("pacing", "waves", "named"),
    [
        ([], ((0, 1160),), []),  # no pacemaker
        (_all(), (), []),
        (_all(but=((Lead.II, 1160),)), (), ["pacing spikes may be missing in II at 2.3 s"]),  # others have one there
        ([(Lead.I, at) for at in FIRED], (), []),  # the other leads are level there and show none
        ([(Lead.I, at) for at in FIRED], ((1, 1160),), ["pacing spikes may be missing in II at 2.3 s"]),  # on a wave
        ([(lead, at) for lead, at in _all() if at != 1160], (), []),  # a beat that shows no spike in any lead
        (
            [(lead, at) for lead, at in _all() if at not in (1160, 2760)],
            ((2, 1160), (2, 2760)),
            ["pacing spikes may be missing in III at 2.3 s (and 1 more)"],
        ),
    ],
)
def test_a_lead_without_a_spike_where_the_pattern_has_one_is_named(
    pacing: list[tuple[Lead, int]], waves: tuple[tuple[int, int], ...], named: list[str]
) -> None:
    assert hidden_spikes(_record(pacing, waves)) == named


def test_a_pacemaker_that_fires_whatever_the_heart_does_is_a_pattern_too() -> None:
    fired = [at for at in range(150, 5000, 453) if at not in (1509, 2868)]
    record = _record([(lead, at) for at in fired for lead in LEADS], ((1, 1509),))
    assert hidden_spikes(record) == ["pacing spikes may be missing in II at 3.0 s"]


def test_strokes_of_several_rows_that_are_not_in_the_record_are_named() -> None:
    strokes = tuple(SpikeMark(row=row, x_mm=10.0 * k, tip_mm=0.0, score=0.5) for k in range(1, 5) for row in (0, 2))
    traces = TraceSet(
        row_mm=np.zeros((3, 100), np.float32),
        confidence=np.ones((3, 100), np.float32),
        baseline_mm=np.zeros(3, np.float32),
        x0_mm=0.0,
        columns_per_mm=20.0,
        strokes=strokes,
    )
    spans = [(lead, row, (0.0, 50.0)) for row, lead in enumerate(LEADS)]
    match = cast(LayoutMatch, SimpleNamespace(stretches=lambda: iter(spans)))
    assert unread_strokes(match, traces) == [
        "pacing spikes may be missing: thin strokes stand at one time in I, III",
    ]
