"""The output folder: whole files, one run at a time, and only its own run."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.archive.flow import open_run
from pipeline.archive.manifest import Entry, Manifest, Problem
from pipeline.archive.output import Output, OutputError
from pipeline.archive.rows import Outcome, Row, failure, to_parquet

SETTINGS = {"version": "1", "gain": "10 mm/mV"}


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(str(tmp_path / "out"))


def manifest(files: int) -> Manifest:
    return Manifest(tuple(Entry(f"/scans/{number}.png") for number in range(files)), (Problem("row 3", "has no path"),))


def row(path: str, snr_db: float) -> Row:
    return Row(path=path, page=1, outcome=Outcome.READ, layout="3x4", estimated_snr_db=snr_db)


def test_a_part_is_there_as_a_whole_or_not_at_all(output: Output) -> None:
    assert output.parts() == set() and output.read("run.json") is None
    part = to_parquet([row("/scans/1.png", 20.0), failure(Entry("/scans/2.png"), None, "missing", "gone")])
    output.write_part(0, part)
    output.write_part(1234, to_parquet([row("/scans/3.png", 10.0)]))
    output.write_part(0, part)  # again, as a node does that was thought lost
    half = Path(output.place) / "pages" / "group=00000" / ".part-0000002.parquet.7.tmp"
    half.write_bytes(part[:50])
    assert output.parts() == {0, 1234}
    assert output.pages().to_table(columns=["path"])["path"].to_pylist() == [f"/scans/{k}.png" for k in (1, 2, 3)]
    with output.held():
        assert not half.exists()


def test_a_second_run_is_refused_and_a_killed_one_holds_nothing(output: Output) -> None:
    code = (
        "import sys, time\nfrom pipeline.archive.output import Output\n"
        "with Output(sys.argv[1]).held():\n    print('held', flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, output.place], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(OutputError, match="another run writes to"), output.held():
            pass
        other.kill()
    with output.held():
        pass


def test_without_locks_a_run_that_beats_is_respected_and_a_silent_one_is_not(output: Output) -> None:
    beat_s = 0.2
    with output._lease(beat_s), pytest.raises(OutputError, match="another run writes to"), output._lease(beat_s):
        pass
    output.write("lock", b"dead 7")
    with output._lease(beat_s):
        assert not (output.read("lock") or b"").startswith(b"dead")


def test_a_run_continues_with_the_parts_that_are_missing(output: Output) -> None:
    run = open_run(output, manifest(200), SETTINGS)
    assert (run.files_a_part, run.parts, run.left()[-1]) == (3, 67, 66)
    assert run.files_of(run.left()) == 200 and run.files_of([65, 66]) == 5
    output.write_part(5, to_parquet([row("/scans/15.png", 1.0)]))
    again = open_run(output, manifest(200), SETTINGS)
    assert 5 not in again.left() and len(again.left()) == 66
    assert (output.read("left-out.csv") or b"").decode().splitlines()[1:] == ['"row 3","has no path"']


def test_another_run_in_the_same_folder_is_refused(output: Output) -> None:
    open_run(output, manifest(200), SETTINGS)
    with pytest.raises(OutputError, match="a run over 200 files, and the source has 201"):
        open_run(output, manifest(201), SETTINGS)
    with pytest.raises(OutputError, match="a run with gain 10 mm/mV, not 5 mm/mV"):
        open_run(output, manifest(200), SETTINGS | {"gain": "5 mm/mV"})
    other = replace(output, place=output.place + "2")
    other.write_part(0, to_parquet([row("/scans/1.png", 20.0)]))
    with pytest.raises(OutputError, match=r"holds pages, but no run\.json"):
        open_run(other, manifest(1), SETTINGS)
