"""The identity that a sidecar states: a JSON object beside a file, whose keys are the fields of `StudyContext`."""

from __future__ import annotations

from pydantic import ValidationError

from gateway.domain.context import StudyContext
from gateway.errors import IntakeError
from gateway.identity.forms import check_context


def read_sidecar(data: bytes) -> StudyContext:
    """Return the identity a sidecar file states.

    Raises
    ------
    IntakeError
        It is no JSON object of `StudyContext` fields, or a value breaks its form; every breach is named.
    """
    try:
        context = StudyContext.model_validate_json(data.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as error:
        breaches = "; ".join(
            f"{'.'.join(str(part) for part in breach['loc']) or 'file'}: {breach['msg']}" for breach in error.errors()
        )
        raise IntakeError(f"the sidecar cannot be used: {breaches}") from None
    return check_context(context, "the sidecar")
