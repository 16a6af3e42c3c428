"""From preliminary to final to corrected: what destinations are told as a result is looked at and made again."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from pypdfium2 import PdfDocument

from gateway.domain.artefact import Role, kept_name
from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import DeliveryRefused, IllegalTransition
from gateway.intake.accept import Intake
from gateway.results.confirmation import confirm, known_context
from gateway.settings import DicomDestination, Hl7Destination, Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.worker.worker import Worker
from tests.fake_digitizer import Behaviour, FakeDigitizer, page_png

PACS = DicomDestination(name="pacs", host="127.0.0.1", port=104, ae_title="PACS")
EHR = Hl7Destination(name="ehr", host="127.0.0.1", port=2575, report="embed")


class Bench:
    """A gateway whose deliveries arrive when the test says so."""

    def __init__(self, store: Store, spool: Spool, intake: Intake, *destinations: object) -> None:
        self.store, self.spool, self._intake = store, spool, intake
        self.settings = Settings.model_validate({"destinations": destinations or (PACS, EHR)})
        self.worker = Worker(self.settings, store, spool, FakeDigitizer(), name="w1")

    def digitized(self, behaviour: Behaviour = Behaviour.GOOD, patient_id: str = "P1") -> str:
        data = page_png(behaviour)
        job_id = self._intake.accept(
            ReceivedObject(
                source="submit",
                source_key="key",
                media_type="image/png",
                data=data,
                context=StudyContext(patient_id=patient_id),
                destinations=None,
                actor="test",
            )
        ).job_id
        if not patient_id:
            self.store.jobs.retry(job_id, "test")
        assert self.worker.run_once()
        return job_id

    def deliver(self, job_id: str) -> None:
        for delivery in self.store.deliveries.of_job(job_id):
            if delivery.status == DeliveryStatus.PENDING:
                self.store.deliveries.delivered(delivery.id, "AA")

    def messages(self, job_id: str) -> list[tuple[str, str, DeliveryStatus]]:
        """(OBR-25 in the file, status in the row, delivery status) of every message, in order."""
        found = []
        for delivery in self.store.deliveries.of_job(job_id):
            if delivery.kind == "hl7":
                text = self.spool.read(job_id, delivery.artefact).decode()
                obr = next(line for line in text.split("\r") if line.startswith("OBR"))
                assert delivery.identifier in text
                found.append((obr.split("|")[25], delivery.result_status, delivery.status))
        return found

    def confirm(self, job_id: str) -> None:
        confirm(self.store, self.spool, self.settings, job_id, "web")


@pytest.fixture
def bench(store: Store, spool: Spool, intake: Intake) -> Bench:
    return Bench(store, spool, intake)


def test_preliminary_then_final(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.deliver(job_id)
    bench.confirm(job_id)
    assert bench.messages(job_id) == [("P", "P", "DELIVERED"), ("F", "F", "PENDING")]
    assert [d.status for d in bench.store.deliveries.of_job(job_id) if d.kind == "dicom"] == ["DELIVERED"]  # sent once
    assert (bench.store.jobs.get(job_id).status, bench.store.jobs.get(job_id).confirmed_by) == (JobStatus.DONE, "web")
    assert "CONFIRM" in [event.action for event in bench.store.jobs.events(job_id)]


def test_final_takes_the_place_of_a_preliminary_that_still_waits(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.confirm(job_id)
    assert bench.messages(job_id) == [("P", "P", "CANCELLED"), ("F", "F", "PENDING")]
    assert [d.status for d in bench.store.deliveries.of_job(job_id) if d.kind == "dicom"] == ["PENDING"]


def test_confirmed_twice_is_sent_once(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.confirm(job_id)
    bench.deliver(job_id)
    bench.confirm(job_id)
    assert [status for _, _, status in bench.messages(job_id)] == ["CANCELLED", "DELIVERED"]


def test_doubtful_result_leaves_when_it_is_confirmed(bench: Bench) -> None:
    job_id = bench.digitized(Behaviour.DOUBTFUL)
    assert bench.store.deliveries.of_job(job_id) == []
    bench.confirm(job_id)
    assert bench.messages(job_id) == [("F", "F", "PENDING")]
    (waveform,) = [d for d in bench.store.deliveries.of_job(job_id) if d.kind == "dicom"]
    assert waveform.identifier == bench.store.jobs.pages(job_id)[0].waveform_sop_instance_uid
    assert bench.spool.has(job_id, waveform.artefact)
    assert bench.store.jobs.get(job_id).status == JobStatus.DONE


def test_another_run_after_a_delivery_is_a_correction(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.deliver(job_id)
    bench.confirm(job_id)
    bench.deliver(job_id)
    bench.store.jobs.retry(job_id, "web")
    assert bench.store.jobs.get(job_id).confirmed_by == ""
    bench.worker.run_once()
    bench.deliver(job_id)
    bench.confirm(job_id)
    assert [status for status, _, _ in bench.messages(job_id)] == ["P", "F", "C", "C"]
    identifiers = [d.identifier for d in bench.store.deliveries.of_job(job_id)]
    assert len(set(identifiers)) == len(identifiers)


def test_each_document_names_the_one_it_takes_the_place_of(store: Store, spool: Spool, intake: Intake) -> None:
    archive = Hl7Destination(name="documents", host="127.0.0.1", port=2575, message="MDM^T02")
    bench = Bench(store, spool, intake, archive)
    job_id = bench.digitized()
    bench.deliver(job_id)
    bench.confirm(job_id)
    bench.deliver(job_id)
    bench.store.jobs.retry(job_id, "web")
    bench.worker.run_once()
    numbers = []
    for delivery in bench.store.deliveries.of_job(job_id):
        text = spool.read(job_id, delivery.artefact).decode()
        (txa,) = [line.split("|") for line in text.split("\r") if line.startswith("TXA")]
        numbers.append([number.partition("^")[0] for number in txa[12:14]])
    (first, second, third) = (delivery.identifier for delivery in bench.store.deliveries.of_job(job_id))
    assert numbers == [[first, ""], [second, first], [third, second]]


def test_another_run_of_what_nobody_was_told_is_no_correction(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.store.jobs.retry(job_id, "web")
    bench.worker.run_once()
    assert bench.messages(job_id) == [("P", "P", "PENDING")]


def embedded(text: str) -> bytes:
    (field,) = [line.split("|")[5] for line in text.split("\r") if line.startswith("OBX") and "|ED|" in line]
    assert field.startswith("^application^pdf^Base64^")
    return base64.b64decode(field.split("^")[4])


def test_the_report_is_embedded_unconfirmed_then_confirmed(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.confirm(job_id)
    messages = [each for each in bench.store.deliveries.of_job(job_id) if each.kind == "hl7"]
    pdfs = [embedded(bench.spool.read(job_id, each.artefact).decode()) for each in messages]
    assert [pdf[:5] for pdf in pdfs] == [b"%PDF-"] * 2
    assert pdfs[1] == bench.spool.read(job_id, kept_name(1, Role.REPORT_PDF))
    texts = [PdfDocument(pdf)[0].get_textpage().get_text_range() for pdf in pdfs]
    assert "DIGITIZED FROM PAPER, unconfirmed" in texts[0]
    assert "DIGITIZED FROM PAPER, confirmed by a person" in texts[1]


@pytest.mark.parametrize("reason", ["failed", "nobody", "queued", "files"])
def test_what_cannot_be_confirmed(bench: Bench, reason: str) -> None:
    if reason == "failed":
        job_id = bench.digitized(Behaviour.NO_ECG)
    elif reason == "nobody":
        job_id = bench.digitized(patient_id="")
    else:
        job_id = bench.digitized()
    if reason == "queued":
        bench.store.jobs.retry(job_id, "test")
    if reason == "files":
        bench.spool.remove(job_id)
    before = bench.store.jobs.get(job_id).status
    with pytest.raises(IllegalTransition):
        bench.confirm(job_id)
    assert bench.store.jobs.get(job_id).status == before


def test_message_that_cannot_be_made_changes_nothing(store: Store, spool: Spool, intake: Intake) -> None:
    bench = Bench(store, spool, intake, EHR)
    job_id = bench.digitized()
    bench.settings = Settings(destinations=(EHR.model_copy(update={"sending_facility": "H^1^ISO^4^5"}),))
    with pytest.raises(DeliveryRefused):
        bench.confirm(job_id)
    assert bench.messages(job_id) == [("P", "P", "PENDING")]


def test_known_context_of_a_file_that_is_gone(bench: Bench, tmp_path: Path) -> None:
    job = bench.store.jobs.get(bench.digitized())
    job.media_type = "application/dicom"
    bench.spool.remove(job.id)
    with pytest.raises(IllegalTransition, match="gone"):
        known_context(job, bench.spool)
