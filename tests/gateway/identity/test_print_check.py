"""Print against record: only what plainly names another patient or order counts."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.patients import PatientMerge, PatientUpdate
from gateway.domain.received import InboundMessage, ReceivedObject
from gateway.domain.status import JobStatus
from gateway.identity.orders import Records
from gateway.identity.print_check import OTHER_ACCESSION_NUMBER, OTHER_NAME, OTHER_PATIENT_ID, contradictions
from gateway.intake.accept import Intake
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.worker.worker import Worker
from pipeline import Calibration, Digitization, PageImage, TextLine
from tests.fake_digitizer import FakeDigitizer, page_png

RECORD = StudyContext(
    patient_id="0012345678", accession_number="A-2026-0815", study_id="77441", patient_name="Müller^Jo Ann^^Dr="
)


def line(text: str, *, x0: float = 10.0, y0: float = 10.0, score: float = 0.95) -> TextLine:
    return TextLine(text=text, x0_mm=x0, y0_mm=y0, x1_mm=x0 + 2.0 * len(text), y1_mm=y0 + 3.0, score=score)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ID: 87654321", OTHER_PATIENT_ID),
        ("Patient ID 87654321", OTHER_PATIENT_ID),
        ("PatientID:87654321", OTHER_PATIENT_ID),
        ("Pat. ID: 87-654-321 Age 60", OTHER_PATIENT_ID),
        ("DOE, JANE MRN# 87654321", OTHER_PATIENT_ID),
        ("Accession No.: B-1999-4711", OTHER_ACCESSION_NUMBER),
        ("Acc.# B19994711", OTHER_ACCESSION_NUMBER),
        ("Name: Schmidt, Karl", OTHER_NAME),
        ("PATIENT NAME: SCHMIDT KARL", OTHER_NAME),
    ],
)
def test_another_patient_or_order_in_plain_print_holds(text: str, reason: str) -> None:
    assert contradictions([line("25 mm/s 10 mm/mV"), line(text)], RECORD) == (reason,)


@pytest.mark.parametrize(
    "text",
    [
        "ID: 12345678",  # leading zeros are not printed
        "ID: 0012345678",
        "ID: OO1234S678",  # letters for figures
        "ID: 1234567",  # the last one faded
        "ID: 12345978",  # one figure apart in eight
        "ID: 12345687",  # swapped
        "ID: 0012345678Age:60",  # the space was not seen
        "ID: A-2026-0815",  # the order's number under the patient's label
        "ID: 77441",
        "ID:",
        "ID: ______",
        "ID: 0000000",
        "ID: unknown",
        "ID: 123",  # too short to be anyone's
        "ID: 01-02-1960",
        "ID: 12-Jan-1960",
        "87654321",  # no label
        "Device ID: 87654321",
        "Operator ID 87654321",
        "Cart ID:87654321",
        "Identification 87654321",
        "Rapid 87654321",
        "Vent. rate 61 BPM",
        "Acc. 25 mm/s",
        "Name: Muller, Jo",  # an accent
        "Name: MULLFR, JO",  # a slip
        "Name: JoAnn Smith",  # married, or not: one word agrees
        "Hospital name: Schmidt Karl",
        "Name: Schmidt",  # one word says too little
        "Name:",
    ],
)
def test_slips_and_other_print_do_not_hold(text: str) -> None:
    assert contradictions([line(text)], RECORD) == ()


def test_print_that_was_read_badly_does_not_hold() -> None:
    assert contradictions([line("ID: 87654321", score=0.7)], RECORD) == ()


def test_value_right_of_its_label_counts_and_one_elsewhere_does_not() -> None:
    label = line("Patient ID:", x0=10.0)
    assert contradictions([label, line("87654321", x0=36.0)], RECORD) == (OTHER_PATIENT_ID,)
    assert contradictions([label, line("87654321", x0=36.0, y0=20.0)], RECORD) == ()
    assert contradictions([label, line("87654321", x0=120.0)], RECORD) == ()


def test_a_number_that_agrees_silences_its_other_readings_and_the_name() -> None:
    page = [line("ID: 12345678"), line("MRN 99999999", y0=20.0), line("Name: Schmidt, Karl", y0=30.0)]
    assert contradictions(page, RECORD) == ()


def test_what_the_record_does_not_have_is_not_contradicted() -> None:
    page = [line("ID: 87654321"), line("Accession: B-1999-4711", y0=20.0), line("Name: Schmidt, Karl", y0=30.0)]
    assert contradictions(page, StudyContext()) == ()
    assert contradictions(page, StudyContext(patient_id="1", patient_name="山田^太郎")) != ()
    assert contradictions(page[2:], StudyContext(patient_id="1", patient_name="山田^太郎")) == ()


def test_reasons_hold_no_patient_data() -> None:
    page = [line("ID: 87654321"), line("Accession: B-1999-4711", y0=20.0), line("Name: Schmidt, Karl", y0=30.0)]
    reasons = contradictions(page, RECORD)
    assert reasons == (OTHER_PATIENT_ID, OTHER_ACCESSION_NUMBER, OTHER_NAME)
    assert not any(word in "; ".join(reasons) for word in ("87654321", "12345678", "4711", "Schmidt", "Müller"))


class Reader(FakeDigitizer):
    """A digitizer that finds print on every page."""

    def __init__(self, *text: TextLine) -> None:
        self._text = text

    def digitize(self, page: PageImage, *, default_calibration: Calibration, **more: Any) -> Digitization:
        return replace(super().digitize(page, default_calibration=default_calibration, **more), text=self._text)


def run(tmp_path: Path, store: Store, spool: Spool, intake: Intake, **review: bool) -> str:
    pacs = {"kind": "dicom", "name": "pacs", "host": "127.0.0.1", "port": 104, "ae_title": "PACS"}
    settings = Settings.model_validate({"destinations": [pacs], "storage": {"path": tmp_path}, "review": review})
    job_id = intake.accept(
        ReceivedObject(
            source="submit",
            source_key="1",
            media_type="image/png",
            data=page_png(),
            context=RECORD,
            destinations=None,
            actor="test",
        )
    ).job_id
    Worker(settings, store, spool, Reader(line("ID: 87654321")), name="w").run_once()
    return job_id


def test_contradicted_page_is_held_until_it_is_confirmed(
    tmp_path: Path, store: Store, spool: Spool, intake: Intake, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    job_id = run(tmp_path, store, spool, intake, deliver_doubtful=True)
    job = store.jobs.get(job_id)
    assert (job.status, job.reason) == (JobStatus.NEEDS_REVIEW, OTHER_PATIENT_ID)
    assert store.deliveries.of_job(job_id) == []
    assert store.jobs.pages(job_id)[0].waveform_sop_instance_uid
    said = caplog.text + "".join(event.detail for event in store.jobs.events(job_id))
    assert "87654321" not in said and "12345678" not in said


def test_site_whose_carts_print_other_numbers_may_say_so(
    tmp_path: Path, store: Store, spool: Spool, intake: Intake
) -> None:
    job_id = run(tmp_path, store, spool, intake, check_print=False)
    assert store.jobs.get(job_id).status == JobStatus.DONE
    assert len(store.deliveries.of_job(job_id)) == 1


def test_number_that_was_merged_into_the_records_is_no_other(store: Store) -> None:
    prior, surviving = PatientUpdate(patient_id="87654321"), PatientUpdate(patient_id=RECORD.patient_id)
    message = InboundMessage(
        sending_application="",
        sending_facility="",
        control_id="1",
        digest="",
        message_type="ADT^A40",
        data=b"",
        answer=b"",
        received_at=utc_now(),
    )
    Records(store).receive(message, [PatientMerge(prior=prior, surviving=surviving)], utc_now())
    merged = store.patients.prior_ids(RECORD.patient_id)
    assert merged == ("87654321",)
    assert contradictions([line("ID: 87654321")], RECORD, merged) == ()
    assert store.patients.prior_ids("nobody") == ()
