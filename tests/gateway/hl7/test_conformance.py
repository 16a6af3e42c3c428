"""docs/conformance/hl7.md says what the code does."""

from __future__ import annotations

import pytest

from gateway.hl7.inbound.parsing import CODECS
from gateway.hl7.inbound.updates import MERGE_EVENTS, ORDER_MESSAGES, PATIENT_EVENTS
from gateway.settings import HL7_PLACEHOLDERS, Hl7CodeSettings
from tests.hl7_examples import STATEMENT, examples, written

TEXT = STATEMENT.read_text(encoding="utf-8")


def test_examples_are_what_the_code_makes() -> None:
    """After a change of the code: python -m tests.hl7_examples, and read what changed."""
    assert written() == examples()


@pytest.mark.parametrize(
    "what",
    [
        *(f"ADT^{event}" for event in sorted((*PATIENT_EVENTS, *MERGE_EVENTS))),
        *(f"{code}^{event}" for code, event in ORDER_MESSAGES.items()),
        *CODECS,
        *sorted(HL7_PLACEHOLDERS),
        *Hl7CodeSettings.model_fields,
        *Hl7CodeSettings().model_dump().values(),
    ],
)
def test_everything_is_named(what: str) -> None:
    assert f"`{what}`" in TEXT
