"""When a pacemaker must have fired: where every beat has a firing, and in turn."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.pacing import awaited

BEATS = np.array([300, 750, 1180, 1650, 2090])


def expected(fired: Sequence[float], beats: npt.NDArray[np.intp], share: float = 0.0) -> list[float]:
    return awaited(fired, beats, around=(175.0, 25.0), same=6.0, share=share)


def test_a_beat_without_a_firing_has_one_where_three_others_have_it() -> None:
    fired = [float(beat - 40 + off) for beat, off in zip(BEATS[[0, 1, 3]], (0, 1, -1), strict=True)]
    assert expected(fired, BEATS) == pytest.approx([1140, 2050], abs=2)
    assert expected(fired[:2], BEATS) == []
    assert expected(sorted([*fired, 1141.0, 2049.0]), BEATS) == []


def test_firings_at_one_interval_go_on_whatever_the_heart_does() -> None:
    none = np.array([], np.intp)
    assert expected([400.0, 901.0, 1400.0, 2400.0], none) == pytest.approx([-100, 1900, 2900], abs=3)
    assert expected([400.0, 901.0, 1700.0, 2400.0], none) == []


def test_a_place_that_too_few_beats_have_is_none() -> None:
    fired = [float(beat - 40) for beat in BEATS[[0, 1, 3]]]
    assert expected(fired, BEATS) == pytest.approx([1140, 2050])
    assert expected(fired, BEATS, share=0.7) == []
