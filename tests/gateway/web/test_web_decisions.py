"""Forms of the admin page: whose ECG it is, that a result is right, that a merge is done; and who may not post."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.patients import OrderUpdate, PatientUpdate
from gateway.domain.received import InboundMessage, ReceivedObject
from gateway.domain.status import JobStatus
from gateway.hl7.inbound.receiver import Receiver
from gateway.identity.decide import decide
from gateway.identity.forms import check_context
from gateway.identity.orders import Records
from gateway.intake.accept import Intake
from gateway.settings import Hl7Destination, Settings, WebSettings
from gateway.spool.folder import Spool
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.worker.worker import Worker
from tests.fake_digitizer import FakeDigitizer, page_pixels, page_png
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.gateway.web.browsing import Browser, browser, site

OURSELVES = f"{pwd.getpwuid(os.getuid()).pw_name}@localhost"  # while there are no accounts
EHR = Hl7Destination(name="ehr", host="127.0.0.1", port=2575)


def settings(**web: object) -> Settings:
    return Settings(web=WebSettings(**web), destinations=(EHR,))


@contextmanager
def opened(store: Store, spool: Spool, **web: object) -> Iterator[Browser]:
    with site(store, spool, settings(**web)) as url, browser(url) as client:
        yield client


@pytest.fixture
def client(store: Store, spool: Spool) -> Iterator[Browser]:
    with opened(store, spool) as client:
        yield client


def submit(intake: Intake, data: bytes, media_type: str = "image/png", **context: str) -> str:
    return intake.accept(
        ReceivedObject(
            source="folder:/scans",
            source_key=f"key-{len(data)}-{sorted(context)}",
            media_type=media_type,
            data=data,
            context=StudyContext(**context),
            destinations=None,
            actor="folder",
        )
    ).job_id


def digitize(store: Store, spool: Spool) -> None:
    assert Worker(settings(), store, spool, FakeDigitizer(), name="w").run_once()


def context_of(store: Store, job_id: str) -> StudyContext:
    return store.jobs.get(job_id).context


def test_unmatched_lists_what_waits_without_patients(client, store, intake):
    job_id = submit(intake, page_png(), accession_number="ACC-SECRET")
    html = client.get("/unmatched").text
    assert job_id[:8] in html and "no order has this accession number yet" in html
    assert "ACC-SECRET" not in html
    assert '<form method="post" action="/jobs/' in client.get(f"/jobs/{job_id}").text


def test_nothing_waits(client):
    assert "Every job has its patient" in client.get("/unmatched").text


def test_person_names_the_patient_of_a_scan(client, store, intake):
    job_id = submit(intake, page_png(), accession_number="A1")
    told = {"patient_id": " P1 ", "patient_name": "Müster^Zoë", "patient_birth_date": "19610504", "patient_sex": "F"}
    answer = client.post(f"/jobs/{job_id}/identity", data=told)
    assert answer.status_code == 200 and answer.url.path == f"/jobs/{job_id}"
    context = context_of(store, job_id)
    assert (context.patient_id, context.patient_name, context.accession_number) == ("P1", "Müster^Zoë", "A1")
    assert (store.jobs.get(job_id).status, store.jobs.unmatched()) == (JobStatus.QUEUED, [])
    assert ("IDENTIFY", OURSELVES) in [(event.action, event.actor) for event in store.jobs.events(job_id)]


@pytest.mark.parametrize(
    "kept",
    [
        PatientUpdate(patient_id="P\x1c1", patient_name="Müster^Zoë"),
        PatientUpdate(patient_id="P\\1"),
        PatientUpdate(patient_id="P" * 65),
        PatientUpdate(patient_id="P1", patient_name="N" * 65 + "^Zoë"),
    ],
)
def test_person_mends_what_was_kept_before_values_were_checked(client, store, intake, kept):
    order = OrderUpdate(patient=kept, accession_number="A1")
    message = InboundMessage(
        sending_application="",
        sending_facility="",
        control_id="1",
        digest="",
        message_type="ORM^O01",
        data=b"",
        answer=b"",
        received_at=utc_now(),
    )
    store.patients.receive(message, [order], utc_now(), decide)
    stated = {name: value for name, value in kept.model_dump().items() if value}
    spoiled = submit(intake, page_png(), **stated)  # has been given these values already
    waiting = submit(intake, page_png(), accession_number="A1")
    while (job := store.jobs.claim("w", 60)) is not None:
        store.jobs.complete(job.id, "w", JobResult(status=JobStatus.FAILED, reason="PatientID", pages=[]))
    for job_id in (spoiled, waiting):
        told = {"patient_id": "P1", "patient_name": "Müster^Zoë", "accession_number": "A1"}
        assert client.post(f"/jobs/{job_id}/identity", data=told).status_code == 200
        context = context_of(store, job_id)
        assert (context.patient_id, context.patient_name) == ("P1", "Müster^Zoë")
        check_context(context, "it")


def test_held_dicom_job_without_patient_id_gets_one_and_is_delivered(client, store, spool, intake):
    dataset = secondary_capture(page_pixels())
    dataset.PatientID = ""
    data = part10(dataset)
    job_id = submit(intake, data, "application/dicom", patient_name=str(dataset.PatientName))
    assert store.jobs.get(job_id).status == JobStatus.NEEDS_REVIEW
    client.post(f"/jobs/{job_id}/identity", data={"patient_id": "P1"})
    digitize(store, spool)
    assert store.jobs.get(job_id).status == JobStatus.DONE
    (message,) = store.deliveries.of_job(job_id)
    text = spool.read(job_id, message.artefact).decode()
    assert "|P1^^^" in text and str(dataset.PatientName).split("^")[0] in text


def test_person_names_another_patient_than_the_object(client, store, spool, intake):
    """Nothing that the object says of the wrong patient is kept."""
    Receiver(Records(store), "ASCII")(
        b"MSH|^~\\&|A|B|C|D|||ORM^O01|1|P|2.5\rPID|1||P1||Right^Ann\rORC|NW|O1\rOBR|1|O1||E||||||||||||||A1\r"
    )
    dataset = secondary_capture(page_pixels(), PatientID="P9", PatientName="Wrong^Joe", PatientBirthDate="19700101")
    told = {"patient_id": "P9", "patient_name": "Wrong^Joe", "patient_birth_date": "19700101"}
    job_id = submit(intake, part10(dataset), "application/dicom", accession_number="A1", **told)
    assert "another patient" in store.jobs.get(job_id).reason
    client.post(f"/jobs/{job_id}/identity", data={"patient_id": "P1"})
    digitize(store, spool)
    text = spool.read(job_id, store.deliveries.of_job(job_id)[0].artefact).decode()
    assert "|P1^^^" in text and "Right^Ann" in text
    assert "Wrong" not in text and "19700101" not in text


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "no patient ID"),
        ({"patient_id": "P1", "patient_birth_date": "4.5.1961"}, "patient_birth_date must be a date"),
        ({"patient_id": "P1", "patient_sex": "X"}, "patient_sex must be"),
        ({"patient_id": "P7", "patient_name": "Other^Joe"}, "another family name"),
    ],
)
def test_identity_that_cannot_be_used_changes_nothing(client, store, intake, told, words):
    Receiver(Records(store), "ASCII")(b"MSH|^~\\&|A|B|C|D|||ADT^A08|1|P|2.5\rPID|1||P7||Right^Ann\r")
    job_id = submit(intake, page_png())
    answer = client.post(f"/jobs/{job_id}/identity", data=told)
    assert answer.status_code == 409 and words in answer.text
    assert store.jobs.get(job_id).status == JobStatus.NEEDS_REVIEW


def test_merge_is_settled(client, store, spool, intake):
    job_id = submit(intake, page_png(), patient_id="P-SECRET")
    digitize(store, spool)
    store.deliveries.delivered(store.deliveries.of_job(job_id)[0].id, "AA")
    Receiver(Records(store), "ASCII")(b"MSH|^~\\&|A|B|C|D|||ADT^A40|1|P|2.5\rPID|1||P2\rMRG|P-SECRET\r")
    html = client.get("/unmatched").text
    assert job_id[:8] in html and "P-SECRET" not in html
    with opened(store, spool, show_patient=True) as shown:
        assert "P-SECRET" in shown.get("/unmatched").text
    (target,) = re.findall(r'action="(/merges/\d+/settled)"', html)
    assert "None." in client.post(target).text
    assert store.patients.merge_notices() == []


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": ""}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_form_of_another_page_is_refused(client, store, intake, headers):
    job_id = submit(intake, page_png())
    answer = client.post(f"/jobs/{job_id}/identity", data={"patient_id": "P1"}, headers=headers)
    assert answer.status_code == 403
    assert store.jobs.get(job_id).status == JobStatus.NEEDS_REVIEW


def test_form_that_does_not_end(client, intake):
    job_id = submit(intake, page_png())
    assert client.post(f"/jobs/{job_id}/identity", content=b"x" * 300_000).status_code == 413


def test_page_that_is_offered_to_the_network_asks_for_a_log_in(store, spool, intake):
    job_id = submit(intake, page_png())
    with opened(store, spool, host="0.0.0.0") as client:
        for path in ("/", "/unmatched", f"/jobs/{job_id}", f"/jobs/{job_id}/source"):
            answer = client.get(path)
            assert (answer.status_code, job_id[:8] in answer.text.replace(path, "")) == (401, False)
        assert client.post(f"/jobs/{job_id}/identity", data={"patient_id": "P1"}).status_code == 401
    assert store.jobs.get(job_id).status == JobStatus.NEEDS_REVIEW


def test_file_as_it_was_received(client, spool, intake, tmp_path: Path):
    job_id = submit(intake, page_png())
    answer = client.get(f"/jobs/{job_id}/source")
    assert answer.content == page_png()
    assert answer.headers["content-disposition"].startswith("attachment")
    spool.remove(job_id)
    assert client.get(f"/jobs/{job_id}/source").status_code == 404
