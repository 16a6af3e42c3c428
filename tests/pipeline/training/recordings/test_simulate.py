import numpy as np
import pytest

from pipeline import LEADS, Lead
from pipeline.training.recordings.simulate import DISEASES, simulate_ecg


@pytest.mark.parametrize("disease", DISEASES)
def test_limb_leads_obey_einthoven_and_goldberger(disease: str) -> None:
    signal_mv = simulate_ecg(np.random.default_rng(3), disease=disease)
    lead = dict(zip(LEADS, signal_mv, strict=True))
    assert signal_mv.shape == (12, 5000) and signal_mv.dtype == np.float32
    assert np.allclose(lead[Lead.I] + lead[Lead.III], lead[Lead.II], atol=1e-6)
    assert np.allclose(lead[Lead.AVR] + lead[Lead.AVL] + lead[Lead.AVF], 0, atol=1e-6)
    assert 0.4 < np.ptp(signal_mv, axis=1).max() < 8


def test_the_same_generator_state_gives_the_same_signal() -> None:
    first, second = (simulate_ecg(np.random.default_rng(8), seconds=4, sampling_frequency_hz=250) for _ in range(2))
    assert first.shape == (12, 1000)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, simulate_ecg(np.random.default_rng(9), seconds=4, sampling_frequency_hz=250))


def test_an_unknown_disease_is_refused() -> None:
    with pytest.raises(ValueError, match="disease must be one of"):
        simulate_ecg(np.random.default_rng(0), disease="scurvy")
