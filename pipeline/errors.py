"""Errors of the digitizer; the type says whether a retry makes sense.

A `TransientError` depends on what else runs at the same time: the page may succeed when it is tried again, alone.  All
others are deterministic: the same page fails again in the same way.

DigitizationError
|-- PageUnreadable      the bytes are no picture or PDF we can decode, or too large to decode safely
|-- GridNotFound        no ECG grid and nothing else to take a scale from
|-- LayoutUnknown       no layout fits what is printed
|-- TraceNotFound       no ECG trace on the page
|-- WeightsMismatch     a weights file is not the one its record describes
|-- CorrectionError     a person's corrections break a rule, or do not fit the page
`-- TransientError      worth a retry
    `-- DeviceError     the device that runs the networks has too little free memory for the page
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What a fault in our own code raises on a page: a run over many pages notes it for that page and continues.
DEFECTS = (ArithmeticError, AssertionError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


class DigitizationError(Exception):
    """A page that cannot become a record; the message says why, in words a person at the hospital understands."""


class TransientError(DigitizationError):
    """A failure that depends on what else runs: the page may succeed when it is tried again, alone."""


class PageUnreadable(DigitizationError):
    """The bytes cannot be decoded into a page, or doing so would be unsafe."""


class GridNotFound(DigitizationError):
    """There is no grid on the page and no other evidence of scale."""


class LayoutUnknown(DigitizationError):
    """No configured layout explains the page."""


class TraceNotFound(DigitizationError):
    """There is no ECG trace on the page."""


class DeviceError(TransientError):
    """The device that runs the networks has too little free memory for the page."""


class WeightsMismatch(DigitizationError):
    """A weights file does not have the hash its record states."""


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """One value that breaks a rule: for the form beside whose field it is shown."""

    field: str  # "lines[0].points_px[2]"
    value: str
    rule: str

    def __str__(self) -> str:
        """Return it as one sentence."""
        return f"{self.field} is {self.value}: {self.rule}"


class CorrectionError(DigitizationError):
    """Corrections that break rules; `broken` names each field, its value and the rule."""

    def __init__(self, broken: Sequence[BrokenRule]) -> None:
        self.broken = tuple(broken)
        super().__init__("; ".join(map(str, broken)))
