"""Deliveries: each result on its way to one destination.

The outbox advances them.  A change of status is looked up in the table of `gateway.domain.status` and leaves a
`JobEvent` in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, func
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from gateway.domain.clock import utc_now
from gateway.domain.status import ARRIVED, UNDELIVERED, UNSETTLED, DeliveryAction, DeliveryStatus
from gateway.store.database import SEVERAL_JOBS, Database, advance_delivery, lock_delivery
from gateway.store.tables import Delivery, DestinationState

_STEPS_ASIDE = 2  # failed attempts: one is waited for, as a peer that is busy for a moment refuses anything


class Deliveries:
    """The deliveries of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, now: datetime, destination: str, limit: int = 1) -> list[Delivery]:
        """Return what may be sent to a destination now: what has not failed twice first, then what has, oldest first.

        The deliveries of one page to one destination leave in the order they were made: a correction, or the note that
        rejects an object, never overtakes what it follows.  Between pages, one that failed once is waited for; one that
        failed twice steps aside, so that it holds up nobody.  Nothing is due at a destination that is paused.
        """
        identity, attempts = col(Delivery.id), col(Delivery.attempts)
        before = aliased(Delivery)
        of_its_page = select(before.id).where(
            before.job_id == Delivery.job_id,
            before.page_number == Delivery.page_number,
            before.destination == Delivery.destination,
            before.status == DeliveryStatus.PENDING,
            before.id < identity,
        )
        waiting = (
            select(Delivery)
            .where(Delivery.status == DeliveryStatus.PENDING, Delivery.destination == destination, not_paused())
            .where(~of_its_page.exists())
            .order_by(identity)
        )
        aside = waiting.where(attempts >= _STEPS_ASIDE, Delivery.next_attempt_at <= now)
        with self._database.read() as session:
            in_line = [session.exec(waiting.where(attempts == n).limit(1)).first() for n in range(_STEPS_ASIDE)]
            head = min((each for each in in_line if each is not None), key=lambda each: each.id or 0, default=None)
            due = [head] if head is not None and head.next_attempt_at <= now else []
            return due + list(session.exec(aside.limit(limit - len(due))).all()) if len(due) < limit else due

    def delivered(self, delivery_id: int, response: str) -> None:
        """Record that the peer took it."""
        now = utc_now()
        self._attempted(delivery_id, DeliveryAction.DELIVER, response=response, reason="", delivered_at=now)

    def stored(self, delivery_id: int, response: str) -> None:
        """Record that the peer took it and shall be asked to commit, now."""
        with self._database.write() as session:
            delivery = lock_delivery(session, delivery_id)
            delivery.attempts += 1
            delivery.response, delivery.reason, delivery.next_attempt_at = response, "", utc_now()
            advance_delivery(session, delivery, DeliveryAction.STORE, "outbox", response)
            _note(session, delivery.destination, "")

    def defer(self, delivery_id: int, reason: str, next_attempt_at: datetime) -> None:
        """Record that it did not arrive and is to be tried again at `next_attempt_at`."""
        self._attempted(delivery_id, DeliveryAction.DEFER, reason=reason, next_attempt_at=next_attempt_at)

    def refuse(self, delivery_id: int, reason: str, response: str) -> None:
        """Record that the peer will never take it as it stands."""
        self._attempted(delivery_id, DeliveryAction.REFUSE, reason=reason, response=response)

    def give_up(self, delivery_id: int, reason: str) -> None:
        """Record that the last attempt failed."""
        self._attempted(delivery_id, DeliveryAction.GIVE_UP, reason=reason)

    def retry(self, delivery_id: int, actor: str) -> None:
        """Send again what was refused or given up, with fresh attempts.

        Raises
        ------
        IllegalTransition
            It waits, has arrived, or another result took its place.
        """
        with self._database.write() as session:
            send_again(session, lock_delivery(session, delivery_id), actor)

    def _attempted(self, delivery_id: int, action: DeliveryAction, **changes: Any) -> None:
        """Record how one attempt ended."""
        with self._database.write() as session:
            delivery = lock_delivery(session, delivery_id)
            delivery.sqlmodel_update(changes)
            delivery.attempts += 1
            detail = " ".join(part for part in (changes.get("response"), changes["reason"]) if part)
            advance_delivery(session, delivery, action, "outbox", detail)
            _note(session, delivery.destination, changes["reason"])

    def bound_pauses(self, destination: str, longest_s: float) -> int:
        """Make due what waits for longer than any pause can be: a clock stood ahead.  Return how many they were."""
        now = utc_now()
        longer = select(Delivery.id).where(
            Delivery.destination == destination,
            col(Delivery.status).in_(UNSETTLED),
            Delivery.next_attempt_at > now + timedelta(seconds=longest_s),
        )
        with self._database.read() as session:
            waiting = session.exec(longer).all()
        if waiting:
            with self._database.write(SEVERAL_JOBS) as session:
                for delivery_id in waiting:
                    lock_delivery(session, cast(int, delivery_id)).next_attempt_at = now
        return len(waiting)

    def of_job(self, job_id: str) -> list[Delivery]:
        """Return a job's deliveries in the order they were made."""
        with self._database.read() as session:
            return list(
                session.exec(select(Delivery).where(Delivery.job_id == job_id).order_by(col(Delivery.id))).all()
            )

    def undelivered(self, destination: str | None = None, job_id: str | None = None) -> list[Delivery]:
        """Return what was refused or given up, of one destination and one job or of all, oldest first."""
        statement = select(Delivery).where(col(Delivery.status).in_(UNDELIVERED))
        if destination is not None:
            statement = statement.where(Delivery.destination == destination)
        if job_id is not None:
            statement = statement.where(Delivery.job_id == job_id)
        with self._database.read() as session:
            return list(session.exec(statement.order_by(col(Delivery.id))).all())

    def made_here(self, identifier: str) -> bool:
        """Tell whether an object of this SOP Instance UID, or a message of this MSH-10, is one of ours."""
        with self._database.read() as session:
            return (
                session.exec(select(Delivery.id).where(Delivery.identifier == identifier).limit(1)).first() is not None
            )

    def counts(self) -> dict[DeliveryStatus, int]:
        """Return how many deliveries stand in each status, zeros included."""
        counts = dict.fromkeys(DeliveryStatus, 0)
        for (status, _destination), count in self.counts_by_destination().items():
            counts[status] += count
        return counts

    def counts_by_destination(self) -> dict[tuple[DeliveryStatus, str], int]:
        """Return how many deliveries to each destination stand in each status; pairs without any are left out."""
        statement = select(Delivery.status, Delivery.destination, func.count()).group_by(
            col(Delivery.status), col(Delivery.destination)
        )
        with self._database.read() as session:
            rows = session.exec(statement).all()
        return {(DeliveryStatus(status), destination): count for status, destination, count in rows}

    def waiting_for_others(self, destinations: Collection[str]) -> dict[str, int]:
        """Return how many deliveries wait for each destination that is none of these."""
        waiting: dict[str, int] = {}
        for (status, destination), count in self.counts_by_destination().items():
            if status in UNSETTLED and destination not in destinations:
                waiting[destination] = waiting.get(destination, 0) + count
        return waiting


def not_paused() -> ColumnElement[bool]:
    """Return the condition that a delivery's destination is not paused."""
    paused = select(DestinationState.name).where(col(DestinationState.paused_at).is_not(None))
    return col(Delivery.destination).not_in(paused)


def send_again(session: Session, delivery: Delivery, actor: str, detail: str = "") -> None:
    """Send again what was refused or given up, of a locked job, with fresh attempts."""
    delivery.attempts = delivery.asked = 0
    delivery.next_attempt_at = utc_now()
    advance_delivery(session, delivery, DeliveryAction.RETRY, actor, detail)


def _note(session: Session, destination: str, error: str) -> None:
    """Record that something arrived at a destination, or what was wrong."""
    now = utc_now()
    values = {"failed_at": now, "error": error} if error else {"delivered_at": now}
    state = session.get(DestinationState, destination)
    if state is None:
        session.add(DestinationState(name=destination, **values))
    else:
        state.sqlmodel_update(values)


def put_delivery(session: Session, new: Delivery) -> None:
    """Insert a delivery of a locked job, or renew the one of an earlier run that did not arrive."""
    old = session.exec(
        select(Delivery).where(
            Delivery.job_id == new.job_id,
            Delivery.page_number == new.page_number,
            Delivery.destination == new.destination,
            Delivery.artefact == new.artefact,
        )
    ).one_or_none()
    if old is None:
        session.add(Delivery(**new.model_dump(exclude={"id"})))
    elif old.status not in (*ARRIVED, DeliveryStatus.PENDING):
        renewed = {"attempts": 0, "asked": 0, "next_attempt_at": utc_now(), "identifier": new.identifier, "reason": ""}
        old.sqlmodel_update(renewed | {"result_status": new.result_status})
        advance_delivery(session, old, DeliveryAction.RENEW, "worker", "")
