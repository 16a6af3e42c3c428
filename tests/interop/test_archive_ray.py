"""Archive runs on a real Ray: resumed after kill -9, with pages that crash and hang, on one actor or two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.archive_run import Behaviour, page_png
from tests.waiting import wait_for

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'ecg-gateway[archive]'")
from pipeline.archive.output import Output  # noqa: E402 - only where Ray is

pytestmark = pytest.mark.interop
ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, ray
ray.init("local", num_cpus=3, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray that several runs join; it ends with its holder."""
    for _ in range(3):  # Ray gives its own parts 15 s to start, on a busy machine too
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD],
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert holder.stdout is not None and holder.stdin is not None
        if found := holder.stdout.readline().strip():
            yield found
            holder.communicate(timeout=120)  # it reads the end of its input
            return
        holder.communicate(timeout=120)
    pytest.skip("Ray cannot start its processes on this machine")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of pages of every kind, one that is not there, a repeated row and a broken one."""
    folder = tmp_path_factory.mktemp("source")
    kinds = [Behaviour.GOOD] * 7 + [Behaviour.DEADLY, Behaviour.HANGING, Behaviour.NO_ECG]
    lines = ["path,patient,date"]
    for number, kind in enumerate(kinds):
        (folder / f"{number}.png").write_bytes(page_png(kind, number))
        lines.append(f"{number}.png,P{number},2020-01-02")
    lines += ["missing.png,P10,", "0.png,P0,", "1.png,P1,yesterday"]
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder / "list.csv"


def start(source: Path, out: Path, address: str, actors: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.archive_run", str(source), str(out), address, str(actors), "20", "0.2"]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    """Return what a run says in the end."""
    _, said = process.communicate(timeout=300)
    assert process.returncode in (1, 2), said
    return said


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "pages").rglob("*.parquet")}


@pytest.fixture(scope="module")
def whole(source: Path, address: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output of a run that nobody disturbed, on one actor, and what it said."""
    out = tmp_path_factory.mktemp("whole")
    return out, finish(start(source, out, address, 1))


def test_a_bad_page_is_a_row_and_never_stops_the_run(whole: tuple[Path, str]) -> None:
    out, said = whole
    rows: list[dict[str, Any]] = Output(str(out)).pages().to_table().to_pylist()
    causes = {Path(row["path"]).stem: row["cause"] for row in rows}
    assert len(rows) == 11
    assert {name: cause for name, cause in causes.items() if cause} == {
        "7": "crashed",
        "8": "timed out",
        "9": "TraceNotFound",
        "missing": "missing",
    }
    assert "left out: row 12" in said and "left out: line 14: the date is 'yesterday'" in said
    assert "11 files, 11 pages: 0 read, 7 to be looked at, 4 without a record; left out of the source: 2" in said
    assert "timed out" in (out / "report.html").read_text()


def test_a_killed_run_continues_and_gives_the_same_files(
    whole: tuple[Path, str], source: Path, address: str, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    first = start(source, out, address, 2)
    wait_for("two parts", lambda: len(parts(out)) >= 2, 200)
    said = finish(start(source, out, address, 1))
    assert first.poll() is None and "another run writes to" in said
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    before = parts(out)
    assert 2 <= len(before) < 11
    assert "11 files, 11 pages" in finish(start(source, out, address, 2))
    assert parts(out) == parts(whole[0]) and before.items() <= parts(out).items()
