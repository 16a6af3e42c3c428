"""What tells of a pacemaker: the beats of all rows, and the heights of limb leads."""

import numpy as np
import pytest

from pipeline.datatypes import Lead
from pipeline.rows.firings import Likely, Stretch, beats_of, by_limb_leads, by_pattern

BEATS = np.array([300, 750, 1180, 1650, 2090])


def test_beats_stand_where_rows_are_steep() -> None:
    x = np.arange(2400)
    line = -60 * np.exp(-(((x[:, None] - BEATS) / 12) ** 2)).sum(1).astype(np.float32)
    there = np.ones(x.size, bool)
    assert beats_of([line, 0.3 * line], [there, there]).tolist() == pytest.approx(BEATS.tolist(), abs=8)
    assert beats_of([line], [there & (x < 1000)]).tolist() == pytest.approx([300, 750], abs=8)


def test_two_limb_leads_tell_the_others_unless_they_contradict_each_other() -> None:
    heights = {Lead.II: 18.0, Lead.AVR: -4.0, Lead.AVL: -19.0, Lead.V1: 5.0}
    assert by_limb_leads(heights, Lead.I) == pytest.approx(-10.0)
    assert by_limb_leads(heights, Lead.III) == pytest.approx(28.0)
    assert by_limb_leads(heights, Lead.V2) is None
    assert by_limb_leads({Lead.II: 18.0, Lead.AVR: -4.0, Lead.V1: 5.0}, Lead.I) is None
    assert by_limb_leads(dict.fromkeys((Lead.II, Lead.AVR, Lead.AVL), 8.0), Lead.I) is None  # drawn by the cart


def test_strokes_of_one_lead_alone_add_nothing_in_others() -> None:
    lead = Stretch(row=2, lead=Lead.III, up=1, first=0, stop=2400, later=0)
    values = {"sign": 1, "foot_mm": 60.0, "tip_mm": 70.0, "logit": 3.0, "chance": 0.7}
    spikes = [Likely(stretch=lead, column=beat, middle=float(beat), **values) for beat in BEATS.tolist()]  # type: ignore[arg-type]
    assert by_pattern(spikes, spikes, {}, [lead]) == spikes
