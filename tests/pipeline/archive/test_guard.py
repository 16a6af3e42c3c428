"""What a page may do to the process that digitizes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import Calibration, Digitization, DigitizationError
from pipeline.archive.guard import Guard
from pipeline.archive.manifest import Entry
from pipeline.archive.rows import Outcome, Row
from tests.archive_run import Behaviour, PlayedDigitizer, page_pixels, page_png
from tests.pipeline.paper_samples import digitization


def no_digitizer() -> PlayedDigitizer:
    raise DigitizationError("the weights are not there")


@pytest.fixture(scope="module")
def result() -> Digitization:
    return digitization()


@pytest.fixture(scope="module")
def guard(result: Digitization) -> Iterator[Guard]:
    with closing(Guard(partial(PlayedDigitizer, result), Calibration(), page_s=20)) as guard:
        yield guard


def entries(folder: Path, *behaviours: Behaviour) -> list[Entry]:
    paths = [folder / f"{number}-{behaviour.name}.png" for number, behaviour in enumerate(behaviours)]
    for number, (path, behaviour) in enumerate(zip(paths, behaviours, strict=True)):
        path.write_bytes(page_png(behaviour, number))
    return [Entry(str(path), patient=path.stem[0]) for path in paths]


def described(rows: list[Row]) -> list[tuple[str, int | None, str | None]]:
    return [(Path(row.path).stem, row.page, row.cause) for row in rows]


def test_a_bad_page_costs_its_own_row_only(guard: Guard, tmp_path: Path) -> None:
    sheets = [page_pixels(each)[..., ::-1] for each in (Behaviour.GOOD, Behaviour.DEADLY, Behaviour.GOOD)]
    (tmp_path / "fax.tiff").write_bytes(bytes(cv2.imencodemulti(".tiff", sheets)[1]))
    files = entries(tmp_path, Behaviour.GOOD, Behaviour.HANGING, Behaviour.GOOD, Behaviour.NO_ECG, Behaviour.BROKEN)
    rows = guard.digitize([*files, Entry(str(tmp_path / "fax.tiff"))])
    assert described(rows) == [
        ("0-GOOD", 1, None),
        ("1-HANGING", 1, "timed out"),
        ("2-GOOD", 1, None),
        ("3-NO_ECG", 1, "TraceNotFound"),
        ("4-BROKEN", 1, "defect"),
        ("fax", 1, None),
        ("fax", 2, "crashed"),
        ("fax", 3, None),
    ]
    assert [row.patient for row in rows[:5]] == ["0", "1", "2", "3", "4"]
    assert rows[1].reasons == ["the page took longer than 20 s"]
    assert "DOE" not in rows[4].reasons[0] and "KeyError at archive_run.py" in rows[4].reasons[0]
    assert "SIGKILL" in rows[6].reasons[0]
    assert np.array_equal(rows[5].signal_mv, rows[7].signal_mv, equal_nan=True)


def test_files_that_are_missing_or_damaged_are_rows(guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(page_png(Behaviour.GOOD)[:100])
    (tmp_path / "folder.png").mkdir()
    names = ("missing.png", "damaged.png", "folder.png")
    rows = guard.digitize([Entry(str(tmp_path / name)) for name in names])
    assert described(rows) == [
        ("missing", None, "missing"),
        ("damaged", None, "PageUnreadable"),
        ("folder", None, "missing"),
    ]
    assert all(row.outcome is Outcome.FAILED and row.reasons for row in rows)


def test_of_several_pages_in_hand_the_innocent_ones_are_read(result: Digitization, tmp_path: Path) -> None:
    files = entries(tmp_path, *[Behaviour.GOOD] * 3, Behaviour.DEADLY, *[Behaviour.GOOD] * 3)
    with closing(Guard(partial(PlayedDigitizer, result, 0.2, 3), Calibration(), page_s=60)) as guard:
        rows = guard.digitize(files)
    assert [row.cause for row in rows] == [None, None, None, "crashed", None, None, None]


def test_a_digitizer_that_cannot_be_loaded_is_an_error() -> None:
    with pytest.raises(DigitizationError, match="the weights are not there"):
        Guard(no_digitizer, Calibration(), page_s=5)
