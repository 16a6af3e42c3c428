from __future__ import annotations

import base64
import random
import re
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from pydantic import ValidationError

from gateway.domain.context import StudyContext
from gateway.errors import DeliveryRefused, IdentityMissing
from gateway.hl7.inbound.acknowledgement import Problem, build_ack, scan_acknowledgement, scan_header, split_batch
from gateway.hl7.inbound.parsing import CODECS, parse
from gateway.hl7.outbound.fields import escape
from gateway.hl7.outbound.messages import PageMessage, build_message, message_control_id
from gateway.settings import Hl7CodeSettings, Hl7Destination
from pipeline import LEADS, Calibration, EcgRecord, Lead, Quality
from tests import hl7_examples
from tests.gateway.dicom.samples import make_page

CREATED_AT = datetime(2026, 11, 22, 10, 15, 30, tzinfo=timezone(timedelta(hours=1)))
CONTEXT = StudyContext(
    patient_id="P1",
    issuer_of_patient_id="HOSP",
    patient_name="Test^Pat^M^Dr^Jr",
    patient_birth_date="19700101",
    patient_sex="F",
    accession_number="A1",
    placer_order_number="ORD1",
    acquisition_date_time="20261120083000.123+0200",
)
UNESCAPES = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\"}


def record(leads: tuple[Lead, ...] = LEADS) -> EcgRecord:
    signal = np.zeros((len(leads), 5000), np.float32)
    return EcgRecord(
        signal_mv=signal,
        confidence=np.ones_like(signal),
        leads=leads,
        sampling_frequency_hz=500.0,
        calibration=Calibration(speed_source="text"),
    )


QUALITY = Quality(
    coverage={Lead.I: 1.0, Lead.V3: 0.42},
    confidence={Lead.I: 0.9, Lead.V3: 0.2},
    einthoven_residual_mv=0.02,
    layout_score=0.93,
    estimated_snr_db=17.34,
    warnings=("Lead V3 was read to 42 % | a fold?",),
)


CODES = Hl7CodeSettings()
MESSAGE_FIELDS = ("message_control_id", "status", "replaces")


def built(
    context: StudyContext = CONTEXT,
    destination: dict[str, Any] | None = None,
    codes: Hl7CodeSettings = CODES,
    **changes: Any,
) -> bytes:
    """A message about one page, in the destination's bytes; `changes` are of the message, all others of the page."""
    message = {"message_control_id": "GWABC"} | {k: v for k, v in changes.items() if k in MESSAGE_FIELDS}
    context = context.model_copy(update={"study_instance_uid": "1.2.3"})
    page = {
        "context": context,
        "record": record(),
        "quality": QUALITY,
        "waveform_sop_instance_uid": "2.25.99",
        "created_at": CREATED_AT,
    } | {k: v for k, v in changes.items() if k not in MESSAGE_FIELDS}
    receiver = Hl7Destination(name="ehr", host="h", port=1, **(destination or {}))
    return build_message(PageMessage(page=make_page(**page), **message), receiver, codes)


def oru(version: str = "2.5.1", context: StudyContext = CONTEXT, doubtful: bool = False, **changes: str) -> bytes:
    return built(context, {"version": version, **changes}, doubtful=doubtful)


def segments(message: bytes, name: str) -> list[list[str]]:
    """Return the fields of each segment of a name, numbered as in the standard (MSH included)."""
    lines = message.decode("utf-8").split("\r")
    found = [line.split("|") for line in lines if line.startswith(name)]
    return [["MSH", "|", *fields[1:]] if name == "MSH" else fields for fields in found]


@pytest.mark.parametrize("doubtful", [False, True])
@pytest.mark.parametrize("version", ["2.3.1", "2.5", "2.5.1"])
def test_oru_is_valid_in_its_version(version, doubtful):
    message = oru(version, doubtful=doubtful)
    assert message.endswith(b"\r")
    assert b"\n" not in message
    parsed = parse_message(message.decode().rstrip("\r"), validation_level=VALIDATION_LEVEL.STRICT, find_groups=True)
    assert parsed.validate()
    msh = segments(message, "MSH")[0]
    assert msh[9] == "ORU^R01^ORU_R01"
    assert (msh[10], msh[11], msh[12], msh[18]) == ("GWABC", "P", version, "UNICODE UTF-8")
    assert [line.split("|")[0] for line in message.decode().split("\r")][:4] == ["MSH", "PID", "ORC", "OBR"]


def test_oru_says_whose_what_and_how_sure():
    message = oru()
    pid, orc, obr = (segments(message, name)[0] for name in ("PID", "ORC", "OBR"))
    assert pid[3] == "P1^^^HOSP^MR"
    assert pid[5] == "Test^Pat^M^Jr^Dr"  # XPN has suffix before prefix
    assert pid[7:9] == ["19700101", "F"]
    assert orc[1:4] == ["SC", "ORD1", "A1^ECGGW"]
    assert obr[2:5] == ["ORD1", "A1^ECGGW", "11524-6^EKG study^LN"]
    assert obr[7] == "20261120083000+0200"
    assert (obr[18], obr[24], obr[25]) == ("A1", "EC", "P")
    obx = segments(message, "OBX")
    assert obx[0][2:6] == ["ST", "113014^DICOM Study^DCM", "1", "1.2.3"]
    assert obx[0][11] == "O"
    assert {fields[11] for fields in obx[1:]} == {"P"}
    assert {fields[14] for fields in obx} == {"20261120083000+0200"}
    assert [fields[1] for fields in obx] == [str(n + 1) for n in range(len(obx))]
    texts = [fields[5] for fields in obx]
    assert "2.25.99" in texts
    assert "Digitized from paper; unconfirmed" in texts
    assert "Estimated SNR 17.3 dB" in texts
    assert "Layout: 12 leads in 10 s (I II III aVR aVL aVF V1 V2 V3 V4 V5 V6); layout score 0.93" in texts
    assert "Paper speed 25 mm/s (text); gain 10 mm/mV (default)" in texts
    assert not any("V3 42" in text or "fold" in text for text in texts)


def test_doubtful_adds_warnings_and_coverage():
    obx = [fields for fields in segments(oru(doubtful=True), "OBX") if fields[3].startswith("WARNING")]
    assert [fields[4] for fields in obx] == ["1", "2", "3"]
    assert obx[1][5] == "Lead V3 was read to 42 % \\F\\ a fold?"
    assert obx[2][5] == "Read of each printed lead: I 100 %, V3 42 %"
    assert {fields[2] for fields in obx} == {"TX"}
    assert {fields[11] for fields in obx} == {"P"}


def test_observations_are_distinct():
    keys = [(fields[3], fields[4]) for fields in segments(oru(doubtful=True), "OBX")]
    assert len(set(keys)) == len(keys)


def test_same_inputs_same_bytes():
    assert oru() == oru()


def test_created_at_is_written_with_a_zone_that_means_the_same_instant():
    written = segments(oru(), "MSH")[0][7]
    assert datetime.strptime(written, "%Y%m%d%H%M%S%z") == CREATED_AT
    assert segments(oru(), "OBR")[0][22] == written


@pytest.mark.parametrize(
    ("created_at", "written"),
    [
        (datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC), "20260329015959+0100"),  # a second before summer time
        (datetime(2026, 3, 29, 1, tzinfo=UTC), "20260329030000+0200"),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "20261025023000+0200"),  # 02:30 comes twice
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "20261025023000+0100"),
    ],
)
def test_summer_time(monkeypatch, created_at, written):
    monkeypatch.setenv("TZ", "Europe/Paris")
    time.tzset()
    try:
        assert segments(built(created_at=created_at), "MSH")[0][7] == written
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("changes", "observed_at"),
    [
        ({"acquisition_date_time": "20261120083000"}, "20261120083000"),
        ({"acquisition_date_time": "20261120083000", "timezone_offset_from_utc": "-0530"}, "20261120083000-0530"),
        ({"acquisition_date_time": "20261120", "timezone_offset_from_utc": "-0530"}, "20261120"),
        ({"acquisition_date_time": "", "study_date": "20261119", "study_time": "0815"}, "202611190815"),
        ({"acquisition_date_time": "", "study_date": "20261119", "study_time": "081530.5"}, "20261119081530"),
        ({"acquisition_date_time": "", "study_time": "081530"}, ""),  # a time of no day
        ({"acquisition_date_time": ""}, ""),
        ({"acquisition_date_time": "1.5.2026"}, ""),
        ({"acquisition_date_time": "20260231083000"}, ""),
        ({"acquisition_date_time": "202602 1"}, ""),
    ],
)
def test_observation_time_is_never_invented(changes, observed_at):
    message = oru(context=CONTEXT.model_copy(update=changes))
    assert segments(message, "OBR")[0][7] == observed_at
    assert segments(message, "OBX")[0][14:] == ([observed_at] if observed_at else [])


@pytest.mark.parametrize(
    ("issuer", "authority"),
    [
        ("", ""),
        ("1.2.3", "1.2.3"),
        ("1.2.840.113619.2.62.994044785528", "&1.2.840.113619.2.62.994044785528&ISO"),
        ("St. Elsewhere General Hospital", "&St. Elsewhere General Hospital&L"),
    ],
)
def test_issuer_too_long_for_a_namespace_is_a_universal_id(issuer, authority):
    message = oru(context=CONTEXT.model_copy(update={"issuer_of_patient_id": issuer}))
    assert segments(message, "PID")[0][3] == f"P1^^^{authority}^MR"


def test_longest_values_dicom_allows_are_taken():
    fields = ("patient_id", "issuer_of_patient_id", "patient_name", "placer_order_number", "filler_order_number")
    assert oru("2.3.1", CONTEXT.model_copy(update={"accession_number": "9" * 16} | dict.fromkeys(fields, "|" * 64)))


def test_birth_date_that_is_none_is_left_out():
    assert segments(oru(context=CONTEXT.model_copy(update={"patient_birth_date": "19701301"})), "PID")[0][7] == ""


@pytest.mark.parametrize("version", ["2.3.1", "2.5", "2.5.1"])
def test_names_in_three_representations(version):
    message = oru(version, CONTEXT.model_copy(update={"patient_name": "Yamada^Tarou=山田^太郎=やまだ^たろう"}))
    assert segments(message, "PID")[0][5] == "Yamada^Tarou~山田^太郎^^^^^^I~やまだ^たろう^^^^^^P"


@pytest.mark.parametrize("name", ["", "=", "^^^^", "=^="])
def test_empty_names(name):
    assert segments(oru(context=CONTEXT.model_copy(update={"patient_name": name})), "PID")[0][5] == "^^^^^^U"


@pytest.mark.parametrize("version", ["2.3.1", "2.5", "2.5.1"])
def test_no_value_can_break_out_of_its_field(version):
    nasty = "a|b~c&d\\e\r\nOBX|9\x0b\x1c"
    fields = {
        "patient_id": nasty + "^",
        "issuer_of_patient_id": nasty,
        "patient_name": nasty,
        "accession_number": nasty + "^",
        "placer_order_number": nasty,
        "filler_order_number": nasty,
    }
    message = oru(version, CONTEXT.model_copy(update=fields), sending_facility="a|b~c&\\\x0b")
    plain = oru(version)
    names = [line.split(b"|")[0] for line in message.split(b"\r")]
    assert names == [line.split(b"|")[0] for line in plain.split(b"\r")]
    assert not re.search(rb"[\x00-\x0c\x0e-\x1f]", message)
    assert segments(message, "PID")[0][3].split("^")[0] == "a\\F\\b\\R\\c\\T\\d\\E\\e OBX\\F\\9 \\S\\"
    assert segments(message, "MSH")[0][4] == "a\\F\\b\\R\\c\\T\\\\E\\"


def test_escaped_text_survives_hl7apy():
    rng = random.Random(5)
    for _ in range(60):
        name = "".join(rng.choice("aE.\\|&~FSTRHN ") for _ in range(12)).strip() or "x"
        message = oru(context=CONTEXT.model_copy(update={"patient_id": name}))
        written = segments(message, "PID")[0][3].split("^")[0]
        assert re.sub(r"\\([FSTRE])\\", lambda found: UNESCAPES[found[1]], written) == name


def test_escape():
    assert escape("a|b^c&d~e\\f") == r"a\F\b\S\c\T\d\R\e\E\f"
    assert escape(" two\r\nlines\x0b\x1c\t ") == "two lines"


def test_without_patient_id_there_is_no_message():
    with pytest.raises(IdentityMissing):
        oru(context=CONTEXT.model_copy(update={"patient_id": ""}))


def test_without_an_order_there_is_no_orc_and_our_own_filler_number():
    context = CONTEXT.model_copy(update={"accession_number": "", "placer_order_number": ""})
    message = oru(context=context)
    assert segments(message, "ORC") == []
    assert segments(message, "OBR")[0][2:4] == ["", "GWABC^ECGGW"]


def test_order_numbers_come_back_as_they_were_given():
    """With their issuers: a receiver finds its order by both.  What we do not know we do not claim to have given."""
    told = {"placer_order_issuer": "EHR^1.2.3^ISO", "filler_order_number": "F1", "filler_order_issuer": "R&S"}
    for kind, segment, fields in (("ORU^R01", "ORC", (2, 3)), ("ORU^R01", "OBR", (2, 3)), ("MDM^T02", "TXA", (14, 15))):
        message = oru(context=CONTEXT.model_copy(update=told), message=kind)
        found = [segments(message, segment)[0][number] for number in fields]
        assert found == ["ORD1^EHR^1.2.3^ISO", "F1^R\\T\\S"]
    nobodys = CONTEXT.model_copy(update={"filler_order_number": "F1"})
    assert segments(oru(context=nobodys), "ORC")[0][2:4] == ["ORD1", "F1"]
    assert segments(oru(), "ORC")[0][2:4] == ["ORD1", "A1^ECGGW"]


def test_facility_may_be_a_hierarchic_designator():
    assert segments(oru(sending_facility="HOSP^1.2.3^ISO"), "MSH")[0][4] == "HOSP^1.2.3^ISO"


def test_breach_of_the_version_is_refused_without_quoting_the_value():
    with pytest.raises(DeliveryRefused, match=r"ehr breaks HL7 2\.5\.1") as caught:
        oru(sending_facility="H^1^ISO^SECRET^5")
    assert "SECRET" not in str(caught.value)


def test_message_control_id_is_stable_short_and_its_own():
    control_id = message_control_id("job", 1, "ehr")
    assert control_id == message_control_id("job", 1, "ehr")
    assert re.fullmatch(r"[A-Z0-9]{1,20}", control_id)
    others = {message_control_id(*key) for key in [("job", 2, "ehr"), ("job", 1, "pacs"), ("job2", 1, "ehr")]}
    assert len(others | {control_id}) == 4


def test_message_control_id_too_long():
    with pytest.raises(ValueError, match="20"):
        built(message_control_id="X" * 21)


def test_variants_of_a_message_have_ids_of_their_own():
    variants = ("", "final", "r1", "r1.final")
    assert len({message_control_id("job", 1, "ehr", variant) for variant in variants}) == 4


# -- status --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "status", "order", "note"),
    [
        ({}, "P", "A", "Digitized from paper; unconfirmed"),
        ({"final": True, "status": "F"}, "F", "CM", "Digitized from paper; confirmed by a person"),
        ({"status": "C"}, "C", "A", "Digitized from paper; corrected; unconfirmed"),
        ({"final": True, "status": "C"}, "C", "CM", "Digitized from paper; corrected; confirmed by a person"),
    ],
)
@pytest.mark.parametrize("version", ["2.3.1", "2.5", "2.5.1"])
def test_preliminary_final_and_corrected(version, told, status, order, note):
    message = built(destination={"version": version}, **told)
    assert segments(message, "OBR")[0][25] == status
    assert segments(message, "ORC")[0][5] == order
    obx = segments(message, "OBX")
    assert [fields[11] for fields in obx] == ["O"] + [status] * (len(obx) - 1)
    assert note in [fields[5] for fields in obx]


def test_confirmed_result_is_not_called_doubtful():
    assert b"WARNING" not in built(doubtful=True, final=True, status="F")


# -- what a destination wants --------------------------------------------------------------------------------------


@pytest.mark.parametrize("report", [None, b"%PDF-1.4"])
@pytest.mark.parametrize("version", ["2.3.1", "2.5", "2.5.1"])
def test_mdm(version, report):
    destination = {"version": version, "message": "MDM^T02", "report": "embed"}
    message = built(destination=destination, report_pdf=report or b"", final=True, status="F")
    names = [line.split("|")[0] for line in message.decode().split("\r") if line]
    assert names[:6] == ["MSH", "EVN", "PID", "PV1", "TXA", "OBX"]
    assert segments(message, "MSH")[0][9] == "MDM^T02^MDM_T02"
    txa = segments(message, "TXA")[0]
    assert txa[2:5] == ["CD", "AP" if report else "TX", "20261120083000+0200"]
    assert (txa[12], txa[14], txa[15], txa[17], txa[19]) == ("GWABC^ECGGW", "ORD1", "A1^ECGGW", "AU", "AV")
    assert segments(built(destination=destination), "TXA")[0][17] == "PA"
    assert txa[13] == ""
    after = built(destination=destination, report_pdf=report or b"", final=True, status="F", replaces="GWFIRST")
    assert segments(after, "TXA")[0][12:14] == ["GWABC^ECGGW", "GWFIRST^ECGGW"]


@pytest.mark.parametrize("message", ["ORU^R01", "MDM^T02"])
@pytest.mark.parametrize("version", ["2.3.1", "2.5", "2.5.1"])
def test_report_is_embedded(version, message):
    pdf = bytes(range(256)) * 1000
    data = built(destination={"version": version, "message": message, "report": "embed"}, report_pdf=pdf)
    (obx,) = [fields for fields in segments(data, "OBX") if fields[2] == "ED"]
    assert obx[3] == "REPORT^ECG report^99ECGGW"
    kind, value = obx[5].rsplit("^", 1)
    assert kind == "^application^pdf^Base64"
    assert base64.b64decode(value) == pdf


def test_report_that_is_not_there_is_left_out():
    assert b"REPORT" not in built(destination={"report": "embed"})
    assert b"REPORT" not in built(report_pdf=b"%PDF-1.4")


def test_report_is_linked():
    address = "https://viewer.example/?study={study_instance_uid}&patient={patient_id}"
    context = CONTEXT.model_copy(update={"patient_id": "P 1&|"})
    data = built(context, {"report": "link", "report_url": address})
    (obx,) = [fields for fields in segments(data, "OBX") if fields[2] == "RP"]
    assert obx[5] == "https://viewer.example/?study=1.2.3\\T\\patient=P%201%26%7C^^application^pdf"


@pytest.mark.parametrize("message", ["ORU^R01", "MDM^T02"])
@pytest.mark.parametrize("version", ["2.3.1", "2.5", "2.5.1"])
def test_heart_rate_is_said_where_it_is_certain(version, message):
    destination = {"version": version, "message": message}
    data = built(destination=destination, record=hl7_examples.message_of().page.record, status="F", final=True)
    (obx,) = [fields for fields in segments(data, "OBX") if fields[2] == "NM"]
    assert (obx[3], obx[5], obx[6], obx[11]) == ("8867-4^Heart rate^LN", "75", "/min^^UCUM", "F")
    assert b"Heart rate" not in built(destination=destination)  # a flat line has none


def test_codes_can_be_edited():
    codes = Hl7CodeSettings(study="93000^ECG^C4", note="77^Bemerkung^L")
    message = built(codes=codes)
    assert segments(message, "OBR")[0][4] == "93000^ECG^C4"
    assert "77^Bemerkung^L" in [fields[3] for fields in segments(message, "OBX")]


@pytest.mark.parametrize(
    ("character_set", "name", "written"),
    [
        ("8859/1", "Müster^Zoë", "Müster^Zoë"),
        ("ASCII", "Muster^Zoe", "Muster^Zoe"),
        ("8859/1", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada^Tarou"),
        ("ISO IR87", "Yamada^Tarou=山田^太郎", "Yamada^Tarou~山田^太郎^^^^^^I"),
        ("GB 18030-2000", "Wang^XiaoDong=王^小东", "Wang^XiaoDong~王^小东^^^^^^I"),
        ("KS X 1001", "Hong^Gildong=洪^吉洞=홍^길동", "Hong^Gildong~洪^吉洞^^^^^^I~홍^길동^^^^^^P"),
    ],
)
def test_character_set(character_set, name, written):
    context = CONTEXT.model_copy(update={"patient_name": name})
    data = built(context, {"character_set": character_set})
    text = data.decode(CODECS[character_set])
    assert text.split("\rPID|")[1].split("|")[4] == written
    declared = text.split("\r")[0].split("|")[17]
    assert declared.split("~")[-1] == character_set
    assert parse(data, "ASCII").first("PID").text(5) == "".join(written.split("~")[0].split("^")[0])  # reads back


def test_character_that_the_set_lacks_is_refused_without_quoting_it():
    context = CONTEXT.model_copy(update={"patient_name": "Щукин^Юлия"})
    with pytest.raises(DeliveryRefused, match="characters that 8859/1 lacks") as caught:
        built(context, {"character_set": "8859/1"})
    assert "Щукин" not in str(caught.value)


def test_every_character_set_writes_ascii():
    for character_set in CODECS:
        assert parse(built(destination={"character_set": character_set}), "ASCII").first("PID").text(3) == "P1"


def test_mapping_sets_empties_removes_and_adds():
    fields = {
        "MSH-5": "ENGINE",
        "MSH-11": "T",
        "PV1-2": "O",
        "PV1-3.2": "12",
        "PID-5.2": "X",
        "OBR-4": "",
        "ORC": "",
        "ZEC-1": "{accession_number}",
        "ZEC-3": "{result_status}^{patient_id}",
    }
    context = CONTEXT.model_copy(update={"patient_id": "P|1"})
    message = built(context, {"fields": fields})
    names = [line.split("|")[0] for line in message.decode().split("\r") if line]
    assert names[:4] == ["MSH", "PID", "PV1", "OBR"] and names[-1] == "ZEC"
    assert (segments(message, "MSH")[0][5], segments(message, "MSH")[0][11]) == ("ENGINE", "T")
    assert segments(message, "PV1") == [["PV1", "", "O", "^12"]]
    assert segments(message, "PID")[0][5] == "Test^X^M^Jr^Dr"
    assert segments(message, "OBR")[0][4] == ""
    assert segments(message, "ZEC") == [["ZEC", "A1", "", "P^P\\F\\1"]]


def test_mapping_reaches_every_segment_of_a_name():
    message = built(destination={"fields": {"OBX-15": "ECGGW"}})
    assert {fields[15] for fields in segments(message, "OBX")} == {"ECGGW"}


@pytest.mark.parametrize(
    "fields",
    [{"MSH-10": "1"}, {"MSH-2": "^"}, {"pid-3": "1"}, {"PID-0": "1"}, {"PID": "x"}, {"PID-3": "{nobody}"}],
)
def test_mapping_that_cannot_be_meant_is_no_setting(fields):
    with pytest.raises(ValidationError):
        Hl7Destination(name="ehr", host="h", port=1, fields=fields)


def test_link_needs_an_address():
    with pytest.raises(ValidationError, match="report_url"):
        Hl7Destination(name="ehr", host="h", port=1, report="link")


def test_batch_of_one():
    message = built(destination={"batch": True})
    lines = message.decode().split("\r")
    assert [line[:3] for line in lines[:3]] == ["FHS", "BHS", "MSH"]
    assert lines[-3:] == ["BTS|1", "FTS|1", ""]
    assert lines[1].split("|")[2:4] == ["ECGGW", "HOSPITAL"] and lines[1].split("|")[10] == "GWABC"
    assert split_batch(message) == [built()]


# -- acknowledgements ----------------------------------------------------------------------------------------------


def test_ack_mirrors_the_message():
    message = b"MSH|^~\\&|APP|FAC|GW|HOSP|20261122||ADT^A08^ADT_A01|ID7|T|2.5||||||8859/1\rPID|1\r"
    ack = build_ack(message, "AA", created_at=CREATED_AT)
    header = scan_header(ack)
    assert [header.field(n) for n in (3, 4, 5, 6, 9, 11, 12, 18)] == [
        b"GW",
        b"HOSP",
        b"APP",
        b"FAC",
        b"ACK^A08^ACK",
        b"T",
        b"2.5",
        b"8859/1",
    ]
    assert 0 < len(header.field(10)) <= 20
    assert ack.split(b"\r")[1] == b"MSA|AA|ID7"
    assert scan_acknowledgement(ack).error_code == ""


@pytest.mark.parametrize(
    ("version", "err"),
    [
        (b"2.5.1", b"ERR|||204^Unknown key identifier^HL70357|E"),
        (b"2.3.1", b"ERR|^^^204&Unknown key identifier&HL70357"),
    ],
)
def test_ack_of_an_error_is_valid_and_reads_back(version, err):
    ack = build_ack(
        b"MSH|^~\\&|A|B|C|D|20261122||ORU^R01|ID7|P|" + version + b"\r", "AE", problem=Problem(error_code="204")
    )
    assert err in ack.split(b"\r")
    found = scan_acknowledgement(ack)
    assert (found.code, found.message_control_id, found.error_code) == ("AE", b"ID7", "204")
    assert parse_message(ack.decode().rstrip("\r")).validate()


@pytest.mark.parametrize(
    ("version", "msa", "err"),
    [
        (b"2.5.1", b"MSA|AE|ID7", b"ERR||PID^1^5|102^Data type error^HL70357|E||||a name"),
        (b"2.3.1", b"MSA|AE|ID7|a name", b"ERR|PID^1^5^102&Data type error&HL70357"),
    ],
)
def test_ack_names_the_field_and_the_reason(version, msa, err):
    problem = Problem(error_code="102", words="a name", segment="PID", field=5)
    ack = build_ack(b"MSH|^~\\&|A|B|C|D|20261122||ADT^A08|ID7|P|" + version + b"\r", "AE", problem=problem)
    assert ack.split(b"\r")[1:3] == [msa, err]
    assert parse_message(ack.decode().rstrip("\r")).validate()


@pytest.mark.parametrize(
    "message",
    [
        b"MSH|^~\\&|A|B|C|D|20261122||ADT^A99|ID7|P|2.9\r",
        b"MSH|^~\\&|A|B|C|D|20261122||ADT^A99|ID7|P|\rPID|1",
        b"MSH|^~\\&|A|B|C|D|20261122||ADT^A99|ID7\nPID|1\n",
        b"MSH#@~\\&#A#B#C#D#20261122##ADT@A99#ID7#P#2.5\r",
        b"\xef\xbb\xbf\r\nMSH|^~\\&|A|B|C|D|20261122||ADT^A99|ID7|P|2.5\r",
        b"MSH|^~\\&|A\xff\xfe|B|C|D|20261122||ADT^A99|ID7|P|2.5\r",
    ],
)
def test_any_version_gets_its_answer(message):
    found = scan_acknowledgement(build_ack(message, "AR"))
    assert (found.code, found.message_control_id) == ("AR", b"ID7")


@pytest.mark.parametrize("message", [b"", b"hello", b"MSH", b"MSH|", b"\x00\xff", b"PID|1\rMSH|^~\\&|A\r"])
def test_what_has_no_msh_still_gets_an_answer(message):
    assert scan_header(message) is None
    found = scan_acknowledgement(build_ack(message, "AR", problem=Problem(error_code="100")))
    assert (found.code, found.message_control_id, found.error_code) == ("AR", b"", "100")


@pytest.mark.parametrize("head", [b"", b"BHS|^~\\&\r"])
def test_of_a_long_answer_only_the_beginning_is_looked_at(head):
    answer = head + b"MSH|^~\\&|A|B|C|D|20261122||ACK|X|P|2.5\rMSA|AA|ID7\r" + b"ZZ\r" * 5_000_000
    times = []
    for _ in range(3):
        begun = time.thread_time()
        assert scan_acknowledgement(answer).message_control_id == b"ID7"
        times.append(time.thread_time() - begun)
    assert min(times) < 0.2  # the whole answer takes several seconds


def test_acks_have_their_own_control_ids():
    message = b"MSH|^~\\&|A|B|C|D|20261122||ADT^A08|ID7|P|2.5\r"
    at = datetime.now(UTC)
    ids = {scan_header(build_ack(message, "AA", created_at=at)).field(10) for _ in range(50)}
    assert len(ids) == 50
