"""Messages in, answers out, and what they leave in the database."""

from __future__ import annotations

import functools
import socket
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, event
from sqlmodel import select

from gateway.domain.artefact import Role
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.identity import Decision
from gateway.domain.received import ReceivedObject
from gateway.domain.status import DeliveryAction, JobStatus
from gateway.errors import IllegalTransition, StorageError
from gateway.hl7.inbound.acknowledgement import scan_acknowledgement
from gateway.hl7.inbound.parsing import CODECS, parse
from gateway.hl7.inbound.receiver import Receiver
from gateway.hl7.inbound.updates import MERGE_EVENTS, ORDER_MESSAGES, PATIENT_EVENTS, made_at
from gateway.hl7.transport.frames import FrameParser, frame
from gateway.hl7.transport.mllp import MllpListener
from gateway.identity.orders import Records
from gateway.intake.accept import Intake
from gateway.settings import CharacterSet
from gateway.store.commitments import Settlement
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job, Page, Patient
from tests.waiting import PATIENCE_S

PID = "PID|1||P1^^^HOSP^MR||Muster^Zoë^M^Jr^Dr||19610504|F"


def message(
    kind: str, *segments: str, control_id: str = "M1", made: str = "20261122101530+0100", tail: str = ""
) -> bytes:
    header = f"MSH|^~\\&|EHR|HOSP|ECGGW|HOSP|{made}||{kind}|{control_id}|P|2.5.1{tail}"
    return "\r".join([header, *segments, ""]).encode()


def adt(event: str = "A08", pid: str = PID, *segments: str, **header: str) -> bytes:
    return message(f"ADT^{event}", f"EVN|{event}", pid, *segments, **header)


def orm(accession: str = "A1", pid: str = PID, control: str = "NW", **header: str) -> bytes:
    orc = f"ORC|{control}|ORD1^EHR|F1^RIS"
    obr = f"OBR|1|ORD1^EHR|F1^RIS|11524-6^EKG study^LN||||||||||||7^House^Gregory|  |{accession}"
    return message("ORM^O01", pid, "PV1|1|I", orc, obr, **header)


@pytest.fixture
def receiver(store: Store) -> Receiver:
    return Receiver(Records(store), "UNICODE UTF-8")


def codes(answers: tuple[bytes, ...]) -> list[tuple[str, str]]:
    """(MSA-1, error code) of every answer."""
    found = [scan_acknowledgement(answer) for answer in answers]
    assert all(found)
    return [(ack.code, ack.error_code) for ack in found if ack]


# -- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", PATIENT_EVENTS)
def test_patient_messages(receiver, store, event):
    assert codes(receiver(adt(event))) == [("AA", "")]
    patient = store.patients.patient("P1", "HOSP")
    assert (patient.patient_name, patient.patient_birth_date, patient.patient_sex) == (
        "Muster^Zoë^M^Dr^Jr",
        "19610504",
        "F",
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"hello", ("AR", "100")),
        (b"MSH|^~\\&|A|B|C|D|20261122||ADT^A08||P|2.5\rPID|1||P1\r", ("AR", "101")),
        (message("ADT^A99", PID), ("AR", "201")),
        (message("ORM^O02", PID), ("AR", "201")),
        (message("SIU^S12", PID), ("AR", "200")),
        (message("ADT^A08"), ("AE", "100")),
        (adt(pid="PID|1||^^^HOSP^MR||Muster^Zoë"), ("AE", "101")),
        (adt("A40"), ("AE", "100")),
        (adt("A40", PID, "MRG|^^^HOSP"), ("AE", "101")),
        (message("ADT^A40", "MRG|P0^^^HOSP", PID), ("AE", "100")),
        (message("OMG^O19", PID), ("AE", "100")),
        (message("OMG^O19", PID, "ORC|NW", "OBR|1"), ("AE", "101")),
    ],
)
def test_what_cannot_be_used_is_answered_with_the_reason(receiver, store, data, expected):
    assert codes(receiver(data)) == [expected]
    assert store.patients.patient("P1", "HOSP") is None


def test_feed_that_is_not_filtered_may_be_acknowledged(store):
    receiver = Receiver(Records(store), "UNICODE UTF-8", acknowledge_others=True)
    assert codes(receiver(adt("A03"))) == codes(receiver(message("SIU^S12", PID))) == [("AA", "")]
    assert codes(receiver(adt("A03", tail="|||AL|NE"))) == [("CA", "")]
    assert store.patients.patient("P1", "HOSP") is None
    assert codes(receiver(message("ADT^A08"))) == [("AE", "100")]  # what is taken must be whole
    assert codes(receiver(b"hello")) == [("AR", "100")]


LONG = "at most 64 characters without backslash and control characters"


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (adt(pid="PID|1||P\\X1C\\1^^^HOSP^MR||A^B"), "PID^1^3", f"patient_id must be {LONG}"),
        (adt(pid="PID|1||P\\E\\1^^^HOSP^MR||A^B"), "PID^1^3", f"patient_id must be {LONG}"),
        (adt(pid=f"PID|1||{'P' * 65}||A^B"), "PID^1^3", f"patient_id must be {LONG}"),
        (adt(pid="PID|1|P\\X0D\\1||"), "PID^1^2", f"patient_id must be {LONG}"),
        (adt(pid=f"PID|1||P1^^^{'H' * 65}||A^B"), "PID^1^3", f"issuer_of_patient_id must be {LONG}"),
        (adt(pid=f"PID|1||P1||{'N' * 65}^B"), "PID^1^5", "patient_name must be a DICOM name of at most 64"),
        (adt("A40", PID, "MRG|OLD", PID, "MRG|O\\X00\\LD"), "MRG^2^1", f"patient_id must be {LONG}"),
        (orm("A" * 17), "OBR^1^18", "accession_number must be at most 16 characters"),
        (message("ORM^O01", PID, "ORC|NW|1", "ORC|NW|2\\X1B\\"), "ORC^2^2", f"placer_order_number must be {LONG}"),
        (
            message("ORM^O01", PID, "ORC|NW|1", f"OBR|1|||||||||||||||7^{'D' * 65}"),
            "OBR^1^16",
            "referring_physician_name must be a DICOM name",
        ),
    ],
)
def test_value_that_dicom_forbids_is_refused_and_the_field_named(receiver, store, data, place, words):
    (answer,) = receiver(data)
    assert f"ERR||{place}|102^Data type error^HL70357|E||||{words}" in answer.decode()
    assert b"MSA|AE|M1" in answer
    assert store.patients.patient("P1", "HOSP") is None


@pytest.mark.parametrize("number", [3, 4, 10])
@pytest.mark.parametrize("value", ["\x00A\x00B", "A\x1b[31m", "A" * 251])
def test_header_that_cannot_be_kept_is_refused(receiver, number, value):
    fields = adt().decode().split("|")
    fields[number - 1] = value
    (answer,) = receiver("|".join(fields).encode())
    assert f"ERR||MSH^1^{number}|102^" in answer.decode()


def orders(count: int, control_id: str = "M1") -> bytes:
    return message("ORM^O01", PID, *(f"ORC|NW|N{number}" for number in range(count)), control_id=control_id)


def merges(count: int) -> bytes:
    return message("ADT^A40", "EVN|A40", *(f"PID|1||P1\rMRG|OLD{number}" for number in range(count)))


BATCH = b"BHS|^~\\&|EHR|HOSP|GW|H|20261122||||B7\r"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (orders(101), "more than 100 orders in one message"),
        (merges(101), "more than 100 merges in one message"),
        (adt("A08", PID, *["ZZ"] * 10_000), "more than 10000 segments in one message"),
        (adt("A08", PID, *["ZZ"] * 5_000_000), "more than 10000 segments in one message"),
        (adt("A08", PID.replace("Muster", "~" * 70_000)), "the PID segment has more than 65536 characters"),
        (adt("A08", tail="|||||" + "|" * 70_000), "the MSH segment has more than 65536 characters"),
        (BATCH + b"ZZ\r" * 100_001, "more than 100000 segments in one batch"),
    ],
    ids=["orders", "merges", "segments", "15 MiB of segments", "long segment", "long MSH", "batch"],
)
def test_too_much_for_one_message_is_answered_at_once_with_the_bound(receiver, store, data, reason):
    begun = time.process_time()
    (answer,) = receiver(data)
    assert time.process_time() - begun < 0.9
    assert b"MSA|AR|" in answer
    assert f"|E||||{reason}\r".encode() in answer
    assert store.patients.patient("P1") is None


def test_as_much_as_a_message_may_have_is_taken(receiver, store):
    assert codes(receiver(orders(100))) == [("AA", "")]
    assert store.patients.order("N99") is not None
    assert codes(receiver(merges(100))) == [("AA", "")]
    assert len(store.patients.prior_ids("P1")) == 100
    assert codes(receiver(adt("A08", PID, *["ZZ"] * 9_900, control_id="M3"))) == [("AA", "")]


def test_merge_into_a_long_line_of_merged_records_takes_no_statement_for_each_of_them(receiver, store):
    line = message("ADT^A40", "EVN|A40", *(f"PID|1||L{n + 1}\rMRG|L{n}" for n in range(100)), control_id="M2")
    assert codes(receiver(line)) == [("AA", "")]
    statements = []

    def count(_connection, _cursor, statement, *_) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        assert codes(receiver(message("ADT^A40", "PID|1||L0", "MRG|NEW", control_id="M3"))) == [("AA", "")]
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert len(statements) < 30
    assert store.patients.patient("NEW").patient_id == "L100"


def test_long_message_that_is_not_taken_may_still_be_acknowledged(store):
    receiver = Receiver(Records(store), "UNICODE UTF-8", acknowledge_others=True)
    assert codes(receiver(message("ORU^R01", PID, *["OBX|1"] * 20_000))) == [("AA", "")]


@pytest.mark.parametrize(
    ("wanted", "well", "badly"),
    [
        ("||", ["AA"], ["AE"]),  # original mode
        ("|AL|NE", ["CA"], ["CE"]),
        ("|AL|AL", ["CA", "AA"], ["CE"]),
        ("|NE|AL", ["AA"], ["AE"]),
        ("|ER|AL", ["AA"], ["CE"]),
        ("|SU|ER", ["CA"], ["AE"]),
        ("|ER|NE", [], ["CE"]),
        ("|NE|NE", [], []),
        ("||SU", ["AA"], []),
    ],
)
def test_modes_by_msh_15_and_16(receiver, wanted, well, badly):
    tail = "||" + wanted
    assert [code for code, _ in codes(receiver(adt(tail=tail)))] == well
    assert [code for code, _ in codes(receiver(adt(pid="PID|1", control_id="M2", tail=tail)))] == badly
    assert [code for code, _ in codes(receiver(adt(tail=tail)))] == well  # a repeat


def test_repeat_gets_the_same_answer_and_changes_nothing(receiver, store):
    first = receiver(adt())
    receiver(adt(pid=PID.replace("Muster", "Other"), control_id="M2", made="20261122101531+0100"))
    assert receiver(adt()) == first
    assert receiver(adt(made="20261122235959+0100")) == first  # only the time in MSH-7 is new
    assert store.patients.patient("P1").patient_name.startswith("Other")


def test_control_id_used_twice_is_no_repeat_when_the_content_differs(receiver, store):
    receiver(adt())
    assert codes(receiver(adt(pid=PID.replace("P1", "P2")))) == [("AA", "")]
    assert store.patients.patient("P2") is not None


def test_same_control_id_of_another_sender_is_no_repeat(receiver, store):
    receiver(adt())
    receiver(adt(pid=PID.replace("Muster", "Other")).replace(b"|EHR|HOSP|", b"|EHR|CLINIC|"))
    assert store.patients.patient("P1").patient_name.startswith("Other")


def test_nothing_is_kept_where_the_answer_could_not_be(receiver, store, monkeypatch):
    def fail(*_: object) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr(store.patients, "receive", fail)
    assert codes(receiver(adt())) == [("AE", "207")]
    monkeypatch.undo()
    assert store.patients.patient("P1") is None
    assert codes(receiver(adt())) == [("AA", "")]  # it is sent again, and taken


def test_batch_is_taken_one_by_one(receiver, store):
    wrong = message("SIU^S12", control_id="M3")
    data = b"FHS|^~\\&|EHR|HOSP\rBHS|^~\\&|EHR|HOSP|GW|H|20261122||||B7\r" + adt() + wrong + b"BTS|2\rFTS|1\r"
    (answer,) = receiver(data)
    lines = answer.decode().split("\r")
    assert [line[:3] for line in lines] == ["FHS", "BHS", "MSH", "MSA", "MSH", "MSA", "ERR", "BTS", "FTS", ""]
    assert lines[1].split("|")[2:6] == ["GW", "H", "EHR", "HOSP"]
    assert lines[1].split("|")[11] == "B7"
    assert (lines[3], lines[5], lines[7]) == ("MSA|AA|M1", "MSA|AR|M3", "BTS|2")
    assert store.patients.patient("P1") is not None


@pytest.mark.parametrize("data", [b"FHS", b"BHS", b"FHS\r" + adt(), b"BHS|\r" + adt()])
def test_batch_without_delimiters_is_answered_in_the_usual_ones(receiver, data):
    (answer,) = receiver(data)
    lines = answer.decode().split("\r")
    assert lines[0].startswith(data[:3].decode() + "|^~\\&")
    assert [line for line in lines if line.startswith("MSA")] == (["MSA|AA|M1"] if b"MSH" in data else [])


def test_over_the_wire(receiver, store):
    listener = MllpListener("127.0.0.1", 0, receiver)
    listener.start()
    try:
        with socket.create_connection(("127.0.0.1", listener.port), PATIENCE_S) as connection:
            lf = adt(control_id="M2").replace(b"\r", b"\n")
            crlf = adt(control_id="M3").replace(b"\r", b"\r\n")
            no_end = adt(control_id="M4").rstrip(b"\r")
            asks_both = adt(control_id="M5", tail="|||AL|AL")
            sent = [adt(), lf, crlf, no_end, asks_both]
            connection.sendall(b"\x00\x00noise".join(frame(data) for data in sent))
            parser, found = FrameParser(), []
            while len(found) < 6:
                found += parser.feed(connection.recv(65536))
        acks = [scan_acknowledgement(answer) for answer in found]
        assert [(ack.code, ack.message_control_id) for ack in acks] == [
            *[("AA", f"M{n}".encode()) for n in range(1, 5)],
            ("CA", b"M5"),
            ("AA", b"M5"),
        ]
    finally:
        listener.stop()


# -- reading -------------------------------------------------------------------------------------------------------


def told(receiver: Receiver, store: Store, pid: str, number: list[int] = [0]) -> object:  # noqa: B006 - a counter
    number[0] += 1
    assert codes(receiver(adt(pid=pid, control_id=f"T{number[0]}"))) == [("AA", "")]
    return store.patients.patient("P1")


@pytest.mark.parametrize(
    ("pid", "issuer"),
    [
        ("PID|1||P1", ""),
        ("PID|1||P1^^^HOSP&1.2.3&ISO^MR", "HOSP"),
        ("PID|1||P1^^^&1.2.3&ISO^MR", "1.2.3"),
        ("PID|1||X9^^^ACCOUNTS^AN~P1^^^HOSP^MR", "HOSP"),
        ("PID|1||S5^^^STATE^SS~P1^^^HOSP^PI", "HOSP"),
        ("PID|1|P1^^^HOSP||", "HOSP"),  # 2.3.1 and before
        ("PID|1||~P1^^^HOSP^MR", "HOSP"),
    ],
)
def test_patient_identifier(receiver, store, pid, issuer):
    assert told(receiver, store, pid).issuer_of_patient_id == issuer


@pytest.mark.parametrize(
    ("xpn", "name"),
    [
        ("Muster^Zoë", "Muster^Zoë"),
        ("van Beethoven&van&Beethoven^Ludwig", "van Beethoven^Ludwig"),
        ("Yamada^Tarou~山田^太郎^^^^^^I~やまだ^たろう^^^^^^P", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("Maiden^Zoë^^^^^M~Muster^Zoë^^^^^L", "Muster^Zoë"),
        ("O\\S\\Hara\\T\\Co^A\\R\\B\\F\\C\\E\\D", "O Hara&Co^A~B|C D"),
        ('Muster^""', "Muster"),
        ("^Zoë", "^Zoë"),
    ],
)
def test_patient_name(receiver, store, xpn, name):
    assert told(receiver, store, f"PID|1||P1||{xpn}").patient_name == name


def test_empty_tells_nothing_and_null_tells_that_there_is_none(receiver, store):
    told(receiver, store, PID)
    patient = told(receiver, store, "PID|1||P1^^^HOSP^MR||||")
    assert (patient.patient_name, patient.patient_birth_date) == ("Muster^Zoë^M^Dr^Jr", "19610504")
    patient = told(receiver, store, 'PID|1||P1^^^HOSP^MR||""||""|""')
    assert (patient.patient_name, patient.patient_birth_date, patient.patient_sex) == ("", "", "")


@pytest.mark.parametrize(("birth", "date"), [("19610504", "19610504"), ("196105041230", "19610504"), ("1961", "")])
def test_birth_date_is_a_date_or_nothing(receiver, store, birth, date):
    assert told(receiver, store, f"PID|1||P1||A^B||{birth}").patient_birth_date == date


@pytest.mark.parametrize(
    ("declared", "codec"),
    [
        ("8859/1", "latin-1"),
        ("8859/15", "iso8859-15"),
        ("UNICODE UTF-8", "utf-8"),
        ("UNICODE", "utf-8"),
        ("", "utf-8"),
        ("ASCII", "utf-8"),  # declared wrongly
        ("8859/99", "utf-8"),  # unknown
        ("", "latin-1"),  # undeclared, and not the default
    ],
)
def test_character_sets(receiver, store, declared, codec):
    assert codes(receiver(adt(tail=f"||||||{declared}").decode().encode(codec))) == [("AA", "")]
    assert store.patients.patient("P1").patient_name == "Muster^Zoë^M^Dr^Jr"


@pytest.mark.parametrize(
    ("declared", "codec", "name"),
    [
        ("ASCII~ISO IR87", "iso2022_jp", "山田^太郎"),
        ("~ISO IR87", "iso2022_jp", "山田^太郎"),
        ("ISO IR14", "shift_jis", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        ("KS X 1001", "euc_kr", "홍^길동"),
        ("GB 18030-2000", "gb18030", "王^小东"),
        ("BIG-5", "big5", "王^小東"),
        ("8859/5", "iso8859-5", "Щукин^Юлия"),
    ],
)
def test_names_of_the_world(receiver, store, declared, codec, name):
    data = adt(pid=f"PID|1||P1||{name}||19610504", tail=f"||||||{declared}").decode().encode(codec)
    assert codes(receiver(data)) == [("AA", "")]
    assert (store.patients.patient("P1").patient_name, store.patients.patient("P1").patient_birth_date) == (
        name,
        "19610504",
    )


def test_every_character_set_of_the_settings_can_be_read():
    assert set(CODECS) == set(CharacterSet.__args__)
    assert all("A".encode(codec) == b"A" for codec in CODECS.values())


@pytest.mark.parametrize("written", ["Zo\\XC3AB\\", "Zo\\XEB\\", "Zo\\.sp\\ë"])
def test_escapes_of_characters_and_formats(receiver, store, written):
    receiver(adt(pid=f"PID|1||P1^^^HOSP^MR||A\\T\\B^{written}"))
    assert store.patients.patient("P1").patient_name.replace(" ", "") == "A&B^Zoë"


def test_other_delimiters(receiver, store):
    data = b"MSH#@*!%#EHR#HOSP#GW#H#20261122##ADT@A08#M1#P#2.5\rPID#1##P1@@@HOSP%1.2@MR##A|B@C!F!D\r"
    assert codes(receiver(data)) == [("AA", "")]
    assert store.patients.patient("P1", "HOSP").patient_name == "A|B^C#D"


@pytest.mark.parametrize(
    ("evn", "msh", "moment"),
    [
        ("20261122080000+0200", "20261122101530", datetime(2026, 11, 22, 6, tzinfo=UTC)),
        ("", "20261122080000-0530", datetime(2026, 11, 22, 13, 30, tzinfo=UTC)),
        ("202611220800+0000", "", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        ("", "20261122", None),  # no more than a day: when it came counts
        ("20291231235959+0000", "", None),  # a clock that is wrong must not block what comes after
        ("2026112208000x", "99999999999999", None),
    ],
)
def test_when_a_message_was_made(evn, msh, moment):
    received_at = datetime(2026, 11, 23, tzinfo=UTC)
    data = message("ADT^A08", f"EVN||{evn}", PID, made=msh)
    assert made_at(parse(data, "ASCII"), received_at) == (moment or received_at)


# -- out of order --------------------------------------------------------------------------------------------------


def test_an_older_message_fills_only_what_is_empty(receiver, store):
    receiver(adt(pid="PID|1||P1^^^HOSP^MR||New^Name", made="20261122120000+0000"))
    receiver(adt(pid="PID|1||P1^^^HOSP^MR||Old^Name||19610504", control_id="M2", made="20261122110000+0000"))
    patient = store.patients.patient("P1")
    assert (patient.patient_name, patient.patient_birth_date) == ("New^Name", "19610504")


def test_an_older_message_that_is_not_followed_says_so(receiver, store, caplog):
    stated = "older than what is known: what a newer message said stands"
    other = PID.replace("Muster", "Master")
    assert stated not in receiver(adt(made="20261122101530+0100"))[0].decode()
    assert stated not in receiver(adt(made="20261122101500+0100", control_id="M2"))[0].decode()  # it says the same
    late = adt(pid=other, made="20261122101500+0100", control_id="M3")
    (answer,) = receiver(late)
    assert b"\rMSA|AA|M3|" + stated.encode() + b"\r" in answer
    assert [record.action for record in caplog.records if record.levelname == "WARNING"] == ["hl7_old"]
    assert store.patients.patient("P1", "HOSP").patient_name.startswith("Muster")
    assert receiver(late) == (answer,)  # a repeat
    receiver(orm(made="20261122101530+0100", control_id="M4"))
    (answer,) = receiver(orm(control="CA", made="20261122101500+0100", control_id="M5"))
    assert stated in answer.decode()


def test_what_a_clock_that_stood_ahead_told_does_not_stand_for_years(receiver, store):
    receiver(adt())
    with store.database.write() as session:
        (patient,) = session.exec(select(Patient)).all()
        patient.told_at = utc_now() + timedelta(days=3650)
    receiver(adt(pid=PID.replace("Muster", "Master"), control_id="M2"))
    assert store.patients.patient("P1", "HOSP").patient_name.startswith("Master")
    with store.database.read() as session:
        assert session.exec(select(Patient)).one().told_at < utc_now()


def test_a_cancelled_order_stays_cancelled_when_its_start_comes_late(receiver, store):
    receiver(orm(control="CA", made="20261122120000+0000"))
    receiver(orm(control="NW", made="20261122110000+0000", control_id="M2"))
    order, _ = store.patients.order("A1")
    assert order.cancelled


# -- orders --------------------------------------------------------------------------------------------------------


def omi(accession: str) -> bytes:
    segments = (PID, "ORC|NW|ORD1|F1", "TQ1|1", "OBR|1|ORD1|F1|EKG^Electrocardiogram^L", f"IPC|{accession}|RP1")
    return message("OMI^O23^OMI_O23", *segments)


@pytest.mark.parametrize("data", [orm(), orm().replace(b"ORM^O01", b"OMG^O19^OMG_O19"), omi("A1")])
def test_orders(receiver, store, data):
    assert codes(receiver(data)) == [("AA", "")]
    for number in ("A1", "ORD1", "F1"):
        order, patient = store.patients.order(number)
        assert (order.accession_number, order.placer_order_number, order.filler_order_number) == ("A1", "ORD1", "F1")
        issuers = ("", "") if b"OMI" in data else ("EHR", "RIS")
        assert (order.placer_order_issuer, order.filler_order_issuer) == issuers
        assert patient.patient_id == "P1"


@pytest.mark.parametrize(
    ("segment", "uid"),
    [
        ("IPC|A1|RP1|1.2.3.4|SPS1", "1.2.3.4"),
        ("ZDS|1.2.3.4^RIS^Application^DICOM", "1.2.3.4"),  # IHE RAD TF-2 4.4
        ("ZDS|none", ""),
        ("NTE|1", ""),
    ],
)
def test_result_goes_into_the_study_of_its_order(receiver, store, intake, segment, uid):
    receiver(orm().rstrip(b"\r") + b"\r" + segment.encode() + b"\r")
    assert context_of(store, scan(intake, "a", accession_number="A1")).study_instance_uid == uid
    dicom = scan(intake, "b", accession_number="A1", study_instance_uid="1.9")
    assert context_of(store, dicom).study_instance_uid == "1.9"  # a page that is in a study stays there


def test_several_orders_in_a_message(receiver, store):
    groups = [line for n in (1, 2) for line in (f"ORC|NW|ORD{n}", f"OBR|{n}|ORD{n}||EKG^ECG^L||||||||||||||A{n}")]
    receiver(message("OMG^O19", PID, *groups))
    assert [store.patients.order(f"A{n}")[0].placer_order_number for n in (1, 2)] == ["ORD1", "ORD2"]


def test_an_order_learns_its_numbers_one_after_the_other(receiver, store):
    receiver(message("ORM^O01", PID, "ORC|NW|ORD1", "OBR|1|ORD1||EKG"))
    receiver(message("ORM^O01", PID, "ORC|SC|ORD1|F1", "OBR|1|ORD1|F1|EKG||||||||||||||A1", control_id="M2"))
    order, _ = store.patients.order("A1")
    assert (order.placer_order_number, order.filler_order_number) == ("ORD1", "F1")


def test_number_of_two_patients_is_nobodys(receiver, store, intake):
    waiting = scan(intake, "a", accession_number="ORD1")
    receiver(orm("A1"))
    assert store.jobs.get(waiting).status == JobStatus.QUEUED
    receiver(orm("A2", pid="PID|1||P2^^^CLINIC^MR||Other^Ann", control_id="M2"))  # placer number ORD1 again
    assert store.patients.order("ORD1") is None
    assert (store.patients.order("A1")[1].patient_id, store.patients.order("A2")[1].patient_id) == ("P1", "P2")
    assert store.jobs.get(scan(intake, "b", accession_number="ORD1")).status == JobStatus.NEEDS_REVIEW
    receiver(orm("A2", pid="PID|1||P2^^^CLINIC^MR", control="CA", control_id="M3"))
    assert store.patients.order("ORD1")[1].patient_id == "P1"  # the other one is cancelled


def test_order_of_a_merged_patient_stays_one_order(receiver, store):
    receiver(orm())
    merge(receiver)
    receiver(orm(pid="PID|1||P2^^^HOSP^MR", control_id="M10"))
    assert store.patients.order("A1")[1].patient_id == "P2"


def test_referring_physician_is_a_person_name(receiver, store):
    receiver(orm())
    assert store.patients.order("A1")[0].referring_physician_name == "House^Gregory"


def test_types_taken_are_all_tested_here():
    assert PATIENT_EVENTS == ("A01", "A04", "A05", "A08", "A28", "A31")
    assert MERGE_EVENTS == ("A34", "A35", "A36", "A40")
    assert ORDER_MESSAGES == {"ORM": "O01", "OMG": "O19", "OMI": "O23"}


# -- jobs: matching ------------------------------------------------------------------------------------------------


def scan(intake: Intake, name: str, **context: str) -> str:
    """A page that came by a watched folder; return its job."""
    return intake.accept(
        ReceivedObject(
            source="folder:/scans",
            source_key=name,
            media_type="image/png",
            data=name.encode(),
            context=StudyContext(**context),
            destinations=None,
            actor="folder",
        )
    ).job_id


def context_of(store: Store, job_id: str) -> StudyContext:
    return store.jobs.get(job_id).context


def test_scan_takes_the_identity_of_its_order(receiver, store, intake):
    receiver(orm())
    job_id = scan(intake, "a", accession_number="A1")
    assert store.jobs.get(job_id).status == JobStatus.QUEUED
    context = context_of(store, job_id)
    assert (context.patient_id, context.issuer_of_patient_id) == ("P1", "HOSP")
    assert context.patient_name == "Muster^Zoë^M^Dr^Jr"
    assert (context.placer_order_number, context.referring_physician_name) == ("ORD1", "House^Gregory")


def test_scan_waits_for_its_order(receiver, store, intake):
    job_id = scan(intake, "a", accession_number="A1")
    other = scan(intake, "b", accession_number="A2")
    assert [job.id for job in store.jobs.unmatched()] == [job_id, other]
    receiver(orm())
    assert [job.id for job in store.jobs.unmatched()] == [other]
    assert store.jobs.get(job_id).status == JobStatus.QUEUED
    assert context_of(store, job_id).patient_id == "P1"
    assert "MATCH" in [event.action for event in store.jobs.events(job_id)]


def c_store(intake: Intake, name: str, **context: str) -> str:
    """A page that a DICOM peer sent; return its job."""
    received = ReceivedObject(
        source="dicom:CART",
        source_key=name,
        media_type="application/dicom",
        data=name.encode(),
        context=StudyContext(**context),
        actor="scp",
    )
    return intake.accept(received).job_id


@pytest.mark.parametrize("arrive", [scan, c_store])
def test_order_and_page_give_the_same_whichever_comes_first(receiver, store, intake, arrive):
    jobs = {}
    for first in ("page", "order"):
        for kind, told in {
            "order": {},
            "same name": {"patient_name": "MUSTER^Z"},
            "other name": {"patient_name": "Other^Ann"},
            "nobody": {"accession_number": ""},
        }.items():
            number = f"{first} {kind}"
            take = functools.partial(arrive, intake, number, **{"accession_number": number[:16], **told})
            order = functools.partial(receiver, orm(number[:16], control_id=number).replace(b"ORD1", number.encode()))
            if first == "order":
                order()
            jobs[first, kind] = take()
            if first == "page":
                order()
    rows = {key: store.jobs.get(job_id) for key, job_id in jobs.items()}
    for kind in ("order", "same name", "other name", "nobody"):
        one, other = (rows[first, kind] for first in ("page", "order"))
        assert (one.status, one.reason, one.unmatched) == (other.status, other.reason, other.unmatched), kind
        assert (one.status == JobStatus.QUEUED) == (kind in ("order", "same name")) == (one.patient_id == "P1"), kind
        assert one.unmatched == (one.status == JobStatus.NEEDS_REVIEW), kind
    assert "another family name" in rows["page", "other name"].reason
    assert Records(store).match_waiting() == []


@pytest.mark.parametrize("arrive", [scan, c_store])
def test_order_that_comes_between_the_search_and_the_commit_of_its_page_is_found(
    receiver, store, intake, spool, monkeypatch, arrive
):
    write = spool.write_source

    def write_slowly(job_id: str, data: bytes) -> None:  # the page was searched for its order before
        receiver(orm())
        write(job_id, data)

    monkeypatch.setattr(spool, "write_source", write_slowly)
    job = store.jobs.get(arrive(intake, "a", accession_number="A1"))
    assert (job.status, job.unmatched, job.patient_id) == (JobStatus.QUEUED, False, "P1")
    assert "MATCH" in [event.action for event in store.jobs.events(job.id)]


def test_orders_and_pages_at_once_all_find_each_other(store, spool):
    """No sweep helps: whichever transaction is the second one sees the first."""
    start, jobs = threading.Barrier(2), []

    def orders() -> None:
        receive = Receiver(Records(store), "UNICODE UTF-8")
        for number in range(40):
            start.wait(PATIENCE_S)
            receive(orm(f"A{number}", control_id=f"M{number}").replace(b"ORD1", f"ORD{number}".encode()))

    def pages() -> None:
        intake = Intake(spool, store)
        for number in range(40):
            start.wait(PATIENCE_S)
            jobs.append(scan(intake, f"page {number}", accession_number=f"A{number}"))

    threads = [threading.Thread(target=run) for run in (orders, pages)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.jobs.get(job_id).status for job_id in jobs] == [JobStatus.QUEUED] * 40


def test_page_without_a_patient_that_is_digitized_all_the_same_is_on_the_list(store):
    job, _ = store.jobs.submit(Job(source="submit", source_key="a", media_type="image/png"), "test")
    store.jobs.claim("w", 60)
    store.jobs.complete(job.id, "w", JobResult(status=JobStatus.NEEDS_REVIEW, reason="no patient ID"))
    assert [held.id for held in store.jobs.unmatched()] == [job.id]


def test_order_that_comes_while_a_look_up_runs_is_found(receiver, store):
    receiver(orm())  # committed after the job's search for it, and before what was found
    for number, context in enumerate(({"accession_number": "A1"}, {"accession_number": "A2"})):
        job = Job(
            source="submit",
            source_key=f"page {number}",
            media_type="image/png",
            status=JobStatus.NEEDS_REVIEW,
            context=StudyContext(**context),
            unmatched=True,
        )
        store.jobs.submit(job, "test")
    matched = Records(store).match_waiting()
    assert [store.jobs.get(job_id).source_key for job_id in matched] == ["page 0"]
    assert store.jobs.get(matched[0]).status == JobStatus.QUEUED
    assert context_of(store, matched[0]).patient_id == "P1"
    assert Records(store).match_waiting() == []


def test_scan_is_not_matched_by_a_cancelled_order(receiver, store, intake):
    job_id = scan(intake, "a", accession_number="A1")
    receiver(orm(control="CA"))
    assert store.jobs.get(job_id).status == JobStatus.NEEDS_REVIEW
    assert store.jobs.get(scan(intake, "b", accession_number="A1")).reason.endswith("was cancelled")


def test_scan_with_a_patient_id_takes_the_rest_of_the_record(receiver, store, intake):
    receiver(adt())
    context = context_of(store, scan(intake, "a", patient_id="P1"))
    assert (context.patient_name, context.patient_birth_date) == ("Muster^Zoë^M^Dr^Jr", "19610504")


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"patient_id": "P1", "patient_name": "Other^Zoë"}, "another family name"),
        ({"patient_id": "P1", "patient_birth_date": "19700101"}, "another birth date"),
        ({"patient_id": "P1", "patient_sex": "M"}, "another sex"),
        ({"patient_id": "P9", "accession_number": "A1"}, "for another patient"),
        ({"patient_id": "P1", "issuer_of_patient_id": "CLINIC", "accession_number": "A1"}, "for another patient"),
    ],
)
def test_contradiction_waits_for_a_person(receiver, store, intake, told, reason):
    receiver(orm())
    job_id = scan(intake, "a", **told)
    assert store.jobs.get(job_id).status == JobStatus.NEEDS_REVIEW
    assert reason in store.jobs.get(job_id).reason
    assert "Muster" not in store.jobs.get(job_id).reason
    assert [job.id for job in store.jobs.unmatched()] == [job_id]


@pytest.mark.parametrize("name", ["MUSTER^Z", "Muster", "muster^zoë=山田"])
def test_family_name_is_what_must_agree(receiver, store, intake, name):
    receiver(adt())
    job_id = scan(intake, "a", patient_id="P1", patient_name=name)
    assert store.jobs.get(job_id).status == JobStatus.QUEUED
    assert context_of(store, job_id).patient_name == name


def test_name_of_a_dicom_object_may_be_older_than_the_record(receiver, store, intake):
    receiver(adt())
    accepted = intake.accept(
        ReceivedObject(
            source="dicom:PACS",
            source_key="1.2.3",
            media_type="application/dicom",
            data=b"x",
            context=StudyContext(patient_id="P1", patient_name="Maiden^Zoë"),
            destinations=None,
            actor="scp",
        )
    )
    assert store.jobs.get(accepted.job_id).status == JobStatus.QUEUED
    assert context_of(store, accepted.job_id).patient_name == "Maiden^Zoë"


def test_two_patients_of_one_number_are_not_guessed(receiver, store, intake):
    receiver(adt())
    receiver(adt(pid="PID|1||P1^^^CLINIC^MR||Other^Ann", control_id="M2"))
    assert context_of(store, scan(intake, "a", patient_id="P1")).patient_name == ""
    assert context_of(store, scan(intake, "b", patient_id="P1", issuer_of_patient_id="CLINIC")).patient_name


def test_person_says_whose_it_is(store, intake):
    job_id = scan(intake, "a", accession_number="A1")
    context = context_of(store, job_id).model_copy(update={"patient_id": "P1"})
    store.jobs.decide(store.jobs.get(job_id), Decision(context=context), "web")
    assert store.jobs.get(job_id).status == JobStatus.QUEUED
    assert store.jobs.unmatched() == []
    assert context_of(store, job_id).patient_id == "P1"


# -- jobs: merges --------------------------------------------------------------------------------------------------

MERGE = ("PID|1||P2^^^HOSP^MR||Muster^Zoë||19610504|F", "MRG|P1^^^HOSP^MR")


def merge(receiver: Receiver, event: str = "A40", control_id: str = "M9") -> None:
    assert codes(receiver(adt(event, *MERGE, control_id=control_id))) == [("AA", "")]


def finish(store: Store, job_id: str, status: JobStatus = JobStatus.DONE) -> list[Delivery]:
    job = store.jobs.claim("w", 60)
    assert job is not None and job.id == job_id
    deliveries = [
        Delivery(job_id=job_id, role=Role.WAVEFORM, page_number=1, destination=name, kind="hl7", artefact="x")
        for name in ("ehr", "pacs")
    ]
    store.jobs.complete(
        job_id,
        "w",
        JobResult(status=status, pages=[Page(job_id=job_id, page_number=1, status=status)], deliveries=deliveries),
    )
    return store.deliveries.of_job(job_id)


@pytest.mark.parametrize("event", ["A34", "A36", "A40"])
def test_merge_repoints_what_waits(receiver, store, intake, event):
    job_id = scan(intake, "a", patient_id="P1")
    other = scan(intake, "b", patient_id="P3")
    merge(receiver, event)
    assert (context_of(store, job_id).patient_id, context_of(store, other).patient_id) == ("P2", "P3")
    assert context_of(store, job_id).patient_name == "Muster^Zoë"
    assert store.jobs.get(job_id).status == JobStatus.QUEUED
    assert store.patients.patient("P1").patient_id == "P2"


def test_merge_of_accounts_leaves_patients_alone(receiver, store, intake):
    job_id = scan(intake, "a", patient_id="P1")
    merge(receiver, "A35")
    assert context_of(store, job_id).patient_id == "P1"


def test_merge_takes_a_running_job_from_its_worker(receiver, store, intake):
    job_id = scan(intake, "a", patient_id="P1")
    assert store.jobs.claim("w", 60) is not None
    merge(receiver)
    assert (store.jobs.get(job_id).status, store.jobs.heartbeat(job_id, "w", 60)) == (JobStatus.QUEUED, False)
    assert context_of(store, job_id).patient_id == "P2"


def test_result_of_a_run_that_began_before_the_merge_is_dropped(receiver, store, intake):
    """Although the same worker, in another thread, has claimed the job again."""
    job_id = scan(intake, "a", patient_id="P1")
    old = store.jobs.claim("w", 60)
    assert store.jobs.holds(old, "w")
    merge(receiver)
    assert not store.jobs.holds(old, "w")
    new = store.jobs.claim("w", 60)
    assert store.jobs.holds(new, "w") and not store.jobs.holds(old, "w")
    with pytest.raises(IllegalTransition):
        store.jobs.complete(job_id, "w", JobResult(status=JobStatus.DONE), old.context)
    store.jobs.complete(job_id, "w", JobResult(status=JobStatus.DONE), new.context)


@pytest.mark.parametrize("status", [JobStatus.DONE, JobStatus.NEEDS_REVIEW])
def test_merge_makes_a_result_that_was_not_delivered_again(receiver, store, intake, status):
    job_id = scan(intake, "a", patient_id="P1")
    finish(store, job_id, status)
    merge(receiver)
    assert store.jobs.get(job_id).status == JobStatus.QUEUED
    assert {delivery.status for delivery in store.deliveries.of_job(job_id)} == {"CANCELLED"}
    assert store.patients.merge_notices() == []


def test_merge_lists_what_was_delivered_for_the_archive(receiver, store, intake):
    job_id = scan(intake, "a", patient_id="P1")
    for delivery in finish(store, job_id):
        store.deliveries.delivered(delivery.id, "AA")
    merge(receiver)
    assert store.jobs.get(job_id).status == JobStatus.DONE
    (notice,) = store.patients.merge_notices()
    assert (notice.job_id, notice.prior_patient_id, notice.surviving_patient_id) == (job_id, "P1", "P2")
    store.patients.settle_merge(notice.id, "cli")
    assert store.patients.merge_notices() == []


def test_merge_lists_what_a_peer_took_and_did_not_commit(receiver, store, intake):
    job_id = scan(intake, "a", patient_id="P1")
    for delivery in finish(store, job_id):
        store.deliveries.stored(delivery.id, "0x0000")
        store.commitments.ask(f"2.25.{delivery.id}", [delivery.id], utc_now())
        refused = Settlement(delivery=delivery.id, action=DeliveryAction.REFUSE, reason="not committed")
        store.commitments.settle(f"2.25.{delivery.id}", [refused])
    merge(receiver)
    assert [notice.job_id for notice in store.patients.merge_notices()] == [job_id]


def test_merge_of_a_job_that_was_partly_delivered(receiver, store, intake):
    job_id = scan(intake, "a", patient_id="P1")
    first, _ = finish(store, job_id)
    store.deliveries.delivered(first.id, "AA")
    merge(receiver)
    assert store.jobs.get(job_id).status == JobStatus.QUEUED
    assert [delivery.status for delivery in store.deliveries.of_job(job_id)] == ["DELIVERED", "CANCELLED"]
    assert len(store.patients.merge_notices()) == 1


def test_merge_while_a_result_is_on_its_way(receiver, store, intake):
    job_id = scan(intake, "a", patient_id="P1")
    on_its_way, _ = finish(store, job_id)
    merge(receiver)
    assert store.patients.merge_notices() == []
    store.deliveries.delivered(on_its_way.id, "AA")
    assert [notice.job_id for notice in store.patients.merge_notices()] == [job_id]


def test_scan_that_comes_after_the_merge(receiver, store, intake):
    merge(receiver)
    assert context_of(store, scan(intake, "a", patient_id="P1")).patient_id == "P2"


def test_merge_that_is_repeated_or_reversed(receiver, store, intake):
    merge(receiver)
    merge(receiver)
    merge(receiver, control_id="M10")
    assert store.patients.patient("P1").patient_id == "P2"
    back = adt("A40", "PID|1||P1^^^HOSP^MR", "MRG|P2^^^HOSP^MR", control_id="M11")
    assert codes(receiver(back)) == [("AA", "")]
    assert store.patients.patient("P2").patient_id == "P1"


def test_chain_of_merges(receiver, store, intake):
    job_id = scan(intake, "a", patient_id="P1")
    merge(receiver)
    receiver(adt("A40", "PID|1||P4^^^HOSP^MR", "MRG|P2^^^HOSP^MR", control_id="M10"))
    assert context_of(store, job_id).patient_id == "P4"
    assert store.patients.patient("P1").patient_id == "P4"


def second_merge(receiver: Receiver, survivor: str, prior: str, made: str, control_id: str) -> None:
    data = adt("A40", f"PID|1||{survivor}^^^HOSP^MR", f"MRG|{prior}^^^HOSP^MR", made=made, control_id=control_id)
    assert codes(receiver(data)) == [("AA", "")]


def test_chain_of_merges_that_came_the_last_one_first(receiver, store, intake):
    job_id = scan(intake, "a", patient_id="P1")
    second_merge(receiver, "P4", "P2", "20261122120000+0100", "M10")
    merge(receiver)  # made at 10:15: P1 into P2, which has gone on as P4 meanwhile
    assert (store.patients.patient("P1").patient_id, store.patients.patient("P2").patient_id) == ("P4", "P4")
    assert context_of(store, job_id).patient_id == "P4"
    assert set(store.patients.prior_ids("P4", "HOSP")) == {"P1", "P2"}


@pytest.mark.parametrize("late", [True, False])
def test_merge_that_was_taken_back_stays_so_whichever_comes_first(receiver, store, late):
    if not late:
        merge(receiver)
    second_merge(receiver, "P1", "P2", "20261122120000+0100", "M10")  # the other way round, later
    merge(receiver, control_id="M11")  # an engine sends the first one again, as a message of its own
    assert (store.patients.patient("P1").patient_id, store.patients.patient("P2").patient_id) == ("P1", "P1")


def test_older_merge_into_another_record_changes_nothing(receiver, store):
    second_merge(receiver, "P4", "P1", "20261122120000+0100", "M10")
    merge(receiver)
    assert store.patients.patient("P1").patient_id == "P4"


def test_older_merge_that_is_not_followed_says_so(receiver, store):
    stated = b"older than what is known: what a newer message said stands"

    def told(prior: str, surviving: str, made: str, control_id: str) -> bytes:
        pid = f"PID|1||{surviving}^^^HOSP^MR"
        (answer,) = receiver(adt("A40", pid, f"MRG|{prior}^^^HOSP^MR", made=made, control_id=control_id))
        assert codes((answer,)) == [("AA", "")]
        return answer

    assert stated not in told("P1", "P2", "20261122120000+0000", "M1")
    assert stated not in told("P1", "P2", "20261122110000+0000", "M2")  # it says the same
    assert stated in told("P1", "P3", "20261122110000+0000", "M3")  # into another one
    assert stated in told("P2", "P1", "20261122110000+0000", "M4")  # the other way round
    assert store.patients.patient("P1").patient_id == "P2"
    assert stated not in told("P1", "P3", "20261122130000+0000", "M5")
    assert store.patients.patient("P1").patient_id == "P3"


def test_merge_told_by_a_clock_that_stood_ahead_does_not_stand_for_years(receiver, store):
    merge(receiver)
    with store.database.write() as session:
        for patient in session.exec(select(Patient).where(Patient.patient_id == "P1")).all():
            patient.merged_at = utc_now() + timedelta(days=3650)
    receiver(adt("A40", "PID|1||P3^^^HOSP^MR", "MRG|P1^^^HOSP^MR", control_id="M10"))
    assert store.patients.patient("P1").patient_id == "P3"


def test_merge_in_a_circle_ends(receiver, store):
    for hour, (survivor, prior) in enumerate([("P2", "P1"), ("P3", "P2"), ("P1", "P3")], start=10):
        second_merge(receiver, survivor, prior, f"20261122{hour}0000+0100", f"M{hour}")
    assert {store.patients.patient(number).patient_id for number in ("P1", "P2", "P3")} == {"P1"}


def test_page_under_a_prior_number_takes_its_order(receiver, store, intake):
    """The order came under the surviving number; the page, or the archive's object, still has the prior one."""
    merge(receiver)
    receiver(orm(pid="PID|1||P2^^^HOSP^MR", control_id="M10"))
    job_id = scan(intake, "a", patient_id="P1", accession_number="A1")
    assert store.jobs.get(job_id).status == JobStatus.QUEUED
    assert (context_of(store, job_id).patient_id, context_of(store, job_id).placer_order_number) == ("P2", "ORD1")


def test_what_follows_a_delivered_result_goes_under_the_surviving_identity(receiver, store, intake):
    """Its confirmation, or a correction: the prior one is nobody's any more."""
    job_id = scan(intake, "a", patient_id="P1")
    for delivery in finish(store, job_id):
        store.deliveries.delivered(delivery.id, "AA")
    merge(receiver)
    assert (store.jobs.get(job_id).status, context_of(store, job_id).patient_id) == (JobStatus.DONE, "P2")


@pytest.mark.parametrize("how", ["refuse", "give_up"])
def test_merge_makes_again_what_a_peer_did_not_take(receiver, store, intake, how):
    """Sending that again by hand would bring the prior identity back."""
    job_id = scan(intake, "a", patient_id="P1")
    first, second = finish(store, job_id)
    store.deliveries.delivered(first.id, "AA")
    getattr(store.deliveries, how)(second.id, "no", *(["AR"] if how == "refuse" else []))
    merge(receiver)
    assert store.jobs.get(job_id).status == JobStatus.QUEUED


def test_several_patients_in_one_merge(receiver, store):
    pairs = [line for n in (1, 2) for line in (f"PID|{n}||B{n}^^^HOSP^MR", f"MRG|A{n}^^^HOSP^MR")]
    assert codes(receiver(message("ADT^A40^ADT_A39", "EVN|A40", *pairs))) == [("AA", "")]
    assert [store.patients.patient(f"A{n}").patient_id for n in (1, 2)] == ["B1", "B2"]


def test_messages_are_forgotten(receiver, store):
    receiver(adt())
    assert store.patients.forget_messages(datetime(2000, 1, 1, tzinfo=UTC)) == 0
    assert store.patients.forget_messages(datetime(2100, 1, 1, tzinfo=UTC)) == 1


def test_job_of_no_patient_is_unmatched(store):
    job = Job(source="s", source_key="k", media_type="image/png", status=JobStatus.NEEDS_REVIEW, unmatched=True)
    store.jobs.submit(job, "scp")
    assert [found.id for found in store.jobs.unmatched()] == [job.id]
