"""The Python API: the documented example runs, and the face of the package is light, complete and no trap."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import pipeline
from pipeline import LEADS, Digitization, PageImage
from pipeline.evaluation.bench import draw_scan
from tests.pipeline.paper_samples import digitization
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the documented example leaves behind, run beside a drawn scan."""
    folder = tmp_path_factory.mktemp("api")
    cv2.imwrite(str(folder / "scan.png"), draw_scan(1100).pixels[..., ::-1])
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(EXAMPLES[0], "docs/python-api.md", "exec"), names)
    return names | {"folder": folder}


def test_the_documented_example_runs(names: dict[str, Any]) -> None:
    record, result = names["record"], names["result"]
    assert record.signal_mv.shape[0] == 12 and record.signal_mv.dtype == np.float32
    assert result.layout_match.layout.name == "3x4+1R"
    assert (names["folder"] / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_every_public_name_is_there_and_listed() -> None:
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None
    assert set(pipeline.__all__) <= set(dir(pipeline))
    with pytest.raises(AttributeError, match="no attribute 'digitise'"):
        _ = pipeline.digitise


def test_digitize_is_a_function_whatever_was_imported_before() -> None:
    run(
        "import pipeline\n"
        "first = pipeline.digitize\n"
        "import pipeline.digitizer, pipeline.stages, pipeline.__main__\n"
        "from pipeline import digitize\n"
        "assert type(digitize).__name__ == 'function', digitize\n"
        "assert digitize is first is pipeline.digitizer.digitize"
    )
    assert isinstance(pipeline.digitize, FunctionType)  # in this process the module came first


def test_the_face_loads_no_heavy_library() -> None:
    run(
        "import sys, pipeline\n"
        "heavy = {'torch', 'cv2', 'pandas', 'scipy', 'ray', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


def test_a_worker_gives_numpy_one_thread() -> None:
    run(
        "import os\n"
        "for name in ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS'): os.environ.pop(name, None)\n"
        "import gateway.worker.process, numpy, scipy.linalg\n"
        "threads = os.listdir('/proc/self/task')\n"
        "assert len(threads) == 1, threads"
    )


def test_the_function_takes_any_digitizer() -> None:
    class Fake:
        def digitize(self, page: PageImage, *, default_calibration: object, corrections: object) -> Digitization:
            return digitization()

    page = PageImage(pixels=np.zeros((8, 8, 3), np.uint8))
    assert pipeline.digitize(page, Fake()).record.leads == LEADS  # type: ignore[arg-type]


def test_a_record_becomes_a_dataframe(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed to pandas, whether it is installed or not."""
    fake: Any = ModuleType("pandas")
    fake.Index = lambda values, name: (name, values)
    fake.DataFrame = lambda data, index, columns: SimpleNamespace(data=data, index=index, columns=columns)
    monkeypatch.setitem(sys.modules, "pandas", fake)
    record = digitization().record
    frame: Any = record.to_dataframe()
    name, time_s = frame.index
    assert name == "time_s" and time_s[500] == pytest.approx(1.0)
    assert frame.columns == [str(lead) for lead in LEADS]
    assert np.array_equal(frame.data, record.signal_mv.T, equal_nan=True)


def test_a_dataframe_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    record = digitization().record
    frame = record.to_dataframe()
    assert isinstance(frame, pandas.DataFrame) and frame.index.name == "time_s"
    assert np.array_equal(frame["II"].to_numpy(), record.signal_mv[1], equal_nan=True)


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"needs pandas.*pip install pandas"):
        digitization().record.to_dataframe()


@pytest.mark.parametrize("package", ["gateway", "pipeline"])
def test_both_packages_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"][package]


def run(code: str) -> None:
    """Run code in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=4 * PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
