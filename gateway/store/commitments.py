"""Storage commitment in the database: what we asked of peers, and what modalities asked of us.

A delivery to a destination that commits goes PENDING -> STORED with its C-STORE, and STORED -> DELIVERED with the
peer's report.  Every request of ours is kept, so that a report that comes late, or after a restart, finds its
deliveries.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import or_
from sqlmodel import Session, col, select

from gateway.domain.clock import utc_now
from gateway.domain.status import DELIVERY_TRANSITIONS, DeliveryAction, DeliveryStatus
from gateway.store.database import SEVERAL_JOBS, Database, advance_delivery, lock_delivery, log_event
from gateway.store.deliveries import not_paused
from gateway.store.tables import Commitment, CommitmentRequest, Delivery

_ACTOR = "commitment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What a report says about one delivery, and what follows."""

    delivery: int
    action: DeliveryAction | None  # None: it stays STORED, and is asked about again at `next_attempt_at`
    failure_reason: str = ""  # "0x0112"; "": committed
    reason: str = ""
    next_attempt_at: datetime | None = None


class Commitments:
    """The storage commitment requests of one database, ours and our callers'."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- of what we sent ------------------------------------------------------------------------------------------

    def due(self, now: datetime, destination: str, limit: int) -> list[Delivery]:
        """Return deliveries whose peer is to be asked to commit, the oldest first."""
        due = select(Delivery).where(
            Delivery.status == DeliveryStatus.STORED,
            Delivery.destination == destination,
            Delivery.next_attempt_at <= now,
            not_paused(),
        )
        with self._database.read() as session:
            return list(session.exec(due.order_by(col(Delivery.id)).limit(limit)).all())

    def deliver_unasked(self, destination: str) -> int:
        """Take what is STORED at a peer that is not asked to commit any more for delivered; return how many it were."""
        stored = select(Delivery.id).where(
            Delivery.status == DeliveryStatus.STORED, Delivery.destination == destination
        )
        count = 0
        with self._database.write(SEVERAL_JOBS) as session:
            for delivery_id in session.exec(stored).all():
                delivery = lock_delivery(session, cast(int, delivery_id))
                if delivery.status == DeliveryStatus.STORED:
                    _commit(session, delivery, "storage commitment is not asked for any more")
                    count += 1
        return count

    def ask(self, transaction_uid: str, delivery_ids: Sequence[int], ask_again_at: datetime) -> None:
        """Record a request before it is made: its report may come before its answer."""
        with self._database.write(SEVERAL_JOBS) as session:
            for delivery_id in delivery_ids:
                delivery = lock_delivery(session, delivery_id)
                delivery.asked += 1
                delivery.next_attempt_at = ask_again_at
                session.add(Commitment(transaction_uid=transaction_uid, delivery=delivery_id))
                where = f"{delivery.destination}, page {delivery.page_number}: request {delivery.asked}"
                log_event(session, delivery.job_id, "COMMITMENT_ASK", _ACTOR, where)

    def asked_for(self, transaction_uid: str) -> list[Delivery]:
        """Return the deliveries of a request of ours; none where there was no such request."""
        asked = select(Delivery).join(Commitment, col(Commitment.delivery) == col(Delivery.id))
        with self._database.read() as session:
            return list(session.exec(asked.where(Commitment.transaction_uid == transaction_uid)).all())

    def settle(self, transaction_uid: str, settlements: Sequence[Settlement]) -> None:
        """Record what was reported, or why nothing will be, all of it or nothing.

        That a peer has committed counts at any time; anything else counts only while the gateway waits for it.
        """
        with self._database.write(SEVERAL_JOBS) as session:
            for settlement in settlements:
                delivery = lock_delivery(session, settlement.delivery)
                _note(session, transaction_uid, settlement)
                if settlement.action == DeliveryAction.DELIVER:
                    _commit(session, delivery, "committed")
                elif delivery.status == DeliveryStatus.STORED:
                    _fail(session, delivery, settlement)

    # -- of what we received --------------------------------------------------------------------------------------

    def add_request(self, request: CommitmentRequest) -> None:
        """Keep a modality's request until it is reported; one that is repeated is reported again."""
        with self._database.write(f"commitment request {request.ae_title} {request.transaction_uid}") as session:
            known = session.exec(
                select(CommitmentRequest).where(
                    CommitmentRequest.ae_title == request.ae_title,
                    CommitmentRequest.transaction_uid == request.transaction_uid,
                )
            ).one_or_none()
            values = request.model_dump(exclude={"id"})
            if known is None:
                session.add(CommitmentRequest(**values))
            else:
                known.sqlmodel_update(values)

    def due_requests(self, now: datetime, longest_s: float, limit: int = 10) -> list[CommitmentRequest]:
        """Return requests with a commitment result to send, the oldest first.

        One that waits for more than `longest_s` was put off while a clock stood ahead: it is due.
        """
        at = col(CommitmentRequest.next_attempt_at)
        due = select(CommitmentRequest).where(
            col(CommitmentRequest.waiting), or_(at <= now, at > now + timedelta(seconds=longest_s))
        )
        with self._database.read() as session:
            return list(session.exec(due.order_by(col(CommitmentRequest.id)).limit(limit)).all())

    def result_sent(self, request_id: int) -> None:
        """Record that the modality took the report."""
        self._reported(request_id, waiting=False, reason="")

    def result_failed(self, request_id: int, reason: str, next_attempt_at: datetime | None) -> None:
        """Record that it did not; None: it is not tried again."""
        values = {"reason": reason, "waiting": next_attempt_at is not None}
        self._reported(request_id, **values, **({"next_attempt_at": next_attempt_at} if next_attempt_at else {}))

    def _reported(self, request_id: int, **changes: Any) -> None:
        with self._database.write() as session:
            request = session.get(CommitmentRequest, request_id, with_for_update={"key_share": True})
            if request is not None:
                request.sqlmodel_update({**changes, "attempts": request.attempts + 1})


def references(request: CommitmentRequest) -> tuple[tuple[str, str], ...]:
    """Return the SOP class and SOP Instance UIDs a modality asked about."""
    return tuple((sop_class, sop_instance) for sop_class, sop_instance in json.loads(request.references_json))


def _note(session: Session, transaction_uid: str, settlement: Settlement) -> None:
    asked = select(Commitment).where(
        Commitment.transaction_uid == transaction_uid, Commitment.delivery == settlement.delivery
    )
    commitment = session.exec(asked).one_or_none()
    if commitment is not None:
        commitment.reported_at = utc_now()
        commitment.failure_reason = settlement.failure_reason


def _commit(session: Session, delivery: Delivery, detail: str) -> None:
    if (delivery.status, DeliveryAction.DELIVER) in DELIVERY_TRANSITIONS:
        delivery.reason = ""
        delivery.delivered_at = utc_now()
        advance_delivery(session, delivery, DeliveryAction.DELIVER, _ACTOR, detail)


def _fail(session: Session, delivery: Delivery, settlement: Settlement) -> None:
    delivery.reason = settlement.reason
    if settlement.next_attempt_at is not None:
        delivery.next_attempt_at = settlement.next_attempt_at
    if settlement.action is not None:
        advance_delivery(session, delivery, settlement.action, _ACTOR, settlement.reason)
    else:
        where = f"{delivery.destination}, page {delivery.page_number}"
        log_event(session, delivery.job_id, "COMMITMENT_FAILED", _ACTOR, f"{where}: {settlement.reason}")
