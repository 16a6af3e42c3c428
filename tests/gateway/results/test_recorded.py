"""When an ECG was recorded: as stated, else as printed, else held; and it never silently leaves dated now."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.recorded import Origin, Recorded, believable, not_known, recorded
from gateway.domain.status import JobStatus
from gateway.errors import IllegalTransition, IntakeError
from gateway.identity.person import identify
from gateway.intake.accept import Intake
from gateway.results.confirmation import confirm
from gateway.settings import DicomDestination, Hl7Destination, Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.worker.worker import Worker
from pipeline import Calibration, Digitization, PageImage, PrintedValues
from tests.fake_digitizer import Behaviour, FakeDigitizer, page_png

PACS = DicomDestination(name="pacs", host="127.0.0.1", port=104, ae_title="PACS")
EHR = Hl7Destination(name="ehr", host="127.0.0.1", port=2575)
PRINTED = PrintedValues(recorded_on=date(2019, 3, 22), recorded_at=time(10, 15, 3))
AMBIGUOUS = PrintedValues(
    may_be_recorded_on=(date(2021, 3, 4), date(2021, 4, 3)),
    reasons=("nothing says whether the day or the month of the printed date comes first",),
)
NOTHING = PrintedValues()


class Printer(FakeDigitizer):
    """A digitizer that reads these values on every page."""

    def __init__(self, printed: PrintedValues) -> None:
        self._printed = printed

    def digitize(self, page: PageImage, *, default_calibration: Calibration, **more: Any) -> Digitization:
        return replace(super().digitize(page, default_calibration=default_calibration, **more), printed=self._printed)


class Bench:
    """One page through a gateway that delivers nothing."""

    def __init__(self, store: Store, spool: Spool, intake: Intake) -> None:
        self.store, self.spool, self._intake = store, spool, intake
        self.settings = Settings()
        self.job_id = ""

    def run(
        self, printed: PrintedValues, behaviour: Behaviour = Behaviour.GOOD, *, undated: str = "", **stated: str
    ) -> None:
        review = {"undated": undated} if undated else {}
        self.settings = Settings.model_validate({"destinations": [PACS, EHR], "review": review})
        received = ReceivedObject(
            source="submit",
            source_key="1",
            media_type="image/png",
            data=page_png(behaviour),
            context=StudyContext(patient_id="P1", **stated),
            destinations=None,
            actor="test",
        )
        self.job_id = self._intake.accept(received).job_id
        self.again(printed)

    def again(self, printed: PrintedValues) -> None:
        assert Worker(self.settings, self.store, self.spool, Printer(printed), name="w").run_once()

    @property
    def state(self) -> tuple[JobStatus, str]:
        job = self.store.jobs.get(self.job_id)
        return job.status, job.reason

    @property
    def sent(self) -> int:
        return len(self.store.deliveries.of_job(self.job_id))

    @property
    def waveform(self) -> Dataset:
        path = self.spool.path / self.job_id / "page-1.12-lead.dcm"
        return dcmread(io.BytesIO(path.read_bytes()))

    @property
    def words(self) -> str:
        return str(self.waveform.WaveformAnnotationSequence[0].UnformattedTextValue)

    def message(self, name: str = "page-1.ehr.hl7") -> str:
        return (self.spool.path / self.job_id / name).read_bytes().decode()

    def observed(self, name: str = "page-1.ehr.hl7") -> str:
        (obr,) = [segment for segment in self.message(name).split("\r") if segment.startswith("OBR")]
        return obr.split("|")[7]

    @property
    def notes(self) -> list[str]:
        return [event.detail for event in self.store.jobs.events(self.job_id) if event.action == "NOTE"]


@pytest.fixture
def bench(store: Store, spool: Spool, intake: Intake) -> Bench:
    return Bench(store, spool, intake)


@pytest.mark.parametrize(
    ("stated", "printed", "expected"),
    [
        ({"acquisition_date_time": "20190322101500+0100"}, PRINTED, ("20190322101500+0100", Origin.STATED, "")),
        ({"acquisition_date_time": "20200101"}, PRINTED, ("20200101", Origin.STATED, "20190322")),
        ({"acquisition_date_time": "20200101"}, AMBIGUOUS, ("20200101", Origin.STATED, "")),
        ({"study_date": "20200101", "study_time": "08"}, PRINTED, ("20190322101503", Origin.PRINTED, "")),
        ({}, PrintedValues(recorded_on=date(2019, 3, 22)), ("20190322", Origin.PRINTED, "")),
        ({"study_date": "20200101", "study_time": "08"}, AMBIGUOUS, ("2020010108", Origin.STUDY, "")),
        ({"study_time": "08"}, NOTHING, ("", Origin.UNKNOWN, "")),
    ],
)
def test_what_is_stated_comes_before_print_and_print_before_the_study(
    stated: dict[str, str], printed: PrintedValues, expected: tuple[str, Origin, str]
) -> None:
    at, origin, other_print = expected
    found = recorded(StudyContext(**stated), printed)
    assert found == Recorded(at=at, origin=origin, other_print=other_print)
    assert found.words.endswith("; the page prints 2019-03-22") == bool(other_print)


@pytest.mark.parametrize(
    ("day", "born", "reason"),
    [
        (date(2026, 3, 1), "20260301", ""),
        (date(2026, 3, 2), "", ""),  # a clock an hour ahead, at midnight
        (date(2026, 3, 3), "", "the printed date lies after the page was received"),
        (date(2019, 3, 22), "20190323", "the printed date lies before the patient's birth"),
    ],
)
def test_a_printed_date_that_cannot_be_is_not_believed(day: date, born: str, reason: str) -> None:
    received = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    printed = PrintedValues(recorded_on=day, recorded_at=time(1), heart_rate_per_minute=80)
    found = believable(printed, StudyContext(patient_birth_date=born), received)
    assert (found.recorded_on, found.reasons) == ((None, (reason,)) if reason else (day, ()))
    assert found.heart_rate_per_minute == 80 and (found.recorded_at is None) == bool(reason)


def test_the_printed_date_goes_into_object_and_message_and_is_said(bench: Bench) -> None:
    bench.run(PRINTED)
    assert bench.state == (JobStatus.DONE, "") and bench.sent == 2
    assert bench.waveform.AcquisitionDateTime == "20190322101503"
    assert "Time of recording: as printed on the page." in bench.words
    assert bench.observed() == "20190322101503"
    assert "Digitized from paper; unconfirmed; time of recording as printed on the page" in bench.message()
    assert bench.notes == ["page 1: time of recording as printed on the page"]  # and no date: it is the patient's
    (page,) = bench.store.jobs.pages(bench.job_id)
    assert json.loads(page.quality_json)["printed"]["recorded_on"] == "2019-03-22"
    confirm(bench.store, bench.spool, bench.settings, bench.job_id, "person")
    assert bench.observed("page-1.ehr.final.hl7") == "20190322101503"


def test_an_undated_page_waits_for_a_person_who_gives_the_date(bench: Bench) -> None:
    bench.run(NOTHING)
    status, reason = bench.state
    assert status == JobStatus.NEEDS_REVIEW and reason == not_known(NOTHING) and bench.sent == 0
    with pytest.raises(IllegalTransition, match=r"--recorded-at YYYYMMDDHHMMSS"):
        confirm(bench.store, bench.spool, bench.settings, bench.job_id, "person")
    assert bench.state == (status, reason) and bench.sent == 0
    with pytest.raises(IntakeError, match="acquisition_date_time must be a date-time"):
        identify(bench.store, bench.job_id, StudyContext(acquisition_date_time="22.3.2019"), "person")
    identify(bench.store, bench.job_id, StudyContext(acquisition_date_time="201903221015"), "person")
    bench.again(NOTHING)
    assert bench.state == (JobStatus.DONE, "") and bench.sent == 2
    assert bench.waveform.AcquisitionDateTime == bench.observed() == "201903221015"
    assert "Time of recording: as the source or a person states." in bench.words and bench.notes == []


def test_an_ambiguous_date_is_held_with_its_reason_and_without_the_date(bench: Bench) -> None:
    bench.run(AMBIGUOUS)
    status, reason = bench.state
    assert status == JobStatus.NEEDS_REVIEW and bench.sent == 0
    assert "whether the day or the month" in reason and "2021" not in reason


def test_a_site_may_send_undated_pages_with_the_time_of_receipt_which_is_said(bench: Bench) -> None:
    bench.run(NOTHING, undated="receipt")
    assert bench.state == (JobStatus.DONE, "") and bench.sent == 2
    received_at = bench.store.jobs.get(bench.job_id).created_at
    assert str(bench.waveform.AcquisitionDateTime).startswith(f"{received_at:%Y%m%d%H%M%S}")
    assert "Time of recording: not known, the time the gateway took the page is given." in bench.words
    assert bench.observed() == ""  # no message says a time that nobody knows
    assert bench.notes == ["page 1: time of recording not known, the time the gateway took the page is given"]


def test_doubtful_pages_that_may_leave_do_not_leave_undated(bench: Bench) -> None:
    bench.run(NOTHING, Behaviour.DOUBTFUL)
    bench.settings = Settings.model_validate({"destinations": [PACS, EHR], "review": {"deliver_doubtful": True}})
    bench.store.jobs.retry(bench.job_id, "test")
    bench.again(NOTHING)
    assert bench.state[0] == JobStatus.NEEDS_REVIEW and bench.sent == 0
    bench.store.jobs.retry(bench.job_id, "test")
    bench.again(PRINTED)
    assert bench.state[0] == JobStatus.NEEDS_REVIEW and bench.sent == 2
