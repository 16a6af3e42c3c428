"""A person corrects a page: stored with the job, digitized before the others, sent when it is confirmed."""

from __future__ import annotations

import json
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pypdfium2 import PdfDocument

from gateway.domain.artefact import Role, kept_name
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import IllegalTransition, NotFound
from gateway.intake.accept import Intake
from gateway.results.kept import read_result
from gateway.results.person import correct, corrections_of
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Job
from pipeline import Act, CorrectionError, Corrections, Digitization, Lead, PageImage, parse_corrections
from pipeline.errors import LayoutUnknown
from tests.fake_digitizer import Behaviour, FakeDigitizer
from tests.gateway.results.test_confirmation import Bench


@pytest.fixture
def bench(store: Store, spool: Spool, intake: Intake) -> Bench:
    return Bench(store, spool, intake)


def corrected(bench: Bench, job_id: str, version: int | None = None, **content: Any) -> None:
    correct(bench.store, bench.settings, job_id, {1: parse_corrections(content)}, "dr.lee", version)


def test_a_corrected_result_waits_and_leaves_as_a_correction(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.deliver(job_id)
    corrected(bench, job_id, paper_speed_mm_per_s=50, left_out=["V6"])
    job = bench.store.jobs.get(job_id)
    assert (job.status, job.revision, job.urgent, job.reason) == (JobStatus.QUEUED, 1, True, "")
    said = {"paper_speed_mm_per_s": 50.0, "left_out": ["V6"]}
    assert json.loads(job.corrections_json) == {"1": said}
    assert bench.worker.run_once()
    job = bench.store.jobs.get(job_id)
    assert (job.status, job.urgent) == (JobStatus.NEEDS_REVIEW, False)
    assert job.reason == "corrected by a person: the result leaves when it is confirmed"
    assert [each.status for each in bench.store.deliveries.of_job(job_id)] == [DeliveryStatus.DELIVERED] * 2
    bench.confirm(job_id)
    pending = [each for each in bench.store.deliveries.of_job(job_id) if each.status == DeliveryStatus.PENDING]
    assert [(each.kind, each.revision) for each in pending] == [("dicom", 1), ("hl7", 1), ("dicom", 1)]
    assert [each.role for each in pending][-1] == Role.REJECTION
    assert bench.messages(job_id)[-1] == ("C", "C", "PENDING")


def test_the_trail_says_who_corrected_what(bench: Bench) -> None:
    job_id = bench.digitized()
    corrected(bench, job_id, layout="3x4", paper_speed_mm_per_s=50, rhythm=[])
    (event,) = [each for each in bench.store.jobs.events(job_id) if each.action == "CORRECT"]
    assert (event.actor, event.detail) == ("dr.lee", "page 1: layout 3x4, rhythm, paper_speed_mm_per_s 50.0")


def test_the_object_names_the_samples_that_a_person_left_out(bench: Bench) -> None:
    job_id = bench.digitized()
    corrected(bench, job_id, left_out=["V6"])
    assert bench.worker.run_once()
    (page,) = bench.store.jobs.pages(job_id)
    record, _ = read_result(bench.spool.read(job_id, kept_name(1, Role.RECORD)), page.quality_json)
    (part,) = record.by_person
    assert (part.act, part.lead, part.first_sample, part.stop_sample) == (Act.LEFT_OUT, Lead.V6, 3750, 5000)
    dataset = dcmread(BytesIO(bench.spool.read(job_id, "page-1.12-lead.dcm")))
    (said,) = [
        item for item in dataset.WaveformAnnotationSequence if "did not accept" in item.get("UnformattedTextValue", "")
    ]
    assert (list(said.ReferencedWaveformChannels), list(said.ReferencedSamplePositions)) == ([1, 12], [3751, 5000])
    assert said.TemporalRangeType == "SEGMENT"
    bench.confirm(job_id)
    message = next(name for name in bench.store.deliveries.of_job(job_id) if name.kind == "hl7" and name.final)
    text = bench.spool.read(job_id, message.artefact).decode()
    assert "Not accepted by a person, left out: V6 7.5-10.0 s" in text
    report = bench.spool.read(job_id, kept_name(1, Role.REPORT_PDF))
    assert "Not accepted by a person, left out: V6" in PdfDocument(report)[0].get_textpage().get_text_range()
    provenance = dataset.WaveformAnnotationSequence[0].UnformattedTextValue
    corrected(bench, job_id, paper_speed_mm_per_s=50)
    assert bench.worker.run_once()
    dataset = dcmread(BytesIO(bench.spool.read(job_id, "page-1.12-lead.dcm")))
    assert "stated by a person" in dataset.WaveformAnnotationSequence[0].UnformattedTextValue
    assert "stated by a person" not in provenance


def test_a_corrected_job_is_claimed_before_older_ones(bench: Bench) -> None:
    job_id = bench.digitized()
    created_at = bench.store.jobs.get(job_id).created_at - timedelta(hours=1)
    older, _ = bench.store.jobs.submit(
        Job(source="submit", source_key="older", media_type="image/png", created_at=created_at), "test"
    )
    corrected(bench, job_id, paper_speed_mm_per_s=50)
    claimed = [bench.store.jobs.claim("w2", 60.0) for _ in range(2)]
    assert [each.id for each in claimed if each] == [job_id, older.id]
    assert bench.store.jobs.get(job_id).urgent


def test_a_stale_form_is_told_what_changed(bench: Bench) -> None:
    job_id = bench.digitized()
    version = bench.store.jobs.version(job_id)
    bench.deliver(job_id)  # changes nothing of the result
    assert bench.store.jobs.version(job_id) == version
    bench.confirm(job_id)
    with pytest.raises(IllegalTransition, match=r"has changed in the meantime: CONFIRM by web at \d\d:\d\d"):
        corrected(bench, job_id, version, layout="3x4")
    assert bench.store.jobs.get(job_id).corrections_json == "{}"
    corrected(bench, job_id, bench.store.jobs.version(job_id), layout="3x4")
    assert bench.store.jobs.get(job_id).confirmed_by == ""


def test_what_does_not_fit_is_refused_and_changes_nothing(bench: Bench) -> None:
    job_id = bench.digitized()
    for content, field in (
        ({"layout": "9x9"}, "layout"),
        ({"layout": "6x2", "leads": [["I", "II"]]}, "leads"),
        ({"rhythm": ["II"]}, "rhythm"),
        ({"crop_px": [0, 0, 500, 20]}, "crop_px"),
    ):
        with pytest.raises(CorrectionError) as caught:
            corrected(bench, job_id, **content)
        assert caught.value.broken[0].field == field
    with pytest.raises(NotFound, match="no page 2 that was digitized"):
        correct(bench.store, bench.settings, job_id, {2: Corrections(layout="3x4")}, "web")
    assert (bench.store.jobs.get(job_id).status, bench.store.jobs.get(job_id).attempts) == (JobStatus.DONE, 1)


def test_a_running_job_cannot_be_corrected(bench: Bench) -> None:
    job_id = bench.digitized()
    corrected(bench, job_id, layout="3x4")
    with pytest.raises(IllegalTransition, match="a QUEUED job cannot CORRECT"):
        corrected(bench, job_id, layout="3x4")
    bench.store.jobs.claim("w2", 60.0)
    with pytest.raises(IllegalTransition, match="a RUNNING job cannot CORRECT"):
        corrected(bench, job_id, layout="3x4")


def test_a_correction_the_page_cannot_follow_names_the_rule(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.store.jobs.correct(bench.store.jobs.get(job_id), '{"1": {"layout": "none"}}', "web", "", None)
    assert bench.worker.run_once()
    job = bench.store.jobs.get(job_id)
    assert (job.status, job.reason) == (JobStatus.FAILED, "layout is 'none': does not fit the page")
    corrected(bench, job_id, layout="3x4")  # and can be corrected again
    assert bench.worker.run_once() and bench.store.jobs.get(job_id).status == JobStatus.NEEDS_REVIEW


def test_corrections_stay_until_they_are_taken_back(bench: Bench) -> None:
    job_id = bench.digitized(Behaviour.DOUBTFUL)
    corrected(bench, job_id, layout="3x4")
    assert bench.worker.run_once()
    bench.store.jobs.retry(job_id, "web")
    assert corrections_of(bench.store.jobs.get(job_id)) == {1: Corrections(layout="3x4")}
    assert bench.worker.run_once()
    corrected(bench, job_id)
    assert bench.store.jobs.get(job_id).corrections_json == "{}"
    assert bench.store.jobs.events(job_id)[-1].detail == "page 1: nothing any more"


def test_an_earlier_reading_is_handed_to_the_digitizer_for_a_correction_only(bench: Bench) -> None:
    known: list[bytes] = []

    class Watching(FakeDigitizer):
        def digitize(self, page: PageImage, **asked: Any) -> Digitization:
            known.append(asked["known"])
            asked["keep"](b"a reading")
            if len(known) == 1:
                raise LayoutUnknown("no layout")
            return super().digitize(page, **asked)

    bench.worker._digitizer = Watching()
    job_id = bench.digitized()
    assert bench.store.jobs.get(job_id).status == JobStatus.FAILED
    bench.store.jobs.retry(job_id, "web")
    assert bench.worker.run_once()
    corrected(bench, job_id, layout="3x4")
    assert bench.worker.run_once()
    assert known == [b"", b"", b"a reading"]
