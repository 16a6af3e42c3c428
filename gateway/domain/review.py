"""What a reviewer works with: what is at stake in a job, and what he decides."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import IntEnum, StrEnum

CLAIM = timedelta(minutes=2)  # how long a job stays a reviewer's after he was last seen at it
UNDO = timedelta(minutes=1)  # how long a decision can be taken back: nothing leaves before


class Stake(IntEnum):
    """What may be wrong with a job, the worst first: a reviewer sees the jobs in this order."""

    UNRANKED = 0  # of a gateway that did not rank
    IDENTITY = 1  # it may be another patient's ECG, or nobody knows when it was recorded
    UNREAD = 2  # nothing was read: nobody sees this ECG
    INK = 3  # ink is missing from the record, or the record shows what is not printed
    LAYOUT = 4  # leads may bear the wrong names
    SCALE = 5  # speed or gain may be wrong
    LOW = 6  # the reading is poor
    OTHER = 7
    NONE = 9  # nothing is doubtful


class Verdict(StrEnum):
    """What a reviewer decides about a job."""

    ACCEPT = "ACCEPT"
    REJECT = "REJECT"
    SCAN_AGAIN = "SCAN_AGAIN"  # a rejection that asks for a new scan


_WORDS = (  # in the reasons that a job gives
    (Stake.IDENTITY, r"patient|identity|time of recording|accession|\border\b|\bcodes? on\b"),
    (Stake.INK, r"\bink\b|traced where"),
    (Stake.LAYOUT, r"layout|strip|lead name|\brows?\b|columns beat|limb leads"),
    (Stake.SCALE, r"speed|gain|mm/|\bgrid\b|scale"),
    (Stake.LOW, r"estimated SNR|was read"),
)


def stake_of(reason: str) -> Stake:
    """Return the worst of what a job's reason says, in the words of `gateway.identity` and of the digitizer."""
    return next((stake for stake, words in _WORDS if re.search(words, reason, re.IGNORECASE)), Stake.OTHER)
