"""Pacing spikes: found in a recording that has them, in no heart that has none, and drawn as pacemakers make them."""

import numpy as np

from pipeline.runs import runs_of
from pipeline.training.recordings.pacing import beat_samples, pacing_spikes, split_spikes
from pipeline.training.recordings.simulate import simulate_ecg
from pipeline.training.recordings.vary import random_signal


def test_strokes_are_taken_out_and_add_up_again() -> None:
    heart = simulate_ecg(np.random.default_rng(1), disease="none")
    paced = heart.copy()
    quiet = [150, 1400, 3333]
    paced[:, quiet] += 1.2
    paced[:, [2200, 2201]] -= 2.0
    rest, spikes = split_spikes(paced)
    assert np.allclose(rest + spikes, paced, atol=1e-6)
    level = np.abs(np.diff(heart, axis=1)).max(0) < 0.02
    for at in [*quiet, 2200, 2201]:
        if level[at - 3 : at + 4].all():
            assert np.allclose(spikes[:, at], paced[:, at] - heart[:, at], atol=0.1)
    assert spikes.any()


def test_no_wave_of_a_heart_is_a_spike() -> None:
    for seed in range(12):
        disease = ("none", "hypertrophy", "left bundle branch block", "ectopic beats")[seed % 4]
        heart = 2 * simulate_ecg(np.random.default_rng(seed), disease=disease)
        assert not split_spikes(heart)[1].any(), disease


def test_drawn_spikes_are_one_or_two_samples_and_differ_by_lead() -> None:
    heart = simulate_ecg(np.random.default_rng(2), disease="none")
    heights = []
    for seed in range(30):
        spikes = pacing_spikes(heart, np.random.default_rng(seed))
        runs = runs_of(spikes.any(0))
        assert runs and all(stop - start <= 2 for start, stop in runs)
        heights.append(spikes[:, runs[0][0]])
    size = np.abs(heights).max(1)
    assert size.max() > 1.5 and size.min() < 0.35 and size.max() <= 3
    assert np.mean([np.ptp(h) > 0 for h in heights]) > 0.6
    limb = np.array(heights)[:, :3]
    assert np.mean(np.abs(limb[:, 0] + limb[:, 2] - limb[:, 1]) < 0.01) > 0.5


def test_beats_are_found() -> None:
    heart = simulate_ecg(np.random.default_rng(5), disease="none")
    beats = beat_samples(heart)
    tallest = [int(np.abs(heart[1, max(b - 40, 0) : b + 40]).argmax()) + max(b - 40, 0) for b in beats]
    assert 7 <= len(beats) <= 22
    assert np.abs(np.array(tallest) - beats).max() < 25


def test_a_recorded_spike_stays_one_at_any_heart_rate() -> None:
    heart = simulate_ecg(np.random.default_rng(1), disease="none")
    heart[:, 1000:5000:500] = heart[:, 999:4999:500] + 2.0
    for seed in range(8):
        signal, spikes = random_signal([heart], np.random.default_rng(seed))
        assert signal.shape == spikes.shape
        assert all(stop - start <= 2 for start, stop in runs_of(spikes.any(0)))
