"""What is made of a page and leaves: its role among the files of a job."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What an artefact is."""

    WAVEFORM = "waveform"
    REPORT = "report"
    OVERLAY = "overlay"
    MESSAGE = "message"
    REJECTION = "rejection"  # a Key Object that rejects what was sent before
