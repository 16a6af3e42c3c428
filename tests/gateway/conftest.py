"""A store and a spool on real files, fresh for each test."""

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pynetdicom import _config as pynetdicom_config

from gateway import cli
from gateway.intake.accept import Intake
from gateway.spool.folder import Spool
from gateway.store.store import Store


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "gateway.db")
    yield store
    store.close()


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    """On the file that a command or a service finds in `tmp_path`; rooms that know the store alone have both."""
    return sqlite_store


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", minimum_free_mib=0)


@pytest.fixture
def intake(spool: Spool, store: Store) -> Intake:
    return Intake(spool, store)


@pytest.fixture
def gateway_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`python -m gateway COMMAND --config FILE ...` in this process: exit status, standard output, standard error."""

    def run(config: Path, command: str, *arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gateway", *command.split(), "--config", str(config), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Put back what `configure_logging` changes for the whole process; its stream is closed with the test."""
    root = logging.getLogger()
    names = ("", "gateway", "pipeline")
    levels = {name: logging.getLogger(name).level for name in names}
    handlers, show, hook = root.handlers[:], warnings.showwarning, threading.excepthook
    shown = ("LOG_HANDLER_LEVEL", "LOG_REQUEST_IDENTIFIERS", "LOG_RESPONSE_IDENTIFIERS")
    config = {name: getattr(pynetdicom_config, name) for name in shown}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    warnings.showwarning, threading.excepthook = show, hook
    for name, value in config.items():
        setattr(pynetdicom_config, name, value)
