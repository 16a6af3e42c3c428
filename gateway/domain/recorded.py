"""When an ECG was recorded, and what says so: its source or a person, its print, or its study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from gateway.domain.context import StudyContext
from pipeline import PrintedValues

_CLOCKS_DIFFER = timedelta(days=1)  # of a cart ahead of the gateway: zones, and clocks that go wrong by hours


class Origin(StrEnum):
    """What says when an ECG was recorded, in words."""

    STATED = "as the source or a person states"
    PRINTED = "as printed on the page"
    STUDY = "not stated, the study's is given"
    UNKNOWN = "not known, the time the gateway took the page is given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The time of recording.

    Parameters
    ----------
    at
        A DT, as precise as it is known; "" = not known.
    other_print
        The day that the page prints, where it is another one; a DA.
    """

    at: str = ""
    origin: Origin = Origin.UNKNOWN
    other_print: str = ""

    @property
    def words(self) -> str:
        """What says so, and what speaks against it."""
        day = self.other_print
        return self.origin + (f"; the page prints {day[:4]}-{day[4:6]}-{day[6:]}" if day else "")


def recorded(context: StudyContext, printed: PrintedValues) -> Recorded:
    """Return when an ECG was recorded.

    Parameters
    ----------
    context
        What the source, its sidecar, its order or a person states has priority.  The date of the study comes last: a
        study may begin when paper is scanned.
    printed
        What the page prints; see `believable`.
    """
    day = f"{printed.recorded_on:%Y%m%d}" if printed.recorded_on else ""
    if at := context.acquisition_date_time:
        return Recorded(at=at, origin=Origin.STATED, other_print=day if day != at[:8] else "")
    if day:
        return Recorded(
            at=day + (f"{printed.recorded_at:%H%M%S}" if printed.recorded_at else ""), origin=Origin.PRINTED
        )
    if context.study_date:
        return Recorded(at=context.study_date + context.study_time, origin=Origin.STUDY)
    return Recorded()


def believable(printed: PrintedValues, context: StudyContext, received_at: datetime) -> PrintedValues:
    """Return what is printed, without a date of recording that cannot be: a clock was wrong, or it was misread."""
    day = printed.recorded_on
    latest = (received_at + _CLOCKS_DIFFER).date()
    if day is None or (day <= latest and f"{day:%Y%m%d}" >= context.patient_birth_date):
        return printed
    reason = "the printed date lies " + (
        "after the page was received" if day > latest else "before the patient's birth"
    )
    return replace(printed, recorded_on=None, recorded_at=None, reasons=(reason,))


def not_known(printed: PrintedValues) -> str:
    """Return why a page whose time of recording is not known waits, in words, without a date."""
    why = "; ".join(printed.reasons) or "it is neither stated nor printed legibly"
    return f"the time of recording is not known ({why}): a person must give it"
