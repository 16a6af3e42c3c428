"""What `evaluate-audit` takes out of a record, and what it calls right and found."""

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from pipeline import LEADS, Calibration, EcgRecord, Lead
from pipeline.evaluation.drawn import AuditPage, Omission, audit_tables, is_right, take_out
from pipeline.training.recordings.simulate import simulate_ecg


@pytest.fixture
def record() -> EcgRecord:
    signal_mv = simulate_ecg(np.random.default_rng(2), disease="none").astype(np.float32)
    return EcgRecord(
        signal_mv=signal_mv,
        confidence=np.ones_like(signal_mv),
        leads=LEADS,
        sampling_frequency_hz=500.0,
        calibration=Calibration(),
    )


def test_what_is_taken_out_is_missing_there_and_nowhere_else(record: EcgRecord) -> None:
    seen = set()
    for seed in range(5):
        for omission, without in take_out(record, LEADS, np.random.default_rng(seed)):
            seen.add(omission.kind)
            changed = without.signal_mv != record.signal_mv
            row = record.leads.index(omission.lead)
            assert changed[row].any() and changed.sum() == changed[row].sum()
            columns = np.flatnonzero(changed[row]) / 500
            assert omission.start_s <= columns.min() <= columns.max() <= omission.end_s
            assert not is_right(without, record.signal_mv)
    assert seen == {"cut wave", "level half", "shifted", "gap"}


def test_nothing_is_taken_out_of_a_lead_that_was_not_read(record: EcgRecord) -> None:
    record.signal_mv[LEADS.index(Lead.V3)] = np.nan
    assert list(take_out(record, [Lead.V3], np.random.default_rng(0))) == []


def test_a_record_is_right_though_its_level_and_time_are_a_little_off(record: EcgRecord) -> None:
    moved = np.pad(record.signal_mv, ((0, 0), (4, 0)), mode="edge")[:, :-4] + np.float32(0.5)
    assert is_right(replace(record, signal_mv=moved), record.signal_mv)


def test_tables_count_omissions_and_pages() -> None:
    cut = Omission(kind="cut wave", lead=Lead.V3, start_s=1.0, end_s=1.0)
    pages = [
        AuditPage(name="a", right=True, held=False, scribbled=False, omissions=((cut, True), (cut, False))),
        AuditPage(name="b", right=False, held=True, scribbled=False, omissions=((cut, True),)),
    ]
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as captured:
        for table in audit_tables(pages):
            console.print(table)
    lines = [line.split("│")[1:-1] for line in captured.get().splitlines() if line.startswith("│")]
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    assert rows["cut wave"] == ["3", "2", "66.7%"]
    assert rows["right"] == ["1", "0"] and rows["not right"] == ["1", "1"]
