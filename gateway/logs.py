"""The log: plain or JSON lines on standard error, the job's id on every line, no patient data.

Our own messages hold identifiers only.  Text of libraries may quote what a peer sent and is left out: their messages
(pynetdicom quotes UIDs as they came), the pynetdicom handlers that print data sets, the text of warnings (pydicom
quotes the value), and the text of other libraries' exceptions.  A place in the code that logs too often is counted.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

from pynetdicom import _config as pynetdicom_config

from gateway.errors import GatewayError
from gateway.settings import LogSettings

logger = logging.getLogger(__name__)

_job_id: ContextVar[str] = ContextVar("job_id", default="")

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}  # C0, DEL and C1
_CONTROLS |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029)}  # line and paragraph separator
_KNOWN = ("gateway", "pipeline", "uvicorn")  # loggers whose messages quote nobody
_LINES_A_MINUTE = 60  # of one place in the code, without a job: a peer may cause any number of them

# Exceptions whose text is code or our own words, never a value from a data set or message.
_SAFE = (GatewayError, TypeError, AttributeError, ImportError, NameError)


@contextmanager
def bind_job(job_id: str) -> Iterator[None]:
    """Put a job's id on every line this thread logs inside the block."""
    token = _job_id.set(job_id)
    try:
        yield
    finally:
        _job_id.reset(token)


def configure_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up the root logger; called once a process, before anything is logged.

    Parameters
    ----------
    stream : TextIO or None
        Where the lines go; None for standard error.
    """
    handler = LimitedHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else PlainFormatter())
    handler.setLevel(settings.level)  # some libraries set a level of their own, which the root does not override
    handler.addFilter(_add_job_id)
    logging.basicConfig(
        level=max(logging.WARNING, logging.getLevelName(settings.level)), handlers=[handler], force=True
    )
    for name in ("gateway", "pipeline"):  # other loggers stay at WARNING: they quote file names, rows and values
        logging.getLogger(name).setLevel(settings.level)
    warnings.showwarning = _log_warning
    threading.excepthook = _log_thread_death
    _silence_pynetdicom()


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Writes lines; of one place in the code at most `_LINES_A_MINUTE`, then how many were left out.

    Lines about a job are all written: a job has few of them.
    """

    def __init__(self, stream: TextIO, period_s: float = 60.0) -> None:
        super().__init__(stream)
        self._period_s = period_s
        self._places: dict[tuple[str, int], _Place] = {}
        self._next_check = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or count it; the handler's lock is held."""
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + 1.0
            self._end_periods(now)
        if _extra(record, "job_id") or self._place(record, now).take():
            super().emit(record)

    def _place(self, record: logging.LogRecord, now: float) -> _Place:
        key = (record.pathname, record.lineno)
        if key not in self._places:
            self._places[key] = _Place(record, now + self._period_s)
        return self._places[key]

    def _end_periods(self, now: float) -> None:
        for key, place in list(self._places.items()):
            if now < place.until:
                continue
            del self._places[key]
            if place.lines > _LINES_A_MINUTE:
                super().emit(place.left_out())


class _LeftOut(logging.LogRecord):
    """The line that says how many were left out; its words are ours, whichever logger it stands for."""


class _Place:
    """A place in the code, and how often it has logged since its period began."""

    def __init__(self, first: logging.LogRecord, until: float) -> None:
        self.until = until
        self.lines = 0
        self._first = _message(first)  # not the record: its traceback holds what was received
        self._origin = (first.name, first.levelno, first.pathname, first.lineno)
        self._action = _extra(first, "action")

    def take(self) -> bool:
        self.lines += 1
        return self.lines <= _LINES_A_MINUTE

    def left_out(self) -> logging.LogRecord:
        words = f"{self.lines - _LINES_A_MINUTE} more lines were left out, like: {self._first}"
        name, level, path, line = self._origin
        record = _LeftOut(name, level, path, line, words, None, None)
        record.action, record.job_id = self._action, ""
        return record


class PlainFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z WARNING gateway.outbox job=... action=...: message`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback below it."""
        job_id, action = _extra(record, "job_id"), _extra(record, "action")
        marks = (f" job={job_id}" if job_id else "") + (f" action={action}" if action else "")
        line = f"{_timestamp(record)} {record.levelname} {record.name}{marks}: {_message(record)}"
        return f"{line}\n{_traceback(record)}" if _has_traceback(record) else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, job_id, action, and traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {
            "time": _timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            "job_id": _extra(record, "job_id"),
            "action": _extra(record, "action"),
        }
        if _has_traceback(record):
            fields["traceback"] = _traceback(record)
        return json.dumps(fields, ensure_ascii=False)


def _add_job_id(record: logging.LogRecord) -> bool:
    if not _extra(record, "job_id"):
        record.job_id = _job_id.get()
    return True


def _message(record: logging.LogRecord) -> str:
    """Return the message on one line; of a library's only where it was logged, and an exception's type."""
    if isinstance(record.msg, BaseException):
        return type(record.msg).__qualname__
    if record.name.partition(".")[0] not in _KNOWN and not isinstance(record, _LeftOut):
        return f"a message of this library ({record.filename}:{record.lineno}), left out: it may quote what a peer sent"
    return record.getMessage().translate(_CONTROLS)


def _extra(record: logging.LogRecord, name: str) -> str:
    return str(getattr(record, name, ""))


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _has_traceback(record: logging.LogRecord) -> bool:
    """Return whether a traceback is written: pynetdicom logs one for all that it cannot read of what a peer sends."""
    return bool(record.exc_info) and record.name not in ("pynetdicom.dimse", "pynetdicom.dul", "pynetdicom.utils")


def _traceback(record: logging.LogRecord) -> str:
    """Return the traceback, with an exception's text only if it cannot hold patient data."""
    assert record.exc_info is not None
    error = record.exc_info[1]
    parts: list[str] = []
    while error is not None:
        text = f": {error}".translate(_CONTROLS) if isinstance(error, _SAFE) else ""
        text = f": {error.strerror}" if isinstance(error, OSError) else text  # its full text quotes a file's name
        frames = "".join(traceback.format_tb(error.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{type(error).__qualname__}{text}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\ncaused:\n".join(reversed(parts))


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logger.warning("%s raised in %s:%d", category.__name__, filename, lineno, extra={"action": "warning"})


def _log_thread_death(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "?"
    error = args.exc_value or args.exc_type()
    logger.critical(
        "Thread %s died", name, exc_info=(args.exc_type, error, args.exc_traceback), extra={"action": "thread_died"}
    )


def _silence_pynetdicom() -> None:
    """Keep pynetdicom from logging the contents of associations and messages."""
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"
    pynetdicom_config.LOG_REQUEST_IDENTIFIERS = False
    pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False
