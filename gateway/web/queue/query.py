"""What the address of the queue asks for, with a sentence for each part that cannot be answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar
from urllib.parse import urlencode

from gateway.domain.account import User
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.store.queue.search import JobFilter, Order

FIELDS = ("q", "since", "until", "source", "status", "delivery", "destination", "sort")
_OTHERS = ("page", "refresh", "seen")
_LONGEST = 200  # characters of what is searched for
_MOST_WORDS = 8
Chosen = TypeVar("Chosen", bound=StrEnum)
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueQuery:
    """One page of the queue: what was written in the address, and what it means.

    Parameters
    ----------
    written
        The fields that are not empty, by name.
    errors
        Sentences by field; with any, nothing is shown.
    """

    written: Mapping[str, str]
    wanted: JobFilter
    order: Order
    page: int
    refresh: bool
    errors: Mapping[str, str]

    def address(self, **changes: object) -> str:
        """Return the query of an address like this one, with some fields replaced; the page is the first again."""
        fields = dict(self.written) | {name: str(value) for name, value in changes.items() if value is not None}
        if not self.refresh and "refresh" not in changes:
            fields["refresh"] = "off"
        return "?" + urlencode({name: value for name, value in fields.items() if value})


def read_query(parameters: Mapping[str, str], user: User) -> QueueQuery:
    """Return what an address asks for."""
    errors: dict[str, str] = {}

    def field(name: str, read: Callable[[str], Value]) -> Value | None:
        text = parameters.get(name, "").strip()
        if not text:
            return None
        try:
            return read(text)
        except ValueError as error:
            errors[name] = str(error)
            return None

    for name in parameters:
        if name not in (*FIELDS, *_OTHERS):
            errors["q"] = f"There is no filter named {name[:40]}. The filters are {', '.join(FIELDS)}."
    until = field("until", _day)
    wanted = JobFilter(
        text=field("q", _words) or "",
        sees_patients=user.sees_patients,
        since=field("since", _day),
        until=until + timedelta(days=1) if until else None,
        source=parameters.get("source", "").strip(),
        status=field("status", lambda text: _one_of(JobStatus, text, "state of a job")),
        delivery=field("delivery", lambda text: _one_of(DeliveryStatus, text, "state of a delivery")),
        destination=parameters.get("destination", "").strip(),
    )
    if wanted.since and wanted.until and wanted.since >= wanted.until:
        errors["until"] = "The last day is before the first."
    order = field("sort", lambda text: _one_of(Order, text, "order")) or Order.FAILURES
    if order == Order.PATIENT and not user.sees_patients:
        errors["sort"] = "You may not see patients, so jobs are not sorted by them."
    return QueueQuery(
        written={name: parameters[name].strip() for name in FIELDS if parameters.get(name, "").strip()},
        wanted=wanted,
        order=order,
        page=field("page", _number) or 1,
        refresh=(field("refresh", _on_or_off) or "on") == "on",
        errors=errors,
    )


def _day(text: str) -> datetime:
    """Return the beginning of a day on this machine's clock."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").astimezone()
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:20]} is no day: write it as 2026-11-30.") from None


def _words(text: str) -> str:
    if len(text) > _LONGEST or len(text.split()) > _MOST_WORDS:
        raise ValueError(f"At most {_MOST_WORDS} words with {_LONGEST} characters can be searched for.")
    return text.replace("^", " ")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= 10_000_000 and len(text) < 9):
        raise ValueError(f"{text[:20]} is no number of a page: it is 1 or more.")
    return int(text)


def _on_or_off(text: str) -> str:
    if text not in ("on", "off"):
        raise ValueError(f"{text[:20]} is neither on nor off.")
    return text


def _one_of(kind: type[Chosen], text: str, what: str) -> Chosen:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text[:40]} is no {what}: it is one of {', '.join(kind)}.") from None
