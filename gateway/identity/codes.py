"""The identity that bar codes and QR codes on the pages of one file state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.domain.context import StudyContext
from gateway.domain.identity import Decision, Evidence
from gateway.errors import IntakeError
from gateway.identity.decide import decide
from gateway.identity.forms import check_context
from gateway.identity.orders import Directory, search
from gateway.identity.words import OTHER_CODE, SEVERAL_CODES


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesRead:
    """What the codes on the pages of a file state together, and why they cannot be used ("" = they can)."""

    stated: StudyContext
    problem: str = ""


def read_codes_stated(pattern: re.Pattern[str], codes: Iterable[str]) -> CodesRead:
    """Return what codes state together: an empty context where none fits, or where they cannot be used."""
    try:
        return CodesRead(stated=_state(pattern, codes))
    except IntakeError as error:
        return CodesRead(stated=StudyContext(), problem=str(error))


def decide_by_codes(context: StudyContext, codes: CodesRead, directory: Directory, *, lookup: bool) -> Decision:
    """Return the identity of a file that nothing but the codes on its pages names.

    Parameters
    ----------
    lookup
        A worklist or an archive can be asked about the page.
    """
    problems = (codes.problem,) if codes.problem else ()
    evidence = Evidence(stated=codes.stated, lookup=lookup, contradictions=problems)
    return decide(context, search(directory, context, evidence))


def contradicting_codes(context: StudyContext, codes: CodesRead, directory: Directory) -> tuple[str, ...]:
    """Return, in words, what codes say against the context of their file; () where they say nothing against it.

    A code that names an order also names the order's patient.
    """
    if codes.problem:
        return (codes.problem,)
    named = decide(codes.stated, search(directory, codes.stated)).context
    return other_code(named, context)


def other_code(stated: StudyContext, context: StudyContext) -> tuple[str, ...]:
    """Return, in words, that codes name another patient ID or order than the record; () if they do not.

    Codes have check digits: what they say is compared as it is, except for leading zeros.
    """
    orders = (context.accession_number, context.placer_order_number, context.filler_order_number)
    for number, known in ((stated.patient_id, (context.patient_id,)), (stated.accession_number, orders)):
        if number and any(known) and number.lstrip("0") not in _without_zeros(known):
            return (OTHER_CODE,)
    return ()


def _without_zeros(numbers: Sequence[str]) -> set[str]:
    return {number.lstrip("0") for number in numbers if number}


def _state(pattern: re.Pattern[str], codes: Iterable[str]) -> StudyContext:
    stated: dict[str, str] = {}
    for code in codes:
        found = pattern.fullmatch(code)
        for name, value in found.groupdict().items() if found else ():
            if value is not None and stated.setdefault(name, value) != value:
                raise IntakeError(SEVERAL_CODES)
    return check_context(StudyContext(**stated), "the code on the page")
