"""`make demo` with a digitizer that needs no weights: its peers, its table, and what it says is missing."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

import pytest
from pydicom import dcmread
from rich.console import Console

from gateway.demo.outcome import Outcome, report
from gateway.demo.run import run_demo

ROOT = Path(__file__).resolve().parents[3]


def test_both_pages_come_out_at_both_peers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    out = tmp_path / "out"
    monkeypatch.setenv("COLUMNS", "200")  # wide enough that no cell of the table is folded
    assert run_demo(out, (sys.executable, "-m", "tests.fake_digitizer", "serve")) == 0
    printed = capsys.readouterr().out
    for name in ("c-store", "folder"):
        waveform = dcmread(out / f"{name}.waveform.dcm")
        assert waveform.WaveformSequence[0].NumberOfWaveformChannels == 12
        assert waveform.SOPInstanceUID in printed
        oru = (out / f"{name}.oru.txt").read_text(encoding="utf-8")
        assert oru.startswith("MSH|")
        assert waveform.SOPInstanceUID in oru
        assert waveform.StudyInstanceUID in oru
        assert (out / f"{name}.overlay.png").read_bytes().startswith(b"\x89PNG")
    assert printed.count(" AA ") == 2
    assert dcmread(out / "c-store.waveform.dcm").PatientID == "DEMO-1"
    assert dcmread(out / "folder.waveform.dcm").PatientID == "DEMO-2"
    log = (out / "gateway.log").read_text(encoding="utf-8")
    assert "Stopped" in log
    assert "Simulated" not in log
    assert "Missing" not in printed


def test_a_gateway_that_does_not_start_is_told(tmp_path, capsys):
    assert run_demo(tmp_path, (sys.executable, "-c", "raise SystemExit(3)")) == 1
    assert "Missing: the gateway ended with exit status 3" in capsys.readouterr().out


def outcome(name: str, **changes: object) -> Outcome:
    fields = {
        "name": name,
        "job_id": "1",
        "source": "s",
        "layout": "3x4",
        "leads": "12",
        "estimated_snr": "20.0 dB",
        "waveform_sop_instance_uid": "2.25.1",
        "ack_code": "AA",
        "seconds": "1.0",
        "problems": (),
    }
    return Outcome(**(fields | changes))


@pytest.mark.parametrize(
    ("outcomes", "problem", "status"),
    [
        ([outcome("c-store"), outcome("folder")], "", 0),
        ([outcome("c-store"), outcome("folder", problems=("the PACS received no waveform",))], "", 1),
        ([outcome("c-store")], "", 1),
        ([outcome("c-store"), outcome("folder")], "the jobs did not end within 300 s", 1),
        ([], "", 1),
    ],
)
def test_anything_missing_fails_the_demo(tmp_path, outcomes, problem, status):
    printed = StringIO()
    assert report(Console(file=printed, width=200), tmp_path, outcomes, problem) == status
    assert ("Missing:" in printed.getvalue()) == bool(status)
