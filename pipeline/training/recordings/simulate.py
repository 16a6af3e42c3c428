"""A 12-lead ECG of no one: the demo's patient, and signals for tests that must not hold anybody's data.

Every wave (P, Q, R, S, T) is a Gaussian in time along a direction of the heart's dipole (x left, y down, z back).
The dipole is seen by Dower's lead field, which gives I, II and V1-V6; the other limb leads follow from I and II, so
III = II - I and aVR + aVL + aVF = 0 hold as they do in a patient.  The rate varies with breathing; a chance disease
changes waves, rhythm or both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import FloatArray

# Dower's lead field: potential of I, II, V1..V6 for a unit dipole (x left, y down, z back); rows lead, columns axis.
LEAD_FIELD = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)

# The same of every lead beside the twelve, in the order of ALL_LEADS: of the chest to the right, of the back, Nehb's,
# Frank's; made by hand, the torso taken as an ellipse that V1..V6 lie on.
OTHER_FIELD = np.array(
    [
        [-0.720, 0.150, -0.400],
        [-0.760, 0.140, -0.120],
        [-0.700, 0.120, 0.140],
        [-0.560, 0.090, 0.300],
        [0.640, 0.060, 0.370],
        [0.440, 0.040, 0.460],
        [0.220, 0.030, 0.500],
        [0.900, 0.100, 0.800],
        [0.700, 0.900, -0.600],
        [0.300, 0.800, 0.900],
        [1.0, 0.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 0.0, 1.0],
    ]
)

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Wave:
    """One deflection: a Gaussian `at_s` from the R peak, `sigma_s` wide, along `dipole_mv` (x, y, z)."""

    at_s: float
    sigma_s: float
    dipole_mv: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Heart:
    """How one simulated heart beats and conducts."""

    rate_bpm: float
    atrium: tuple[Wave, ...]
    ventricle: tuple[Wave, ...]
    recovery: tuple[Wave, ...]
    ectopic: tuple[Wave, ...] = ()  # the whole beat of a ventricular ectopic focus
    ectopic_share: float = 0.0
    irregularity: float = 0.03  # standard deviation of the RR interval, relative
    fibrillation_mv: float = 0.0  # amplitude of the f waves where the atria fibrillate


P = (Wave(-0.165, 0.018, (0.05, 0.10, -0.05)), Wave(-0.135, 0.020, (0.05, 0.06, 0.04)))
QRS = (
    Wave(-0.026, 0.009, (-0.14, -0.06, -0.26)),
    Wave(0.000, 0.011, (1.00, 0.80, 0.25)),
    Wave(0.025, 0.011, (-0.12, -0.08, 0.62)),
)
T = (Wave(0.235, 0.048, (0.15, 0.14, -0.09)), Wave(0.285, 0.028, (0.11, 0.10, -0.07)))
LEFT_BUNDLE = (
    Wave(0.000, 0.018, (0.35, 0.30, 0.35)),
    Wave(0.040, 0.022, (0.75, 0.10, 0.85)),
    Wave(0.075, 0.016, (0.45, 0.00, 0.25)),
)
RIGHT_BUNDLE = (*QRS, Wave(0.062, 0.018, (-0.55, 0.05, -0.50)))
ECTOPIC = (
    Wave(0.000, 0.030, (-0.30, 1.10, 0.90)),
    Wave(0.060, 0.028, (-0.50, 0.60, 0.30)),
    Wave(0.290, 0.060, (0.30, -0.60, -0.35)),
)
PACED = (Wave(-0.045, 0.0012, (0.8, 1.6, 0.4)), Wave(0.02, 0.030, (0.75, -0.95, 0.70)))

DISEASES = (
    "none",
    "atrial fibrillation",
    "ectopic beats",
    "left bundle branch block",
    "right bundle branch block",
    "inferior infarction",
    "anterior infarction",
    "hypertrophy",
    "paced",
)


def _turned(waves: tuple[Wave, ...], rng: np.random.Generator, spread: float) -> tuple[Wave, ...]:
    """Move the waves to another body: every dipole scaled and bent at random by about `spread`."""
    gain = np.exp(rng.normal(0, spread))
    turned = []
    for wave in waves:
        x, y, z = gain * np.asarray(wave.dipole_mv) * (1 + rng.normal(0, spread, 3))
        turned.append(replace(wave, dipole_mv=(float(x), float(y), float(z))))
    return tuple(turned)


def _current(dipole_mv: tuple[float, float, float]) -> tuple[Wave, ...]:
    """Make an ST shift along `dipole_mv`: a dome that joins the QRS to the T wave."""
    return tuple(Wave(at, 0.045, dipole_mv) for at in (0.085, 0.150, 0.215))


def _draw_heart(rng: np.random.Generator, disease: str) -> Heart:
    """Draw a heart with the named disease; every draw differs a little."""
    heart = Heart(
        rate_bpm=float(np.clip(rng.normal(74, 14), 46, 130)),
        atrium=_turned(P, rng, 0.15),
        ventricle=_turned(QRS, rng, 0.15),
        recovery=_turned(T, rng, 0.2),
    )
    flipped = tuple(replace(w, dipole_mv=(-w.dipole_mv[0], -0.5 * w.dipole_mv[1], -1.5 * w.dipole_mv[2])) for w in T)
    match disease:
        case "atrial fibrillation":
            return replace(heart, atrium=(), irregularity=0.2, fibrillation_mv=0.05, rate_bpm=heart.rate_bpm + 15)
        case "ectopic beats":
            return replace(heart, ectopic=_turned(ECTOPIC, rng, 0.2), ectopic_share=0.2)
        case "left bundle branch block":
            return replace(heart, ventricle=_turned(LEFT_BUNDLE, rng, 0.12), recovery=_turned(flipped, rng, 0.2))
        case "right bundle branch block":
            return replace(heart, ventricle=_turned(RIGHT_BUNDLE, rng, 0.12))
        case "inferior infarction":
            return replace(heart, recovery=(*heart.recovery, *_current((-0.03, 0.18, 0.06))))
        case "anterior infarction":
            return replace(heart, recovery=(*heart.recovery, *_current((0.06, 0.0, -0.20))))
        case "hypertrophy":
            return replace(heart, ventricle=_turned(_turned(QRS, rng, 0.1), rng, 0.1) + QRS, recovery=flipped)
        case "paced":
            return replace(heart, atrium=(), ventricle=_turned(PACED, rng, 0.1), recovery=_turned(flipped, rng, 0.2))
    return heart


def _beat_times(rng: np.random.Generator, heart: Heart, seconds: float) -> list[float]:
    """R peak times in s, from before the first sample to after the last."""
    interval = 60.0 / heart.rate_bpm
    breathing_hz, phase = rng.uniform(0.2, 0.3), rng.uniform(0, 2 * np.pi)
    times = [-interval + rng.uniform(0, interval)]
    while times[-1] < seconds + interval:
        breathing = 0.03 * np.sin(2 * np.pi * breathing_hz * times[-1] + phase)
        factor = 1 + breathing + rng.normal(0, heart.irregularity)
        times.append(times[-1] + max(interval * factor, 0.33))
    return times


def _add_waves(dipole: Float64, t: Float64, at: float, waves: tuple[Wave, ...], stretch: float = 1.0) -> None:
    """Add the waves of one beat with its R peak at `at` to `dipole` (3, n); `stretch` scales the later waves' delay."""
    for wave in waves:
        centre = at + wave.at_s * stretch
        shape = np.exp(-0.5 * ((t - centre) / (wave.sigma_s * stretch)) ** 2)
        dipole += np.asarray(wave.dipole_mv)[:, None] * shape


def every_lead(signal_mv: FloatArray) -> FloatArray:
    """Add to the twelve leads of a recording those that another electrode would have seen of the same dipole.

    Parameters
    ----------
    signal_mv : (12, n) float32
        In the order of `LEADS`.

    Returns
    -------
    (n_leads, n) float32
        In the order of `ALL_LEADS`.
    """
    seen = signal_mv[[0, 1, *range(6, 12)]].astype(np.float64)
    dipole = np.linalg.pinv(LEAD_FIELD) @ seen
    return np.vstack([signal_mv, OTHER_FIELD @ dipole]).astype(np.float32)


def simulate_ecg(
    rng: np.random.Generator,
    *,
    seconds: float = 10.0,
    sampling_frequency_hz: float = 500.0,
    disease: str | None = None,
) -> FloatArray:
    """Draw the 12-lead ECG of a person who does not exist.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance: the same state gives the same signal.
    seconds, sampling_frequency_hz : float
        Length and rate.
    disease : str, optional
        One of `DISEASES`; None draws one, "none" half of the time.

    Returns
    -------
    numpy.ndarray
        (12, n) float32 in mV, leads in the order of `pipeline.LEADS`.

    Raises
    ------
    ValueError
        If `disease` is not one of `DISEASES`.
    """
    if disease is None:
        disease = "none" if rng.random() < 0.5 else DISEASES[int(rng.integers(1, len(DISEASES)))]
    if disease not in DISEASES:
        raise ValueError(f"disease must be one of {', '.join(DISEASES)}, got {disease!r}")
    heart = _draw_heart(rng, disease)
    n = round(seconds * sampling_frequency_hz)
    t = np.arange(n) / sampling_frequency_hz
    dipole = np.zeros((3, n))
    times = _beat_times(rng, heart, seconds)
    for at, following in zip(times, [*times[1:], times[-1] + 60 / heart.rate_bpm], strict=True):
        if rng.random() < heart.ectopic_share:
            _add_waves(dipole, t, at - 0.15, heart.ectopic)
            continue
        _add_waves(dipole, t, at, heart.atrium)
        _add_waves(dipole, t, at, heart.ventricle)
        _add_waves(dipole, t, at, heart.recovery, stretch=float(np.clip((following - at) / 0.85, 0.6, 1.3) ** 0.5))
    if heart.fibrillation_mv:
        f_hz = rng.uniform(5, 8)
        phase = 2 * np.pi * f_hz * t + np.cumsum(rng.normal(0, 0.15, n)) / np.sqrt(sampling_frequency_hz / 50)
        dipole += heart.fibrillation_mv * np.outer([0.2, 1.0, -0.9], np.sin(phase) + 0.3 * np.sin(2 * phase))
    seen = LEAD_FIELD @ dipole  # (8, n): I, II, V1..V6
    wander_hz = rng.uniform(0.15, 0.3)
    seen += rng.normal(0, 0.03, (8, 1)) * np.sin(2 * np.pi * wander_hz * t + rng.uniform(0, 2 * np.pi, (8, 1)))
    seen += rng.normal(0, 0.003, (8, n))
    lead_i, lead_ii = seen[0], seen[1]
    limb = [lead_i, lead_ii, lead_ii - lead_i, -(lead_i + lead_ii) / 2, lead_i - lead_ii / 2, lead_ii - lead_i / 2]
    return np.vstack([*limb, seen[2:]]).astype(np.float32)
