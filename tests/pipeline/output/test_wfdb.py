"""Records as WFDB files are read back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import LEADS
from pipeline.output.wfdb import to_wfdb
from pipeline.training.recordings.wfdb import read_header, read_record


@pytest.mark.parametrize(("largest_mv", "step_mv"), [(1.5, 0.001), (40.0, 0.00123)])
def test_signals_come_back_to_a_step(tmp_path: Path, largest_mv: float, step_mv: float) -> None:
    signal_mv = np.random.default_rng(1).uniform(-largest_mv, largest_mv, (12, 300)).astype(np.float32)
    signal_mv[0, 0] = largest_mv
    signal_mv[1:, :50] = np.nan
    signal_mv[3] = np.nan
    for name, data in to_wfdb("page-1", signal_mv, LEADS, 500.0).items():
        (tmp_path / name).write_bytes(data)
    back, frequency = read_record(tmp_path / "page-1.hea")
    assert frequency == 500.0
    assert np.array_equal(np.isnan(back), np.isnan(signal_mv))
    assert np.nanmax(np.abs(back - signal_mv)) <= 0.51 * step_mv
    assert [each.name for each in read_header(tmp_path / "page-1.hea").signals] == list(LEADS)


def test_the_header_states_first_value_and_checksum() -> None:
    files = to_wfdb("r", np.array([[0.002, -0.001, 30.0, 30.0]], np.float32), ["II"], 250.0)
    assert files["r.hea"] == b"r 1 250 4\nr.dat 16 1000(0)/mV 16 0 2 -5535 0 II\n"
    assert files["r.dat"] == np.array([2, -1, 30000, 30000], "<i2").tobytes()
