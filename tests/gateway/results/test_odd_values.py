"""Character sets, names, zones and odd identifiers through the whole path: tolerant in, strict out."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import DataElement, Dataset, dcmread
from pydicom.config import IGNORE
from pydicom.datadict import tag_for_keyword

from gateway.dicom.images.pages import read_context
from gateway.dicom.objects.values import is_date, is_date_time, is_offset, is_time
from gateway.domain.context import StudyContext
from gateway.domain.patients import PatientUpdate
from gateway.domain.received import ReceivedObject
from gateway.domain.status import JobStatus
from gateway.hl7.inbound.parsing import parse
from gateway.hl7.inbound.receiver import Receiver
from gateway.hl7.inbound.updates import read_updates
from gateway.identity.orders import Records
from gateway.intake.accept import Intake, media_type_of
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Job
from gateway.worker.worker import Worker
from tests.fake_digitizer import FakeDigitizer, page_png
from tests.gateway.dicom.samples import part10, secondary_capture

Result = tuple[Job, Dataset | None, bytes]
Path_ = Callable[..., Result]
CR = "\r"


@pytest.fixture
def digitized(tmp_path: Path, store: Store, spool: Spool, intake: Intake) -> Path_:
    """What a file becomes on its way through the gateway: the job, its waveform object, its message."""

    def run(data: bytes, context: StudyContext | None = None, character_set: str = "UNICODE UTF-8") -> Result:
        pacs = {"kind": "dicom", "name": "pacs", "host": "127.0.0.1", "port": 104, "ae_title": "PACS"}
        ehr = {"kind": "hl7", "name": "ehr", "host": "127.0.0.1", "port": 2575, "character_set": character_set}
        settings = Settings.model_validate({"destinations": [pacs, ehr]})
        media_type = media_type_of(data)
        job_id = intake.accept(
            ReceivedObject(
                source="test",
                source_key="1",
                media_type=media_type,
                data=data,
                context=context or read_context(data),
                destinations=None,
                actor="test",
            )
        ).job_id
        Worker(settings, store, spool, FakeDigitizer(), name="w").run_once()
        folder = spool.path / job_id
        waveform, message = folder / "page-1.12-lead.dcm", folder / "page-1.ehr.hl7"
        dataset = dcmread(io.BytesIO(waveform.read_bytes())) if waveform.exists() else None
        return store.jobs.get(job_id), dataset, message.read_bytes() if message.exists() else b""

    return run


def scanned(**attributes: object) -> bytes:
    """A scanned page as a DICOM file."""
    return part10(secondary_capture(**attributes))


def names_in(message: bytes) -> str:
    """The patient's name in a message of ours, as a DICOM PN."""
    (patient,) = [told for told in read_updates(parse(message.replace(b"ORU^R01^ORU_R01", b"ADT^A08"), "ASCII"))]
    assert isinstance(patient, PatientUpdate)
    return patient.patient_name or ""


@pytest.mark.parametrize(
    ("specific_character_set", "name", "character_set"),
    [
        ("ISO_IR 100", "Müller^Jérôme", "8859/1"),
        ("ISO_IR 144", "Иванов^Пётр", "8859/5"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东=ワン", "UNICODE UTF-8"),
        ("GB18030", "Wang^XiaoDong=王^小东", "GB 18030-2000"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "ISO IR87"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "UNICODE UTF-8"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", "KS X 1001"),
        ("ISO_IR 192", "Adams^John Robert Quincy^Middle^Rev.^B.A. M.Div.", "UNICODE UTF-8"),
        ("ISO_IR 192", "O'Neill&Sons|~^A\\^B", "UNICODE UTF-8"),
    ],
)
def test_names_keep_groups_and_components_from_object_to_object_and_message(
    digitized: Path_, specific_character_set: object, name: str, character_set: str
) -> None:
    plain = name.replace("\\", "")  # a backslash separates values
    job, dataset, message = digitized(
        scanned(SpecificCharacterSet=specific_character_set, PatientName=plain), character_set=character_set
    )
    assert job.status == JobStatus.DONE and dataset is not None
    assert (dataset.SpecificCharacterSet, dataset.PatientName) == ("ISO_IR 192", plain)
    assert names_in(message) == plain


def test_message_in_a_character_set_without_the_name_says_so(digitized: Path_) -> None:
    job, dataset, message = digitized(scanned(PatientName="山田^太郎"), character_set="8859/1")
    assert job.status == JobStatus.NEEDS_REVIEW and "8859/1" in job.reason and "山" not in job.reason
    assert dataset is not None and dataset.PatientName == "山田^太郎" and message == b""


@pytest.mark.parametrize(
    ("declared", "codec", "name"),
    [
        ("8859/1", "latin-1", "Müller^Jérôme"),
        ("8859/5", "iso8859-5", "Иванов^Иван"),
        ("UNICODE UTF-8", "utf-8", "Wang^XiaoDong=王^小东"),
        ("GB 18030-2000", "gb18030", "Wang^XiaoDong=王^小东"),
        ("ASCII~ISO IR87", "iso2022_jp", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ASCII~KS X 1001", "euc_kr", "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_names_of_an_order_reach_the_waveform(
    store: Store, digitized: Path_, declared: str, codec: str, name: str
) -> None:
    groups = [(group.split("^") + [""] * 6)[:6] for group in name.split("=")]
    repetitions = "~".join("^".join([*group, "L", kind]) for group, kind in zip(groups, "AIP", strict=False))
    message = CR.join(
        [
            f"MSH|^~\\&|HIS|H|GW|H|20260301101500+0900||ORM^O01|1|P|2.5||||||{declared}",
            f"PID|1||P7^^^HOSP^MR||{repetitions}||19700101|F",
            "ORC|NW|PL1",
            "OBR|1|PL1||ECG^ECG||||||||||||||A77",
        ]
    )
    (answer,) = Receiver(Records(store), "UNICODE UTF-8")(message.encode(codec))
    assert b"MSA|AA|1" in answer
    job, dataset, _ = digitized(page_png(), StudyContext(accession_number="A77"))
    assert job.status == JobStatus.DONE and dataset is not None
    assert (dataset.PatientID, dataset.PatientName) == ("P7", name)


@pytest.mark.filterwarnings("ignore:Failed to decode:UserWarning")
def test_wrongly_declared_character_set_is_no_reason_to_lose_the_page(digitized: Path_) -> None:
    data = scanned(SpecificCharacterSet="ISO_IR 192", PatientName="Muller^X").replace(b"Muller^X", b"M\xfcller^X")
    job, dataset, _ = digitized(data)
    assert job.status == JobStatus.DONE and dataset is not None
    assert dataset.PatientID == "P-1001" and str(dataset.PatientName).endswith("ller^X")


# -- zones ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", ["+0000", "+0530", "-0330", "+1400", "-1200"])
def test_offset_is_copied_and_our_own_times_are_told_in_it(digitized: Path_, offset: str) -> None:
    job, dataset, message = digitized(scanned(TimezoneOffsetFromUTC=offset, AcquisitionDateTime="20261025023000.5"))
    assert job.status == JobStatus.DONE and dataset is not None
    assert (dataset.TimezoneOffsetFromUTC, dataset.AcquisitionDateTime) == (offset, "20261025023000.5")
    assert dataset.StudyTime == "100000"  # copied, never converted
    made = job.created_at.strftime("%H%M%S")
    assert (dataset.ContentTime == made) == (offset == "+0000")
    assert f"|20261025023000{offset}".encode() in message


def test_hour_that_a_clock_shows_twice_keeps_its_own_offset(digitized: Path_) -> None:
    """02:30 on the night summer time ends is two moments: the date-time's own offset says which."""
    _, dataset, message = digitized(scanned(TimezoneOffsetFromUTC="+0100", AcquisitionDateTime="20261025023000+0200"))
    assert dataset is not None
    assert (dataset.AcquisitionDateTime, dataset.TimezoneOffsetFromUTC) == ("20261025023000+0200", "+0100")
    assert b"|20261025023000+0200" in message


@pytest.mark.parametrize("offset", ["+1500", "-1300", "-0000", "+01:00", "CET", "+1430", "+0160"])
def test_offset_that_is_none_is_not_sent(digitized: Path_, offset: str) -> None:
    dataset = secondary_capture(AcquisitionDateTime="20260301093000" + offset)
    dataset.add_new("TimezoneOffsetFromUTC", "SH", offset)
    job, made, _ = digitized(part10(dataset))
    assert job.status == JobStatus.DONE and made is not None
    assert "TimezoneOffsetFromUTC" not in made
    assert made.AcquisitionDateTime == "20260301100000"  # the study's


def test_days_that_never_were_are_not_known(digitized: Path_) -> None:
    dataset = secondary_capture(StudyTime="250000")
    for keyword, value in (("PatientBirthDate", "19700231"), ("StudyDate", "20261301")):
        dataset[keyword]._value = value
    job, made, _ = digitized(part10(dataset))
    assert job.status == JobStatus.DONE and made is not None
    assert (made.PatientBirthDate, made.StudyDate, made.StudyTime) == ("", "", "")


def test_forms() -> None:
    assert is_date("20240229") and not is_date("20230229") and not is_date("2024022") and not is_date("\uff12" * 8)
    assert is_time("23") and is_time("235959.999999") and not is_time("24") and not is_time("1:30")
    assert is_offset("+1400") and is_offset("-1200") and not is_offset("-0000") and not is_offset("+1401")
    assert is_date_time("20240229") and is_date_time("2024022910+0100") and is_date_time("20240229101530.5-0330")
    assert not is_date_time("2024") and not is_date_time("20240229101530+2500") and not is_date_time("+0100")


# -- identifiers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", [None, "", "1.2.a", "1." * 40 + "1", "../../x"])
def test_missing_or_odd_study_uid_gives_a_study_of_its_own(digitized: Path_, uid: str | None) -> None:
    dataset = secondary_capture(StudyInstanceUID=None)
    if uid is not None:
        dataset.add_new("StudyInstanceUID", "UI", "")
        dataset["StudyInstanceUID"]._value = uid
    job, made, message = digitized(part10(dataset))
    assert job.status == JobStatus.DONE and made is not None
    assert made.StudyInstanceUID.startswith("2.25.") and made.StudyInstanceUID.encode() in message


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "P" * 65),
        ("AccessionNumber", "A" * 17),
        ("PatientName", "N" * 65),
        ("PatientName", "A=B=C=D"),
        ("StudyID", "S1\\S2"),
        ("IssuerOfPatientID", "I\x07B"),
    ],
)
def test_identifier_that_breaks_its_form_goes_to_a_person_with_its_name_and_without_its_value(
    digitized: Path_, keyword: str, value: str
) -> None:
    dataset = secondary_capture()
    vr = {"PatientName": "PN", "AccessionNumber": "SH", "StudyID": "SH"}.get(keyword, "LO")
    dataset.add(DataElement(tag_for_keyword(keyword) or 0, vr, value, validation_mode=IGNORE))
    job, made, _ = digitized(part10(dataset))
    assert job.status == JobStatus.NEEDS_REVIEW and made is None
    assert keyword in job.reason and value not in job.reason


@pytest.mark.parametrize("value", ["  P-1001  ", "P-1001\0", "P 10/01", "ÄÖÜ-1", "00012"])
def test_unusual_but_legal_ids_go_through(digitized: Path_, value: str) -> None:
    _, made, message = digitized(scanned(PatientID=value))
    assert made is not None and made.PatientID == value.strip(" \0")
    assert f"|{made.PatientID}^".encode() in message
