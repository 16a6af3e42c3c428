"""An archive run of the gateway reads DICOM objects."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gateway.worker.archive import read_pages
from pipeline import Calibration
from pipeline.archive.guard import Guard
from pipeline.archive.manifest import Entry
from tests.archive_run import Behaviour, PlayedDigitizer, page_pixels, page_png
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.pipeline.paper_samples import digitization
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]


def test_dicom_objects_and_pictures_are_digitized_and_others_are_rows(tmp_path: Path) -> None:
    pixels = page_pixels(Behaviour.GOOD)
    whole = part10(secondary_capture(pixels))
    files = {"a.dcm": whole, "b.dcm": whole[:-100], "c.png": page_png(Behaviour.GOOD), "d.dcm": b"text"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with closing(Guard(partial(PlayedDigitizer, digitization()), Calibration(), 60, read_pages)) as guard:
        rows = guard.digitize([Entry(str(tmp_path / name)) for name in files])
    assert [(Path(row.path).name, row.page, row.cause) for row in rows] == [
        ("a.dcm", 1, None),
        ("b.dcm", None, "PageUnreadable"),
        ("c.png", 1, None),
        ("d.dcm", None, "PageUnreadable"),
    ]
    assert rows[3].reasons == ["the file is no DICOM, PDF, PNG, JPEG, TIFF or BMP"]
    (page,) = read_pages(whole)
    assert np.array_equal(page.pixels, pixels)


@pytest.mark.interop
def test_the_command_is_that_of_the_digitizer_with_dicom_files(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "notes.txt").touch()
    command = [sys.executable, "-m", "gateway", "archive", str(tmp_path), "--out", str(tmp_path.with_name("out"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10 * PATIENCE_S)
    assert done.returncode == 2
    assert "notes.txt: is not named .bmp, .jpeg, .jpg, .pdf, .png, .tif, .tiff, .dcm, .dicom" in done.stderr
