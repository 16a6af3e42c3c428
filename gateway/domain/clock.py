"""The one clock of the gateway: aware date-times in UTC.

On one machine it is the machine's.  Where several machines share a PostgreSQL database, their clocks differ, and leases
of one are read by the other: the database's clock counts then (`follow`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_SAME = timedelta(seconds=0.5)  # a difference that is measured again differs by the way to the server and back

_difference = timedelta(0)


def utc_now() -> datetime:
    """Return the time now, aware, in UTC."""
    return datetime.now(UTC) + _difference


def follow(server: datetime, here: datetime) -> timedelta:
    """Go by the clock of the database from now on; return by how much this machine's was behind it.

    Parameters
    ----------
    server : datetime
        What the database's clock showed, aware.
    here : datetime
        What this machine's clock showed at that moment, aware.
    """
    global _difference
    found = server - here
    if abs(found - _difference) > _SAME:
        _difference = found if abs(found) > _SAME else timedelta(0)
    return _difference
