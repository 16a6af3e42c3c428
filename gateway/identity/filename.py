"""The identity that a file's name states, read by the pattern of the settings."""

from __future__ import annotations

import re

from gateway.domain.context import StudyContext
from gateway.identity.forms import check_context


def read_filename(pattern: re.Pattern[str], stem: str) -> StudyContext | None:
    """Return the identity a file's name states (`stem`: without its extension); None where `pattern` does not fit.

    Raises
    ------
    IntakeError
        A value breaks its form.
    """
    match = pattern.fullmatch(stem)
    if match is None:
        return None
    fields = {name: value for name, value in match.groupdict().items() if value is not None}
    return check_context(StudyContext(**fields), "the file's name")
