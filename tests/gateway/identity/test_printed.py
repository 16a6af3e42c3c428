"""What a page prints, beside the record: what a reviewer compares."""

from __future__ import annotations

import pytest

from gateway.domain.context import StudyContext
from gateway.identity.printed import compare, line_of_date
from pipeline import TextLine


def lines(*texts):
    return [
        TextLine(text=t, x0_mm=5, y0_mm=20 * k, x1_mm=35, y1_mm=20 * k + 3, score=0.95) for k, t in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("printed", "day"),
    [
        ("2026-03-14 09:32", "20260314"),
        ("Date2026-03-1409:32", "20260314"),  # as it may be read
        ("14.03.2026 09:32:10", "20260314"),
        ("14-Mar-2026 9:32 PM", "20260314"),
        ("03/14/2026 12:05 AM", "20260314"),
    ],
)
def test_line_that_has_the_date(printed, day):
    assert line_of_date(lines("DOB: 2026-03-14", "ECG 12", printed), day) == 2
    assert line_of_date(lines("ECG 12", printed), "20260315") is None


@pytest.mark.parametrize(
    ("field", "printed", "recorded", "differs"),
    [
        ("patient_id", "Patient ID: 0012345", "12345", False),
        ("patient_id", "Patient ID: 12346", "12345", True),  # a slip of reading: a person looks
        ("patient_id", "MRN: O12345", "012345", False),
        ("patient_id", "Patient ID: 12345", "", False),
        ("patient_name", "Name: MULLER, ANN", "Müller^Ann Maria", False),
        ("patient_name", "Name: OTHERMAN, JOE", "Muster^Zoe", True),
        ("patient_birth_date", "DOB 04.05.1961", "19610504", False),
        ("patient_birth_date", "Date of birth: 1961-05-05", "19610504", True),
        ("accession_number", "Acc. No 778", "779", True),
    ],
)
def test_differences_are_marked(field, printed, recorded, differs):
    compared = {each.field: each for each in compare(lines(printed), StudyContext(**{field: recorded}))}
    assert compared[field].printed is not None
    assert compared[field].differs is differs
    assert not any(each.differs for name, each in compared.items() if name != field)


def test_number_from_before_a_merge_is_no_difference():
    (number, *_) = compare(lines("Patient ID: 55555"), StudyContext(patient_id="77777"), ["55555"])
    assert not number.differs
