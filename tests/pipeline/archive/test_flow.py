"""What an actor writes for a part, without Ray."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import Calibration
from pipeline.archive.flow import Crew, _Digitizing, open_run
from pipeline.archive.manifest import Entry, Manifest
from pipeline.archive.output import Output
from pipeline.archive.results import read_run
from pipeline.output.stored import StoredPages
from pipeline.training.recordings.wfdb import read_record
from tests.archive_run import Behaviour, PlayedDigitizer, page_png
from tests.pipeline.paper_samples import digitization


def test_rows_name_their_wfdb_records_and_hold_what_a_gateway_needs(tmp_path: Path) -> None:
    result = digitization()
    for number, behaviour in enumerate((Behaviour.GOOD, Behaviour.NO_ECG)):
        (tmp_path / f"{number}.png").write_bytes(page_png(behaviour))
    entries = tuple(Entry(str(tmp_path / f"{number}.png"), "P1") for number in (0, 1, 2))
    output = Output(str(tmp_path / "out"))
    run = open_run(output, Manifest(entries), {"version": "7"})
    crew = Crew(load=partial(PlayedDigitizer, result), calibration=Calibration(), page_s=60, wfdb=True)
    actor = _Digitizing(run, crew)
    with closing(actor._guard):
        assert [actor({"number": np.array([number])})["files"] for number in (0, 2)] == [[1], [1]]
    row, missing = output.pages().to_table().to_pylist()
    assert row["wfdb"] == "wfdb/group=00000/0000000-000" and missing["wfdb"] is None
    signal_mv, _ = read_record(Path(output.place, row["wfdb"] + ".hea"))
    assert np.nanmax(np.abs(signal_mv - result.record.signal_mv)) < 0.001
    finished = read_run(output.place)
    assert (finished.id, finished.version, finished.files, finished.missing) == (run.manifest_id, "7", 3, 1)
    first, second = finished.results()
    assert (first.patient, first.was_read, second.was_read) == ("P1", True, False)
    assert second.failures == ((None, "there is no such file"),)
    assert first.read() == page_png(Behaviour.GOOD)
    stored = StoredPages.from_bytes(first.packed())
    assert (stored.run, stored.version) == (run.manifest_id, "7")
    assert np.array_equal(stored.pages[1].signal_mv, result.record.signal_mv, equal_nan=True)
