"""What the page says in print against what its record says.

A page that plainly names another patient or order than its record must wait for a person: it may have been scanned
into the wrong folder or sent into the wrong study.  A page that says nothing, or says it badly, is no reason to wait:
print is read by a network that makes slips, carts print numbers of their own, and a queue of false alarms would be
confirmed unread.

What was read is patient data.  It stays in memory; reasons say which of the two differs and never its value.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from gateway.domain.context import StudyContext
from gateway.identity.words import OTHER_ACCESSION_NUMBER, OTHER_NAME, OTHER_PATIENT_ID
from pipeline import TextLine

_LEAST_SCORE = 0.8
_LEAST_CHARACTERS = 4  # shorter numbers are rooms, ages, page numbers
_BESIDE_MM = 40.0  # how far right of its label a value may stand

_NUMBER = r"(?:\s*(?:no|nr|num|number)\b\.?)?\s*[:#]?\s*"
_BARE_ID = r"^\s*id\s*[:#]\s*"  # begins its line and has a colon: "Device ID" is nobody's
_PATIENT_ID = r"\b(?:(?:patient|pat|pt)\.?\s*[-_]?\s*id|mrn|m\.r\.n\.|patient\s*(?:no|nr|number)\.?)"
_LABELS = {  # what a line must say before a value
    "patient_id": re.compile(rf"(?:{_BARE_ID}|{_PATIENT_ID}{_NUMBER})", re.IGNORECASE),
    "accession_number": re.compile(rf"\b(?:accession|acc\.?\s*(?:no|nr|#)\.?){_NUMBER}", re.IGNORECASE),
    "patient_name": re.compile(r"^\s*(?:patient|pat\.?|pt\.?)?\s*name\s*:\s*", re.IGNORECASE),
}
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DATE = re.compile(r"\d{1,4}[-.]\d{1,2}[-.]\d{1,4}|\d{1,2}-?[A-Za-z]{3}-?\d{2,4}")
_ALIKE = str.maketrans("OQDILSBZG", "000115826")  # letters that are read for figures, and figures for letters


def contradictions(
    lines: Sequence[TextLine], context: StudyContext, prior_patient_ids: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return, in words, what the page plainly says against its record; () where it says nothing against it.

    A number counts where all of this holds:

    * a label stands before it on its line, or left of it at the same height within 40 mm: "Patient ID", "Pat. ID",
      "MRN", "Patient No", or a line that begins with "ID:"; "Accession", "Acc. No";
    * it was read with a mean probability of 0.8 or more, has four characters or more, a figure among them that is not
      0, and is no date;
    * it is unlike every number of the record (patient ID, accession, placer, filler and study ID: carts print any of
      them under any label).  Two numbers are alike where, without punctuation and leading zeros and with letters and
      figures of one shape taken for the same (O and 0, I and 1, S and 5, B and 8), one holds the other, or they are
      one edit in five characters apart, at least one (inserted, left out, changed or swapped).  So 1001 and 1002 are
      alike: what may be a slip of reading is never held against a page;
    * the record has that number (patient ID; accession number): one that is not known is not contradicted.

    A name counts after "Name:" or "Patient Name:" alone, and only where no number on the page agrees with the record
    (names change, and are spelt in many ways): none of its words of three or more Latin letters may be alike to any of
    the recorded name's, in any component or group.

    Parameters
    ----------
    lines
        What was read on the page.
    context
        What the record says.
    prior_patient_ids
        Merged into the record's: it may be any of them, too.
    """
    known = [
        *prior_patient_ids,
        context.patient_id,
        context.accession_number,
        context.placer_order_number,
        context.filler_order_number,
        context.study_id,
    ]
    numbers = {field: list(_numbers(lines, field)) for field in ("patient_id", "accession_number")}
    alike = {field: [_is_known(number, known) for number in found] for field, found in numbers.items()}
    reasons = []
    for field, reason in (("patient_id", OTHER_PATIENT_ID), ("accession_number", OTHER_ACCESSION_NUMBER)):
        if getattr(context, field) and alike[field] and not any(alike[field]):
            reasons.append(reason)
    if not any(alike["patient_id"] + alike["accession_number"]) and _is_another_name(lines, context.patient_name):
        reasons.append(OTHER_NAME)
    return tuple(reasons)


def _numbers(lines: Sequence[TextLine], field: str) -> Iterator[str]:
    for _, value in labelled(lines, field):
        found = _VALUE.match(value)
        if found is None or _DATE.match(found[0]) or not re.search("[1-9]", found[0]):
            continue
        if len(_canonical(found[0])) >= _LEAST_CHARACTERS:
            yield found[0]


def labelled(lines: Sequence[TextLine], field: str) -> Iterator[tuple[int, str]]:
    """Yield what stands after a field's label, with its line: the rest of that, or the nearest line right of it."""
    sure = [(number, line) for number, line in enumerate(lines) if line.score >= _LEAST_SCORE]
    for number, line in sure:
        for found in _LABELS[field].finditer(line.text):
            rest = line.text[found.end() :].strip()
            if rest:
                yield number, rest
            elif beside := [(other.x0_mm, place) for place, other in sure if _is_beside(line, other)]:
                nearest = min(beside)[1]
                yield nearest, lines[nearest].text.strip()


def agrees(field: str, printed: str, recorded: str) -> bool:
    """Return whether a printed value is the recorded one, for a person to look at: stricter than `contradictions`.

    Numbers are the same but for punctuation, leading zeros and characters of one shape; of names every word of the
    shorter one is alike to one of the other.
    """
    if field == "patient_name":
        fewer, more = sorted((_words(printed), _words(recorded)), key=len)
        return bool(fewer) and all(_share_a_word([[word]], more) for word in fewer)
    return printed == recorded if field == "patient_birth_date" else _canonical(printed) == _canonical(recorded)


def _is_beside(label: TextLine, value: TextLine) -> bool:
    middle = (value.y0_mm + value.y1_mm) / 2
    return label.y0_mm <= middle <= label.y1_mm and 0.0 <= value.x0_mm - label.x1_mm + 1.0 <= _BESIDE_MM


def _is_known(number: str, known: Sequence[str]) -> bool:
    printed = _canonical(number)
    return any(_alike(printed, _canonical(value)) for value in known if value)


def _canonical(text: str) -> str:
    """Return letters and figures alone, letters that look like figures as these, no zeros before them."""
    return re.sub(r"[^A-Z0-9]", "", text.upper()).translate(_ALIKE).lstrip("0")


def _alike(one: str, other: str) -> bool:
    if not one or not other:
        return True
    if min(len(one), len(other)) >= _LEAST_CHARACTERS - 1 and (one in other or other in one):
        return True
    return _edits(one, other) <= max(1, max(len(one), len(other)) // 5)


def _edits(one: str, other: str) -> int:
    """Return how many characters must be inserted, left out, changed or swapped with their neighbour."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        following = [i]
        for j, b in enumerate(other, start=1):
            cost = min(row[j] + 1, following[j - 1] + 1, row[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            following.append(cost)
        before, row = row, following
    return row[-1]


def _is_another_name(lines: Sequence[TextLine], name: str) -> bool:
    recorded = _words(name)
    printed = [words for _, value in labelled(lines, "patient_name") if len(words := _words(value)) >= 2]
    return bool(recorded and printed) and not _share_a_word(printed, recorded)


def _share_a_word(printed: Sequence[Sequence[str]], recorded: Sequence[str]) -> bool:
    return any(
        word in known or known in word or _edits(word, known) <= max(1, len(known) // 3)
        for words in printed
        for word in words
        for known in recorded
    )


def _words(name: str) -> list[str]:
    """Return a name's words of three or more Latin letters, without accents, in lower case."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)).casefold()
    return re.findall("[a-z]{3,}", plain)
