"""The watched folder: what is whole is taken once, with a stated identity or none; nothing is lost."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from gateway.domain.context import StudyContext
from gateway.domain.identity import Evidence
from gateway.domain.received import Accepted, ReceivedObject
from gateway.domain.status import JobStatus
from gateway.errors import IntakeError, StorageError
from gateway.identity.filename import read_filename
from gateway.identity.sidecar import read_sidecar
from gateway.intake.accept import Intake
from gateway.intake.folder import FolderWatcher
from gateway.settings import FolderSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Job, new_id
from tests.waiting import PATIENCE_S, eventually

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\x06tEXt page abcd" + PNG_END
JANE = {"patient_id": "4711", "patient_name": "Doe^Jane", "patient_birth_date": "19700131"}

Start = Callable[..., FolderWatcher]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    path.mkdir()
    return path


@pytest.fixture
def watch(inbox: Path, intake: Intake) -> Iterator[Start]:
    watchers: list[FolderWatcher] = []

    def start(door: Intake = intake, settle_s: float = 0.1, rescan_s: float = 60, **settings: object) -> FolderWatcher:
        tree = {"path": inbox, "settle_s": settle_s, "rescan_s": rescan_s, "incomplete_s": 0.5, **settings}
        watchers.append(FolderWatcher(FolderSettings.model_validate(tree), door))
        watchers[-1].start()
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.stop()


def drop(inbox: Path, name: str, data: bytes = PNG, sidecar: object = None) -> None:
    """Put a file where it is ready at once, and its sidecar before it."""
    if sidecar is not None:
        (inbox / f".{name}.json").write_text(json.dumps(sidecar))
        (inbox / f".{name}.json").rename(inbox / f"{name}.json")
    (inbox / f".{name}").write_bytes(data)
    (inbox / f".{name}").rename(inbox / name)


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def waits(inbox: Path) -> list[str]:
    return [name for name in files(inbox) if name not in ("done", "processing", "rejected")]


def only_job(store: Store) -> Job:
    (job,) = store.jobs.newest()
    return job


def context(store: Store) -> StudyContext:
    return only_job(store).context


def dicom_file(patient_id: str = "4711", sop_instance_uid: str = "1.2.3") -> bytes:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.PatientID = SecondaryCaptureImageStorage, sop_instance_uid, patient_id
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = BytesIO()
    ds.save_as(data, enforce_file_format=True)
    return data.getvalue()


# -- a file is taken -----------------------------------------------------------------------------------------------


def test_a_page_with_its_sidecar_becomes_a_job(watch: Start, inbox: Path, store: Store, spool: Spool) -> None:
    watcher = watch(destinations=None)
    drop(inbox, "page.png", sidecar=JANE)
    eventually(lambda: files(inbox / "done") == ["page.png", "page.png.json"])
    job = only_job(store)
    assert (job.status, job.media_type, job.source) == (JobStatus.QUEUED, "image/png", f"folder:{inbox}")
    assert context(store) == StudyContext(**JANE)
    assert spool.read(job.id) == PNG
    eventually(lambda: files(inbox / "processing") == [])
    assert waits(inbox) == []
    assert watcher.alive
    watcher.stop()
    assert not watcher.alive


def test_a_page_without_identity_waits_for_a_person(watch: Start, inbox: Path, store: Store) -> None:
    watch()
    drop(inbox, "page.png")
    eventually(lambda: files(inbox / "done"))
    job = only_job(store)
    assert job.status == JobStatus.NEEDS_REVIEW and "no patient ID" in job.reason
    assert context(store) == StudyContext()


def test_a_sidecar_without_patient_id_is_no_identity(watch: Start, inbox: Path, store: Store) -> None:
    watch()
    drop(inbox, "page.png", sidecar={"accession_number": "A1"})
    eventually(lambda: files(inbox / "done"))
    assert only_job(store).status == JobStatus.NEEDS_REVIEW
    assert context(store).accession_number == "A1"


def test_a_sidecar_may_come_late(watch: Start, inbox: Path, store: Store) -> None:
    watch(settle_s=PATIENCE_S)
    drop(inbox, "page.png")
    time.sleep(0.3)
    (inbox / "page.png.json").write_text(json.dumps(JANE))
    eventually(lambda: files(inbox / "done"))
    assert context(store).patient_id == "4711"


def test_a_page_sent_again_with_its_identity_is_a_job_of_its_own(watch: Start, inbox: Path, store: Store) -> None:
    watch(settle_s=0)
    drop(inbox, "page.png")
    eventually(lambda: store.jobs.counts()[JobStatus.NEEDS_REVIEW] == 1)
    drop(inbox, "page.png", sidecar=JANE)
    eventually(lambda: store.jobs.counts()[JobStatus.QUEUED] == 1)


def test_the_same_page_twice_is_one_job_and_both_originals_are_kept(watch: Start, inbox: Path, store: Store) -> None:
    watch(settle_s=0)
    for count in (1, 2):
        drop(inbox, "page.png")
        eventually(lambda count=count: len(files(inbox / "done")) == count)
    assert len(store.jobs.newest()) == 1
    assert {(inbox / "done" / name).read_bytes() for name in files(inbox / "done")} == {PNG}
    assert all(name.endswith("page.png") for name in files(inbox / "done"))


@pytest.mark.parametrize(("name", "patient_id"), [("4711_20260131.png", "4711"), ("page.png", "")])
def test_identity_from_the_files_name(watch: Start, inbox: Path, store: Store, name: str, patient_id: str) -> None:
    watch(identity="filename", filename_pattern=r"(?P<patient_id>\d+)_(?P<study_date>\d{8})")
    drop(inbox, name)
    eventually(lambda: files(inbox / "done") == [name])
    assert context(store).patient_id == patient_id
    assert only_job(store).status == (JobStatus.QUEUED if patient_id else JobStatus.NEEDS_REVIEW)


def test_a_sidecar_comes_before_the_name(watch: Start, inbox: Path, store: Store) -> None:
    watch(identity="sidecar_or_filename", filename_pattern=r"(?P<patient_id>\d+)")
    drop(inbox, "1.png", sidecar=JANE)
    eventually(lambda: len(store.jobs.newest()) == 1)
    drop(inbox, "2.png", PNG + b"2")
    eventually(lambda: len(store.jobs.newest()) == 2)
    found = {job.context.patient_id for job in store.jobs.newest()}
    assert found == {"4711", "2"}


def test_a_dicom_file_brings_its_own_key_and_identity(watch: Start, inbox: Path, store: Store, intake: Intake) -> None:
    sent = intake.accept(
        ReceivedObject(
            source="dicom:SCANNER",
            source_key="1.2.3",
            media_type="application/dicom",
            data=dicom_file(sop_instance_uid="1.2.3"),
            context=StudyContext(patient_id="4711"),
            destinations=None,
            actor="scp",
        )
    )
    watch()
    drop(inbox, "again.dcm", dicom_file(sop_instance_uid="1.2.3"))
    drop(inbox, "new.dcm", dicom_file(sop_instance_uid="1.2.4"))
    drop(inbox, "nobody.png", dicom_file(sop_instance_uid="1.2.5", patient_id=""))  # the name proves nothing
    eventually(lambda: len(files(inbox / "done")) == 3)
    jobs = {job.source_key: job for job in store.jobs.newest()}
    assert jobs["1.2.3"].id == sent.job_id
    assert jobs["1.2.4"].context.patient_id == "4711"
    assert [jobs[key].status for key in ("1.2.4", "1.2.5")] == [JobStatus.QUEUED, JobStatus.NEEDS_REVIEW]
    assert len(jobs) == 3


# -- a file is ready -----------------------------------------------------------------------------------------------


def test_a_file_is_not_taken_while_it_is_written(watch: Start, inbox: Path, store: Store, spool: Spool) -> None:
    watch(settle_s=3)
    with open(inbox / "page.png", "wb") as file:
        for _ in range(10):  # longer than it has to settle, and never so long without a change
            file.write(PNG)
            file.flush()
            time.sleep(0.4)
            assert store.jobs.newest() == []
    eventually(lambda: files(inbox / "done") == ["page.png"])
    assert spool.read(only_job(store).id) == PNG * 10


@pytest.mark.parametrize("polling", [False, True])
def test_a_slow_writer_s_file_is_not_taken_half(
    watch: Start, inbox: Path, store: Store, spool: Spool, polling: bool
) -> None:
    watch(polling=polling, incomplete_s=60)
    with open(inbox / "page.png", "wb") as file:
        file.write(PNG[:20])
        file.flush()
        time.sleep(1)  # ten times what it has to settle
        assert store.jobs.newest() == []
        file.write(PNG[20:])
    eventually(lambda: files(inbox / "done") == ["page.png"])
    assert spool.read(only_job(store).id) == PNG


def test_a_file_that_is_never_finished_is_rejected(watch: Start, inbox: Path, store: Store) -> None:
    watch(incomplete_s=0.3)
    (inbox / "page.png").write_bytes(PNG[:20])
    eventually(lambda: "page.png" in files(inbox / "rejected"))
    eventually(lambda: "cut short" in (inbox / "rejected" / "page.png.reason.txt").read_text())
    assert store.jobs.newest() == []


def test_a_file_that_changes_after_it_was_taken_is_taken_again(
    watch: Start, inbox: Path, store: Store, spool: Spool
) -> None:
    watch(polling=True, incomplete_s=60, rescan_s=0.2)
    with open(inbox / "page.png", "wb") as file:
        file.write(PNG)
        file.flush()
        eventually(lambda: files(inbox / "done") == ["page.png"])
        file.write(b"more")
    eventually(lambda: len(store.jobs.newest()) == 2)
    eventually(lambda: files(inbox / "done") == ["page.png"])
    assert {spool.read(job.id) for job in store.jobs.newest()} == {PNG, PNG + b"more"}


@pytest.mark.parametrize("how", ["renamed", "closed"])
def test_a_file_that_is_done_does_not_wait(watch: Start, inbox: Path, store: Store, how: str) -> None:
    watch(settle_s=60, identity="filename", filename_pattern=r"(?P<patient_id>\d+)")
    if how == "renamed":
        (inbox.parent / "elsewhere").write_bytes(PNG)
        (inbox.parent / "elsewhere").rename(inbox / "1.png")
    else:
        (inbox / "1.png").write_bytes(PNG)
    eventually(lambda: files(inbox / "done") == ["1.png"])


def test_a_silent_change_is_seen_by_polling_and_by_the_rescan(watch: Start, inbox: Path, store: Store) -> None:
    watch(polling=True, rescan_s=0.2)
    (inbox / "page.png").write_bytes(PNG)
    eventually(lambda: files(inbox / "done") == ["page.png"])


def test_what_came_while_nobody_watched_is_taken(watch: Start, inbox: Path, store: Store) -> None:
    drop(inbox, "page.png", sidecar=JANE)
    watch()
    eventually(lambda: files(inbox / "done") == ["page.png", "page.png.json"])
    assert context(store).patient_id == "4711"


def test_files_that_were_taken_are_deleted_after_the_retention(
    watch: Start, inbox: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watch()
    drop(inbox, "page.png", sidecar=JANE)
    drop(inbox, "page.txt", b"no page")
    eventually(lambda: files(inbox / "done") == ["page.png", "page.png.json"] and files(inbox / "rejected") != [])
    os.utime(inbox / "done" / "page.png", (0, 0))  # scanned long ago, and taken just now
    (inbox / "done" / "kept").mkdir()
    assert watcher.prune(retention_days=30) == 0
    now = time.time()
    monkeypatch.setattr("gateway.intake.folder.time.time", lambda: now + 31 * 86400)
    assert watcher.prune(retention_days=30) == 2
    assert files(inbox / "done") == ["kept"]
    assert "page.txt" in files(inbox / "rejected")  # for a person
    assert store.jobs.get(only_job(store).id)


def test_what_is_no_page_is_left_alone(watch: Start, inbox: Path, store: Store) -> None:
    watch(settle_s=0, rescan_s=0.1)
    for name in (".hidden.png", "page.png.part", "page.png~", "page.TMP"):
        (inbox / name).write_bytes(PNG)
    (inbox.parent / "target.png").write_bytes(PNG)
    (inbox / "link.png").symlink_to(inbox.parent / "target.png")
    os.mkfifo(inbox / "fifo.png")
    (inbox / "folder.png").mkdir()
    (inbox / "alone.png.json").write_text(json.dumps(JANE))
    drop(inbox, "page.png")
    eventually(lambda: files(inbox / "done") == ["page.png"])
    time.sleep(0.3)
    assert len(store.jobs.newest()) == 1
    assert len(waits(inbox)) == 8


# -- a file is rejected --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "sidecar", "reason"),
    [
        (b"", None, "the file is empty"),
        (b"GIF89a", None, "the file is no DICOM, PDF, PNG"),
        (bytes(128) + b"DICM garbage", None, ""),
        (PNG, {"patientid": "4711"}, "patientid: Extra inputs are not permitted"),
        (PNG, {"patient_id": 4711}, "patient_id: Input should be a valid string"),
        (PNG, ["4711"], "the sidecar cannot be used"),
        (PNG, {"patient_id": "4711", "patient_birth_date": "31.1.1970"}, "patient_birth_date must be a date YYYYMMDD"),
    ],
)
def test_a_file_that_cannot_be_used_is_rejected_with_a_reason(
    watch: Start, inbox: Path, store: Store, data: bytes, sidecar: object, reason: str
) -> None:
    watcher = watch(settle_s=0)
    drop(inbox, "page.png", data, sidecar)
    eventually(lambda: "page.png" in files(inbox / "rejected") and files(inbox / "processing") == [])
    assert reason in (inbox / "rejected" / "page.png.reason.txt").read_text()
    assert len((inbox / "rejected" / "page.png.reason.txt").read_text()) > 10
    assert ("page.png.json" in files(inbox / "rejected")) == (sidecar is not None)
    assert store.jobs.newest() == [] and waits(inbox) == []
    assert watcher.alive


def test_a_name_too_long_for_what_is_added_is_rejected(watch: Start, inbox: Path, store: Store) -> None:
    watch()
    (inbox / ("x" * 251 + ".png")).write_bytes(PNG)
    eventually(lambda: files(inbox / "processing") == [] and len(files(inbox / "rejected")) == 2)
    assert store.jobs.newest() == []


@pytest.mark.parametrize("identity", ["filename", "sidecar_or_filename"])
def test_a_name_that_is_not_utf_8_gives_no_identity_and_stops_nobody(
    watch: Start, inbox: Path, store: Store, caplog: pytest.LogCaptureFixture, identity: str
) -> None:
    watcher = watch(identity=identity, filename_pattern=r"(?P<patient_id>\w+|M.LLER)")
    name = os.fsdecode(b"M\xdcLLER.png")
    drop(inbox, name)
    eventually(lambda: files(inbox / "rejected") == [name, name + ".reason.txt"])
    eventually(lambda: "not in UTF-8" in (inbox / "rejected" / (name + ".reason.txt")).read_text())
    drop(inbox, "4711.png")
    eventually(lambda: files(inbox / "done") == ["4711.png"])
    assert context(store).patient_id == "4711" and watcher.alive
    assert "LLER" not in caplog.text


def test_a_name_that_is_not_utf_8_may_have_a_sidecar(watch: Start, inbox: Path, store: Store) -> None:
    watch()
    name = os.fsdecode(b"M\xdcLLER.png")
    drop(inbox, name, sidecar=JANE)
    eventually(lambda: files(inbox / "done") == [name, name + ".json"])
    assert context(store) == StudyContext(**JANE)


def test_the_log_names_no_file(watch: Start, inbox: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="gateway")
    watch(identity="filename", filename_pattern=r"(?P<patient_id>\w+)")
    drop(inbox, "MARKED.png")
    drop(inbox, "MARKED.gif", b"GIF89a")
    eventually(lambda: files(inbox / "done") and len(files(inbox / "rejected")) == 2)
    assert caplog.records and "MARKED" not in caplog.text


# -- trouble -------------------------------------------------------------------------------------------------------


class TroubledIntake(Intake):
    """Fails a number of times, before or after the work is done."""

    def __init__(self, intake: Intake, failure: Exception, failures: int, after: bool = False) -> None:
        self._inner, self._failure, self.failures, self._after = intake, failure, failures, after

    def accept(self, received: ReceivedObject, evidence: Evidence | None = None) -> Accepted:
        if self._after:
            self._inner.accept(received, evidence)
        if self.failures:
            self.failures -= 1
            raise self._failure
        return self._inner.accept(received, evidence)


def test_a_file_waits_while_nothing_can_be_stored(watch: Start, inbox: Path, store: Store, intake: Intake) -> None:
    watcher = watch(TroubledIntake(intake, StorageError("disk full"), failures=6), rescan_s=0.05)
    drop(inbox, "page.png", sidecar=JANE)
    eventually(lambda: files(inbox / "done") == ["page.png", "page.png.json"])
    assert context(store).patient_id == "4711"
    assert watcher.alive


class Killed(BaseException):
    """Ends the thread as a crash would."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
def test_a_crash_neither_loses_nor_doubles(
    watch: Start, inbox: Path, store: Store, intake: Intake, after: bool
) -> None:
    crashed = watch(TroubledIntake(intake, Killed(), failures=1, after=after))
    drop(inbox, "page.png", sidecar=JANE)
    eventually(lambda: not crashed.alive)
    assert len(files(inbox / "processing")) == 1
    watch()
    eventually(lambda: files(inbox / "done") == ["page.png", "page.png.json"])
    assert context(store).patient_id == "4711"
    eventually(lambda: files(inbox / "processing") == [])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_file_that_kills_the_gateway_three_times_is_rejected(watch: Start, inbox: Path, intake: Intake) -> None:
    drop(inbox, "page.png")
    for _ in range(3):
        crashed = watch(TroubledIntake(intake, Killed(), failures=1))
        eventually(lambda crashed=crashed: not crashed.alive)
    watch(TroubledIntake(intake, Killed(), failures=1))
    eventually(lambda: files(inbox / "processing") == [])
    assert "crashed 3 times" in (inbox / "rejected" / "page.png.reason.txt").read_text()


def test_a_crash_while_putting_away_is_taken_up(watch: Start, inbox: Path, store: Store) -> None:
    claim = inbox / "processing" / new_id()
    claim.mkdir(parents=True)
    (claim / "page.png.json").write_text(json.dumps(JANE))  # page.png is in done/ already
    (claim / ".outcome").touch()
    (inbox / "page.png").write_bytes(PNG)  # another page of that name, of nobody known
    watch()
    eventually(lambda: "page.png" in files(inbox / "done"))
    assert only_job(store).status == JobStatus.NEEDS_REVIEW  # it did not get the other's identity
    eventually(lambda: files(inbox / "processing") == [])


@pytest.mark.parametrize("there", [True, False])
def test_a_crash_between_sidecar_and_file_gives_the_sidecar_back(
    watch: Start, inbox: Path, store: Store, there: bool
) -> None:
    claim = inbox / "processing" / new_id()
    claim.mkdir(parents=True)
    (claim / "page.png.json").write_text(json.dumps(JANE))
    if there:
        (inbox / "page.png").write_bytes(PNG)
    watch()
    if there:
        eventually(lambda: files(inbox / "done") == ["page.png", "page.png.json"])
        assert context(store).patient_id == "4711"
    else:
        eventually(lambda: "page.png.json" in files(inbox / "rejected"))
    eventually(lambda: files(inbox / "processing") == [])


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path, intake: Intake) -> None:
    (tmp_path / "file").touch()
    watcher = FolderWatcher(FolderSettings(path=tmp_path / "file" / "inbox", create=True), intake)
    with pytest.raises(StorageError):
        watcher.start()
    watcher.stop()


@pytest.mark.parametrize("polling", [False, True])
def test_a_missing_folder_is_an_error_until_it_appears(
    watch: Start, inbox: Path, store: Store, caplog: pytest.LogCaptureFixture, polling: bool
) -> None:
    inbox.rmdir()
    watcher = watch(polling=polling, rescan_s=0.2)
    assert watcher.alive and "is missing" in watcher.problem
    time.sleep(0.6)
    assert not inbox.exists()
    assert [record.levelname for record in caplog.records if "is missing" in record.message] == ["ERROR"]
    inbox.mkdir()
    eventually(lambda: watcher.problem == "")
    drop(inbox, "1.png", sidecar=JANE)
    eventually(lambda: files(inbox / "done"))
    inbox.rename(inbox.with_name("unmounted"))
    eventually(lambda: "is missing" in watcher.problem)
    inbox.mkdir()  # the mount point without its file system
    eventually(lambda: "without processing/" in watcher.problem)
    drop(inbox, "2.png")
    time.sleep(0.6)
    assert files(inbox) == ["2.png"] and watcher.alive
    inbox.rename(inbox.with_name("mount point"))
    inbox.with_name("unmounted").rename(inbox)
    eventually(lambda: watcher.problem == "")
    drop(inbox, "3.png", PNG + b"3")
    eventually(lambda: "3.png" in files(inbox / "done"))
    assert watcher.alive and len(store.jobs.newest()) == 2


def test_a_missing_folder_is_made_where_that_is_wanted(watch: Start, inbox: Path) -> None:
    inbox.rmdir()
    assert watch(create=True).problem == ""
    assert files(inbox) == ["done", "processing", "rejected"]


# -- identity ------------------------------------------------------------------------------------------------------


def test_a_sidecar_may_hold_any_script_and_a_byte_order_mark() -> None:
    data = b"\xef\xbb\xbf" + json.dumps({"patient_name": "Ωmega^Zoë"}, ensure_ascii=False).encode()
    assert read_sidecar(data).patient_name == "Ωmega^Zoë"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patient_id", "a\\b"),
        ("patient_id", "x" * 65),
        ("patient_name", "a\nb"),
        ("patient_sex", "female"),
        ("study_time", "25"),
        ("study_instance_uid", "1.2.x"),
        ("acquisition_date_time", "2026-01-31T10:00"),
        ("accession_number", "x" * 17),
    ],
)
def test_a_value_that_breaks_its_form_is_named_but_not_shown(field: str, value: str) -> None:
    with pytest.raises(IntakeError, match=field) as caught:
        read_sidecar(json.dumps({field: value}).encode())
    assert value not in str(caught.value)


def test_every_form_is_of_a_field_and_takes_a_good_value() -> None:
    good = {
        "patient_id": "4711",
        "patient_name": "Doe^Jane",
        "patient_birth_date": "19700131",
        "patient_sex": "F",
        "study_instance_uid": "2.25.1",
        "study_date": "20260131",
        "study_time": "101500",
        "study_id": "S1",
        "accession_number": "A1",
        "referring_physician_name": "Who^Doctor",
        "acquisition_date_time": "20260131101500.5+0100",
        "timezone_offset_from_utc": "+0100",
        "request_attributes_json": "[]",
        "institution_name": "Hospital",
    }
    assert read_sidecar(json.dumps(good).encode()) == StudyContext(**good)


def test_a_name_must_fit_as_a_whole() -> None:
    pattern = re.compile(r"(?P<patient_id>\d+)(_(?P<study_date>\d{8}))?")
    assert read_filename(pattern, "4711") == StudyContext(patient_id="4711")
    assert read_filename(pattern, "4711_20260131_2") is None
    with pytest.raises(IntakeError, match="study_date"):
        read_filename(pattern, "4711_20261331")
