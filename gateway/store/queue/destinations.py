"""Destinations as they fare: what waits for each, when something last arrived or failed, and which are paused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func
from sqlmodel import col, select

from gateway.domain.clock import utc_now
from gateway.domain.status import UNSETTLED, DeliveryStatus
from gateway.errors import IllegalTransition
from gateway.store.database import Database
from gateway.store.tables import Delivery, DestinationState


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What a destination has not got, or not committed; `oldest`: when the oldest of what waits was made."""

    counts: dict[DeliveryStatus, int]
    oldest: datetime | None

    @property
    def waiting(self) -> int:
        """How much waits to be sent."""
        return self.counts.get(DeliveryStatus.PENDING, 0)


class Destinations:
    """The destinations of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def states(self) -> dict[str, DestinationState]:
        """Return the state of every destination that ever had something to send, or was paused."""
        with self._database.read() as session:
            return {state.name: state for state in session.exec(select(DestinationState)).all()}

    def backlogs(self) -> dict[str, Backlog]:
        """Return what every destination has not got; one that got everything is left out."""
        open_ones = [status for status in DeliveryStatus if status != DeliveryStatus.DELIVERED]
        counted = select(Delivery.destination, Delivery.status, func.count(), func.min(Delivery.created_at)).where(
            col(Delivery.status).in_(open_ones)
        )
        with self._database.read() as session:
            rows = session.exec(counted.group_by(col(Delivery.destination), col(Delivery.status))).all()
        counts: dict[str, dict[DeliveryStatus, int]] = {}
        oldest: dict[str, datetime] = {}
        for name, status, count, first in rows:
            counts.setdefault(name, {})[DeliveryStatus(status)] = count
            if status in UNSETTLED:
                oldest[name] = min(first, oldest.get(name, first))
        return {name: Backlog(counts=each, oldest=oldest.get(name)) for name, each in counts.items()}

    def pause(self, name: str, actor: str) -> None:
        """Send nothing to a destination from now on, until `resume`; what is being sent ends.

        Raises
        ------
        IllegalTransition
            It is paused.
        """
        with self._database.write(f"destination {name}") as session:
            state = session.get(DestinationState, name)
            if state is None:
                session.add(DestinationState(name=name, paused_at=utc_now(), paused_by=actor))
            elif state.paused_at is not None:
                raise IllegalTransition(f"{name} is paused since {state.paused_at:%Y-%m-%d %H:%M} UTC")
            else:
                state.paused_at, state.paused_by = utc_now(), actor

    def resume(self, name: str) -> None:
        """Send to a destination again; raise IllegalTransition where it is not paused."""
        with self._database.write(f"destination {name}") as session:
            state = session.get(DestinationState, name)
            if state is None or state.paused_at is None:
                raise IllegalTransition(f"{name} is not paused")
            state.paused_at, state.paused_by = None, ""
