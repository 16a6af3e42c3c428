"""How a reload is asked for: the signal, and the outcome that is not that of an earlier reload."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.errors import SettingsError, StorageError
from gateway.operations.reload import Outcome, ask_reload, leave_outcome
from gateway.settings import LogSettings, Settings
from gateway.spool.owner import owned, owner
from gateway.worker.process import CurrentSettings
from tests.waiting import PATIENCE_S


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """The SIGHUPs that this process gets; it is the service that is asked."""
    seen: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: seen.append(number))
    yield seen
    signal.signal(signal.SIGHUP, before)


def test_the_outcome_of_an_earlier_reload_is_not_taken_for_it(tmp_path: Path, signals: list[int]) -> None:
    leave_outcome(tmp_path, Outcome(ok=True, words="earlier", began_s=time.monotonic()))
    with owned(tmp_path):
        later = threading.Timer(
            0.3, lambda: leave_outcome(tmp_path, Outcome(ok=False, words="mine", began_s=time.monotonic()))
        )
        later.start()
        outcome = ask_reload(tmp_path, PATIENCE_S)
        later.join()
    assert (outcome.ok, outcome.words) == (False, "mine") and signals == [signal.SIGHUP]
    assert (tmp_path / "gateway.reload").stat().st_mode & 0o777 == 0o600


def test_no_answer_in_time_is_an_error(tmp_path: Path, signals: list[int]) -> None:
    with owned(tmp_path), pytest.raises(StorageError, match=f"process {os.getpid()} did not answer within 0.2 s"):
        ask_reload(tmp_path, 0.2)
    assert len(signals) == 1


def test_without_a_service_nobody_is_signalled(tmp_path: Path, signals: list[int]) -> None:
    with pytest.raises(StorageError, match="no gateway runs on it"):
        ask_reload(tmp_path, PATIENCE_S)
    (tmp_path / "gateway.lock").write_text(f"process {os.getpid()} on host\n")  # of one that ended
    with pytest.raises(StorageError, match="no gateway runs on it"):
        ask_reload(tmp_path, PATIENCE_S)
    assert signals == []


def test_a_process_that_sighup_would_end_is_not_signalled(tmp_path: Path) -> None:
    """A gateway of an earlier version, or what else may hold the lock."""
    code = (
        "import signal, time; from pathlib import Path; from gateway.spool.owner import owned\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        f"with owned(Path({str(tmp_path)!r})): print(flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline()
            with pytest.raises(StorageError, match=f"process {process.pid} knows no reload"):
                ask_reload(tmp_path, PATIENCE_S)
            assert process.poll() is None
        finally:
            process.kill()


def test_the_owner_is_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    assert owner(tmp_path) is None
    with owned(tmp_path):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(owner, (tmp_path,)) == os.getpid()
        assert owner(tmp_path) == os.getpid()
    assert owner(tmp_path) is None


@pytest.fixture
def hang_up() -> Iterator[Callable[[], None]]:
    """Give this thread a SIGHUP that it holds back, as a worker does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    yield lambda: signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
    signal.sigtimedwait({signal.SIGHUP}, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_worker_reads_its_settings_again_when_told_to(
    hang_up: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    file: list[Settings | SettingsError] = [Settings()]

    def read() -> Settings:
        if isinstance(file[0], SettingsError):
            raise file[0]
        return file[0]

    current = CurrentSettings(Settings(), read)
    file[0] = Settings.model_validate({"review": {"minimum_coverage": 0.5}, "worker": {"processes": 7}})
    assert current() == Settings()
    hang_up()
    assert current().review.minimum_coverage == 0.5 and current().worker.processes == 1
    assert "A restart is needed for worker.processes" in caplog.text
    file[0] = SettingsError("gateway.toml:2: wrong")
    hang_up()
    assert current().review.minimum_coverage == 0.5 and current().log == LogSettings()
    assert "Settings not reloaded: gateway.toml:2: wrong" in caplog.text
