import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline import Calibration, Digitization, PageImage, command_line
from pipeline.command_line import app
from pipeline.digitizer import Digitizer
from pipeline.errors import GridNotFound
from pipeline.source.page import load_pages
from tests.pipeline.paper_samples import digitization
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]

CLI = CliRunner()


@dataclass
class FakeDigitizer:
    """Reads the same ECG from every page, except from dark ones and from those one pixel too wide."""

    def digitize(
        self, page: PageImage, *, default_calibration: Calibration | None = None, corrections: object = None
    ) -> Digitization:
        if page.pixels.mean() < 100:
            raise GridNotFound("there is no ECG grid on the page")
        if page.pixels.shape[1] == 201:
            raise ZeroDivisionError("a defect")
        return digitization(page_number=page.page_number)


@pytest.fixture(autouse=True)
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(**_: Any) -> FakeDigitizer:
        return FakeDigitizer()

    monkeypatch.setattr(Digitizer, "load", load)


def picture(path: Path, grey: int = 255, width: int = 200) -> Path:
    cv2.imwrite(str(path), np.full((100, width), grey, np.uint8))
    return path


def test_a_page_becomes_csv_json_and_overlay(tmp_path: Path) -> None:
    page, out = picture(tmp_path / "scan.png"), tmp_path / "out"
    result = CLI.invoke(app, ["digitize", str(page), "--out", str(out), "--overlay"])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["scan.csv", "scan.json", "scan.overlay.png"]
    lines = (out / "scan.csv").read_text().splitlines()
    assert lines[0] == "time_s,I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"
    assert len(lines) == 5001
    content = json.loads((out / "scan.json").read_text())
    assert content["layout"]["name"] == "3x4+1R" and content["layout"]["certain"] is True
    assert content["calibration"]["paper_speed_mm_per_s"] == 25.0
    assert content["geometry"]["px_per_mm_x"] == 4.0
    assert set(content["quality"]["coverage"]) == {"I", "II", "III", "aVR", "aVL", "aVF"} | {
        f"V{k}" for k in range(1, 7)
    }
    assert content["quality"]["estimated_snr_db"] > 10
    assert load_pages((out / "scan.overlay.png").read_bytes())[0].pixels.ndim == 3


def test_no_overlay_is_drawn_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(command_line, "draw_overlay", lambda result: drawn.append(result) or np.zeros((2, 2, 3), "u1"))
    page = picture(tmp_path / "scan.png")
    for options, count in (([], 0), (["--overlay"], 1)):
        result = CLI.invoke(app, ["digitize", str(page), "--out", str(tmp_path / "out"), *options])
        assert result.exit_code == 0, result.output
        assert len(drawn) == count


def test_further_pages_of_a_file_have_a_suffix(tmp_path: Path) -> None:
    sheets = [np.full((100, 200), 255, np.uint8)] * 3
    (tmp_path / "fax.tiff").write_bytes(bytes(cv2.imencodemulti(".tiff", sheets)[1]))
    result = CLI.invoke(app, ["digitize", str(tmp_path / "fax.tiff"), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["fax-p2.csv", "fax-p3.csv", "fax.csv"]
    assert json.loads((tmp_path / "fax-p3.json").read_text())["page_number"] == 3


def test_bad_pages_are_named_and_do_not_stop_the_others(tmp_path: Path) -> None:
    good, dark = picture(tmp_path / "good.png"), picture(tmp_path / "dark.png", grey=10)
    broken, defect = tmp_path / "broken.jpg", picture(tmp_path / "defect.png", width=201)
    broken.write_bytes(b"\xff\xd8\xff\xe0")
    missing, last = tmp_path / "missing.pdf", picture(tmp_path / "last.png")
    pages = [str(path) for path in (dark, broken, missing, defect, good, last)]
    result = CLI.invoke(app, ["digitize", *pages, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert f"{dark}: there is no ECG grid on the page" in result.stderr
    assert f"{broken}: the JPEG is cut short" in result.stderr
    assert f"{missing}: " in result.stderr and "No such file" in result.stderr
    assert f"{defect}: ZeroDivisionError: a defect" in result.stderr
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.csv")) == ["good", "last"]


def test_two_inputs_never_overwrite_each_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first, second = picture(tmp_path / "scan.png"), picture(tmp_path / "a" / "scan.png")
    result = CLI.invoke(app, ["digitize", str(first), str(second), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert f"{second}: its results would overwrite those of {first}" in result.stderr


def truth_archive(path: Path) -> Path:
    signal_mv = digitization().record.signal_mv
    counts = np.where(np.isfinite(signal_mv), np.round(signal_mv * 1000), -32768).astype(np.int16)
    np.savez(path, r7=counts)
    return path


def test_evaluate_digitizes_and_scores(tmp_path: Path) -> None:
    truth = truth_archive(tmp_path / "truth.npz")
    good, dark = picture(tmp_path / "7_good.png"), picture(tmp_path / "7_dark.png", grey=10)
    result = CLI.invoke(app, ["evaluate", str(truth), str(good), str(dark)])
    assert result.exit_code == 1  # one page failed, and counts as unread
    assert "7_dark.png  0.00 dB" in result.stdout
    assert f"{dark}: there is no ECG grid on the page" in result.stderr
    snr_db = float(result.stdout.split("7_good.png")[1].split()[0])
    assert snr_db > 30


def test_evaluate_scores_what_digitize_wrote(tmp_path: Path) -> None:
    truth = truth_archive(tmp_path / "truth.npz")
    picture(tmp_path / "7_scan.png")
    CLI.invoke(app, ["digitize", str(tmp_path / "7_scan.png"), "--out", str(tmp_path)])
    result = CLI.invoke(app, ["evaluate", str(truth), str(tmp_path / "7_scan.csv")])
    assert result.exit_code == 0, result.output
    assert "Leads" in result.stdout and "all (1)" in result.stdout
    unknown = CLI.invoke(app, ["evaluate", str(truth), str(tmp_path / "8_scan.csv")])
    assert unknown.exit_code == 2 and "no truth for id 8" in unknown.stderr


def test_layouts_are_listed_and_drawn(tmp_path: Path) -> None:
    listed = CLI.invoke(app, ["layouts"])
    assert listed.exit_code == 0 and listed.stdout.splitlines()[0] == "3x4+1R"
    drawn = CLI.invoke(app, ["layouts", "--check"])
    assert "3x4 Cabrera: 4 x 2.5 s, one after the other" in drawn.stdout
    assert "|-aVR ~" in drawn.stdout
    wrong = tmp_path / "layouts.toml"
    wrong.write_text('[[layout]]\nname = "x"\nrows = [["V10"]]')
    failed = CLI.invoke(app, ["layouts", "--config", str(wrong)])
    assert failed.exit_code == 2 and "'V10' is no lead" in failed.stderr


def test_layouts_as_json() -> None:
    listed = CLI.invoke(app, ["layouts", "--json"])
    first = json.loads(listed.stdout)[0]
    assert first["name"] == "3x4+1R" and first["rows"][0] == ["I", "aVR", "V1", "V4"] and first["rhythm"] == ["II"]
    assert set(first) == {"name", "rows", "rhythm", "inverted", "sequential", "column_seconds"}


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_commands_and_exit_status(option: str) -> None:
    shown = CLI.invoke(app, [option])
    assert shown.exit_code == 0 and "Exit status: 0 done" in shown.stdout
    assert CLI.invoke(app, ["digitize", option]).exit_code == 0
    for command in ("digitize", "layouts", "evaluate", "budget", "ablate", "bench"):
        assert command in shown.stdout


def test_a_reader_that_stops_ends_it_without_a_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pipeline", "layouts", "--json"]
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(command, cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, timeout=2 * PATIENCE_S)
    assert (done.returncode, done.stderr) == (1, b"")


def test_bash_completes_commands_and_options() -> None:
    for line, expected in (("ecg-digitize\nla", "layouts"), ("ecg-digitize\ndigitize\n--ov", "--overlay")):
        words = str(line.count("\n"))
        asked = {"_ECG_DIGITIZE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": words}
        assert expected in CLI.invoke(app, [], env=asked, prog_name="ecg-digitize").stdout.split()


def test_without_ray_the_archive_command_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CLI.invoke(app, ["archive", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "pip install 'ecg-gateway[archive]'" in result.output
    assert not (tmp_path / "out").exists()
