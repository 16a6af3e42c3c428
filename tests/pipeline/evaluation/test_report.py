import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline import Calibration, Digitization, PageImage
from pipeline.command_line import app
from pipeline.datatypes import ByteArray, FloatArray
from pipeline.digitizer import Digitizer
from pipeline.errors import GridNotFound
from pipeline.evaluation.evaluate import Example, score_page
from pipeline.evaluation.report import html_report, signals
from pipeline.evaluation.truth import PageTruth
from pipeline.training.recordings.simulate import simulate_ecg
from tests.pipeline.paper_samples import digitization

ECG = simulate_ecg(np.random.default_rng(1), disease="none")
CLI = CliRunner()


class FakeDigitizer:
    """Reads the same ECG from every page but the dark ones."""

    def digitize(self, page: PageImage, *, default_calibration: Calibration | None = None) -> Digitization:
        if page.pixels.mean() < 100:
            raise GridNotFound("there is no ECG grid on the page")
        return digitization(page_number=page.page_number)


@pytest.fixture
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(**_: Any) -> FakeDigitizer:
        return FakeDigitizer()

    monkeypatch.setattr(Digitizer, "load", load)


def archive(folder: Path, **names: FloatArray) -> Path:
    path = folder / "truth.npz"
    np.savez(
        path,
        **{f"r{k}": np.nan_to_num(1000 * mv, nan=-32768).round().astype(np.int16) for k, mv in names.items()},  # type: ignore[arg-type]
    )
    return path


def images(html: str) -> list[ByteArray]:
    found = re.findall(r'src="data:image/[a-z]+;base64,([^"]+)"', html)
    return [np.asarray(cv2.imdecode(np.frombuffer(base64.b64decode(x), np.uint8), cv2.IMREAD_COLOR)) for x in found]


@pytest.mark.usefixtures("no_networks")
def test_the_report_shows_tables_plots_and_three_pages_and_needs_nothing_beside_it(tmp_path: Path) -> None:
    read = digitization().record.signal_mv
    rng = np.random.default_rng(0)
    noisy = (read + rng.normal(0, 0.05, read.shape)).astype(np.float32)
    truth = archive(tmp_path, **{"1": read, "2": noisy, "3": read})
    for name, grey in (("1_a<b>.png", 255), ("2_b.png", 255), ("3_c.png", 0)):
        cv2.imwrite(str(tmp_path / name), np.full((100, 200), grey, np.uint8))
    result = CLI.invoke(app, ["evaluate", str(truth), "--report", str(tmp_path / "report.html")])
    assert result.exit_code == 1 and "there is no ECG grid on the page" in result.stderr  # 3_c is dark
    html = (tmp_path / "report.html").read_text()
    figures = json.loads((tmp_path / "report.json").read_text())
    assert len(figures["pages"]) == 3 and figures["groups"]["all"]["heights"]["QRS peak to peak"]["beats"] > 0
    assert "Beats against the recording" in html and "Time shifts and pacing spikes" in html
    order = [html.index(f"<h2>{title}</h2>") for title in ("Best page", "Median page", "Worst page")]
    assert order == sorted(order)
    assert (
        html.index("1_a&lt;b&gt;.png: ", order[0])
        < html.index("2_b.png: ", order[1])
        < html.index("3_c.png: ", order[2])
    )
    assert "1_a<b>" not in html and "http" not in html.replace("http-equiv", "")
    shown = images(html)
    assert len(shown) == 3 + 3 + 2  # distributions, leads, estimate; signals of three pages, overlays of two
    assert all(picture.shape[1] > 300 and picture.std() > 3 for picture in shown)


@pytest.mark.usefixtures("no_networks")
def test_every_page_of_a_file_is_scored(tmp_path: Path) -> None:
    truth = archive(tmp_path, **{"7": digitization().record.signal_mv, "7-p3": ECG})
    sheets = [np.full((100, 200), grey, np.uint8) for grey in (255, 0, 255)]
    (tmp_path / "7_fax.tiff").write_bytes(bytes(cv2.imencodemulti(".tiff", sheets)[1]))
    result = CLI.invoke(app, ["evaluate", str(truth), str(tmp_path / "7_fax.tiff")])
    scores = dict(re.findall(r"^(7_fax.*?)  (-?[\d.]+) dB", result.stdout, re.MULTILINE))
    assert list(scores) == ["7_fax.tiff", "7_fax.tiff p2", "7_fax.tiff p3"]
    assert float(scores["7_fax.tiff"]) > 30 and float(scores["7_fax.tiff p2"]) == 0
    assert float(scores["7_fax.tiff p3"]) < 10  # its own truth is another recording
    assert "7_fax.tiff page 2: there is no ECG grid on the page" in result.stderr
    assert "all (3)" in result.stdout


@pytest.mark.usefixtures("no_networks")
def test_a_whole_recording_is_compared_with_what_is_printed(tmp_path: Path) -> None:
    truth = archive(tmp_path, **{"1": ECG})
    cv2.imwrite(str(tmp_path / "1.png"), np.full((100, 200), 255, np.uint8))
    whole = CLI.invoke(app, ["evaluate", str(truth)])
    cut = CLI.invoke(app, ["evaluate", str(truth), "--printed", "3x4+1R"])
    snr = [float(re.findall(r"1\.png  (-?[\d.]+) dB", result.stdout)[0]) for result in (whole, cut)]
    assert snr[0] < 10 < 30 < snr[1], snr
    unknown = CLI.invoke(app, ["evaluate", str(truth), "--printed", "5x5"])
    assert unknown.exit_code == 2 and "there is no layout '5x5'" in unknown.stderr


def test_what_is_wrong_with_the_truth_is_said(tmp_path: Path) -> None:
    alone = CLI.invoke(app, ["evaluate", str(archive(tmp_path, **{"1": ECG}))])
    assert alone.exit_code == 2 and "no pages beside it" in alone.stderr
    nothing = CLI.invoke(app, ["evaluate", str(tmp_path / "missing.npz")])
    assert nothing.exit_code == 2 and "missing.npz" in nothing.stderr


def test_signals_are_drawn_as_they_were_scored() -> None:
    late = np.roll(ECG, 20, axis=1) + 1.0
    score = score_page(Path("a/1.png"), PageTruth(signal_mv=ECG), late)
    figure = signals(
        Example(title="x", score=score, truth=PageTruth(signal_mv=ECG), estimate_mv=late, overlay_jpeg=None)
    )
    assert len(figure.axes) == 12
    recorded, digitized = figure.axes[1].lines
    both = np.interp(recorded.get_xdata(), digitized.get_xdata(), digitized.get_ydata())
    assert np.abs(both - recorded.get_ydata())[50:-50].max() < 0.05
    failed = Example(title="x", score=score, truth=PageTruth(signal_mv=ECG), estimate_mv=None, overlay_jpeg=None)
    assert len(signals(failed).axes[0].lines) == 1


def test_pages_of_which_only_csvs_are_known_make_a_report_too() -> None:
    score = score_page(Path("a/1.csv"), PageTruth(signal_mv=ECG), ECG)
    html = html_report("One page", [score, replace(score, kind="b")], [], [])
    assert "<h1>One page</h1>" in html and "Estimated against" not in html and len(images(html)) == 2
