"""The log: a job id on every line, one line a message, and nobody's name."""

import io
import json
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable

import pytest
from pynetdicom import _config as pynetdicom_config

from gateway.errors import StorageError
from gateway.logs import LimitedHandler, PlainFormatter, bind_job, configure_logging
from gateway.settings import LogSettings

MARK = "MARKED^NAME"
logger = logging.getLogger("gateway.test")

Log = Callable[[], list[str]]


@pytest.fixture
def bare(logging_as_before: None) -> None:
    """The root logger without pytest's handlers."""
    logging.getLogger().handlers[:] = []


def configured(**settings: str) -> Log:
    stream = io.StringIO()
    configure_logging(LogSettings.model_validate(settings), stream)
    return lambda: stream.getvalue().splitlines()


@pytest.fixture(params=["plain", "json"])
def log(bare: None, request: pytest.FixtureRequest) -> Log:
    return configured(format=request.param)


def test_plain_lines_show_job_and_action(bare: None) -> None:
    log = configured(format="plain")
    with bind_job("job-1"):
        logger.info("Delivered to %s", "pacs", extra={"action": "deliver"})
    logger.info("Started")
    first, second = log()
    assert first.endswith("Z INFO gateway.test job=job-1 action=deliver: Delivered to pacs")
    assert second.endswith("Z INFO gateway.test: Started")


def test_json_lines_have_the_same_fields_always(bare: None) -> None:
    log = configured(format="json")
    with bind_job("job-1"):
        logger.info("Bound")
        logger.info("Named", extra={"action": "a", "job_id": "job-2"})
    logger.info("Neither")
    lines = [json.loads(line) for line in log()]
    assert [(line["message"], line["job_id"], line["action"]) for line in lines] == [
        ("Bound", "job-1", ""),
        ("Named", "job-2", "a"),
        ("Neither", "", ""),
    ]
    assert all(set(line) == {"time", "level", "logger", "message", "job_id", "action"} for line in lines)


def test_a_bound_job_is_the_threads_own(bare: None) -> None:
    log = configured(format="json")
    with bind_job("job-1"):
        thread = threading.Thread(target=logger.info, args=("elsewhere",))
        thread.start()
        thread.join()
    assert json.loads(log()[0])["job_id"] == ""


def test_levels_hold_and_libraries_do_not_chat(bare: None) -> None:
    log = configured(level="DEBUG")
    logger.debug("ours")
    for name in ("pydicom", "pynetdicom", "sqlalchemy.engine", "watchdog"):
        logging.getLogger(name).info(MARK)
    assert len(log()) == 1
    quiet = configured(level="ERROR")
    logger.warning("ours")
    logging.getLogger("pydicom").warning("theirs")
    assert quiet() == []


def test_a_foreign_exceptions_text_stays_out(log: Log) -> None:
    try:
        try:
            raise ValueError(f"invalid value {MARK}")
        except ValueError as error:
            raise StorageError("database: disk full") from error
    except StorageError:
        logger.exception("It broke")
    logging.getLogger("pynetdicom").exception(ValueError(MARK))  # pynetdicom's way to log
    try:
        open(f"/nonexistent/{MARK}")
    except OSError:
        logger.exception("It broke")
    text = "\n".join(log())
    assert MARK not in text
    assert "ValueError" in text and "StorageError: database: disk full" in text and "No such file" in text
    assert "test_logs.py" in text


def test_a_warnings_text_stays_out(log: Log) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = sys.modules["gateway.logs"]._log_warning
        warnings.warn(f"Invalid value for VR PN: {MARK}", UserWarning, stacklevel=1)
    (line,) = log()
    assert MARK not in line and "UserWarning" in line


def test_a_dying_thread_is_logged_without_its_text(log: Log) -> None:
    def die() -> None:
        raise ValueError(MARK)

    thread = threading.Thread(target=die, name="outbox-pacs")
    thread.start()
    thread.join()
    text = "\n".join(log())
    assert "Thread outbox-pacs died" in text and "ValueError" in text and MARK not in text


def test_a_message_cannot_forge_a_line(log: Log) -> None:
    logger.info("Accepted from %s", "X\n2026-01-01T00:00:00Z INFO forged")
    assert len(log()) == 1


@pytest.mark.parametrize("name", ["pynetdicom.dimse", "pynetdicom.dul", "pynetdicom.utils"])
def test_a_pdu_that_cannot_be_read_is_a_line_and_no_traceback(log: Log, name: str) -> None:
    try:
        raise ConnectionResetError
    except OSError as error:
        logging.getLogger(name).exception(error)
        logging.getLogger("pynetdicom.fsm").exception(error)
    first, *others = log()
    assert "ConnectionResetError" in first and "Traceback" not in first
    assert "ConnectionResetError" in others[0] and "Traceback" in "".join(others)


def test_a_librarys_message_stays_out(log: Log) -> None:
    """pynetdicom quotes an Affected SOP Instance UID as it came, in a message that is formatted already."""
    logging.getLogger("pynetdicom.dimse").error(f"The value '{MARK}' is not a UID")
    logging.getLogger("pydicom").warning("Invalid value %s", MARK)
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    first, second, third = log()
    assert MARK not in first + second and "pynetdicom.dimse" in first and "test_logs.py:" in first
    assert "Invalid HTTP request received." in third


@pytest.mark.parametrize("control", ["\x9b31m", "\x85", "\x7f", "\u2028"])
def test_control_characters_beyond_ascii_are_escaped(log: Log, control: str) -> None:
    logger.info("Accepted from %s", f"X{control}")
    try:
        raise StorageError(f"disk {control}")
    except StorageError:
        logger.exception("It broke")
    text = "\n".join(log())
    assert control not in text and f"{ord(control[0]):02x}" in text


def test_a_line_that_is_repeated_too_often_is_counted(bare: None) -> None:
    stream = io.StringIO()
    handler = LimitedHandler(stream, period_s=0.2)
    handler.setFormatter(PlainFormatter())
    flooded, library = logging.getLogger("gateway.flooded"), logging.getLogger("library.flooded")
    flooded.addHandler(handler)
    library.addHandler(handler)
    try:
        for number in range(1000):
            flooded.warning("Refused %d", number, extra={"action": "refuse"})
        flooded.warning("Another place")
        for number in range(100):
            flooded.warning("Of a job", extra={"job_id": str(number)})
        for _ in range(70):
            library.warning(MARK)
        assert len(stream.getvalue().splitlines()) == 60 + 1 + 100 + 60
        time.sleep(1.1)
        flooded.warning("Later")
    finally:
        flooded.removeHandler(handler)
        library.removeHandler(handler)
    *_, summary, of_library, last = stream.getvalue().splitlines()
    assert "library.flooded: 10 more lines were left out" in of_library and MARK not in stream.getvalue()
    assert last.endswith("Later")
    assert "action=refuse: 940 more lines were left out, like: Refused 0" in summary


def test_pynetdicoms_printing_handlers_are_off(log: Log) -> None:
    assert pynetdicom_config.LOG_HANDLER_LEVEL == "none"
    assert not pynetdicom_config.LOG_REQUEST_IDENTIFIERS and not pynetdicom_config.LOG_RESPONSE_IDENTIFIERS
