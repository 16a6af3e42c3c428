"""The examples of docs/conformance/hl7.md, made by the code itself.

python -m tests.hl7_examples        writes them into the statement, each after its marker `<!-- example: NAME -->`
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from gateway.domain.context import StudyContext
from gateway.domain.digitized_page import DigitizedPage
from gateway.hl7.inbound.receiver import Receiver
from gateway.hl7.outbound.messages import PageMessage, build_message
from gateway.hl7.outbound.withdrawal import build_withdrawal
from gateway.identity.orders import Records
from gateway.settings import Hl7CodeSettings, Hl7Destination
from gateway.store.store import Store
from pipeline import LEADS, Calibration, EcgRecord, Lead, Quality, heart_rate_per_minute

STATEMENT = Path(__file__).resolve().parents[1] / "docs" / "conformance" / "hl7.md"
_BLOCK = re.compile(r"<!-- example: ([a-z0-9-]+) -->\n```\n(.*?)```\n", re.DOTALL)
_PID = "PID|1||P1^^^HOSP^MR||Muster^Zoë^^^Dr||19610504|F"
_ORC = ("ORC|NW|ORD1^EHR|F1^RIS", "OBR|1|ORD1^EHR|F1^RIS|11524-6^EKG study^LN||||||||||||7^House^Gregory||A1")

_INBOUND: dict[str, tuple[str, ...]] = {
    **{f"ADT^{event}": (f"EVN|{event}|20261122101530+0100", _PID, "PV1|1|O") for event in ("A01", "A04", "A05", "A08")},
    **{f"ADT^{event}": (f"EVN|{event}|20261122101530+0100", _PID) for event in ("A28", "A31")},
    **{f"ADT^{event}": ("EVN|" + event, _PID, "MRG|P0^^^HOSP^MR") for event in ("A34", "A36", "A40")},
    "ADT^A35": ("EVN|A35", _PID, "MRG|||ACCOUNT7"),
    "ORM^O01": (_PID, "PV1|1|O", *_ORC),
    "OMG^O19": (_PID, "PV1|1|O", *_ORC),
    "OMI^O23": (_PID, "PV1|1|O", *_ORC, "IPC|A1|RP1|1.2.3"),
}


def inbound(kind: str, *segments: str, control_id: str = "MSG00001", version: str = "2.5.1", tail: str = "") -> bytes:
    """A message as an interface engine sends it."""
    header = f"MSH|^~\\&|EHR|HOSPITAL|ECGGW|HOSPITAL|20261122101530+0100||{kind}|{control_id}|P|{version}{tail}"
    return "\r".join([header, *segments, ""]).encode()


def message_of(page: dict[str, object] | None = None, **told: object) -> PageMessage:
    """What is said of a page that was read."""
    seconds = np.arange(5000) / 500.0
    beats = np.exp(-(((seconds % 0.8 - 0.4) / 0.012) ** 2))  # 75 a minute
    signal = np.tile(beats, (12, 1)).astype(np.float32)
    record = EcgRecord(
        signal_mv=signal,
        confidence=np.ones_like(signal),
        leads=LEADS,
        sampling_frequency_hz=500.0,
        calibration=Calibration(speed_source="text"),
    )
    usual: dict[str, object] = {
        "job_id": "job",
        "page_number": 1,
        "record": record,
        "heart_rate_per_minute": heart_rate_per_minute(record),
        "layout_name": "3x4",
        "quality": Quality(
            coverage=dict.fromkeys(LEADS, 0.99) | {Lead.V3: 0.42},
            confidence=dict.fromkeys(LEADS, 0.9),
            einthoven_residual_mv=0.02,
            layout_score=0.93,
            estimated_snr_db=17.34,
            warnings=("lead V3 was read to 42 %",),
        ),
        "context": StudyContext(
            patient_id="P1",
            issuer_of_patient_id="HOSP",
            patient_name="Muster^Zoë^^Dr",
            patient_birth_date="19610504",
            patient_sex="F",
            accession_number="A1",
            placer_order_number="ORD1",
            placer_order_issuer="EHR",
            acquisition_date_time="20261120083000+0100",
            study_instance_uid="2.25.1001",
        ),
        "waveform_sop_instance_uid": "2.25.1002",
        "created_at": datetime(2026, 11, 22, 9, 15, 30, tzinfo=UTC),
    }
    digitized = DigitizedPage(**(usual | (page or {})))  # type: ignore[arg-type]
    return PageMessage(page=digitized, message_control_id="GWQ2S5B7PLK3EXAMPLE", **told)  # type: ignore[arg-type]


def _sent() -> Iterator[tuple[str, bytes]]:
    def message(wants: dict[str, object] | None = None, page: dict[str, object] | None = None, **told: object) -> bytes:
        destination = Hl7Destination(name="ehr", host="h", port=1, **(wants or {}))  # type: ignore[arg-type]
        return build_message(message_of(page, **told), destination, Hl7CodeSettings())

    yield "oru-preliminary", message()
    yield "oru-doubtful", message({"version": "2.5"}, {"doubtful": True})
    yield "oru-final", message({"report": "embed"}, {"final": True, "report_pdf": b"%PDF-1.4 (the report)"}, status="F")
    yield "oru-corrected", message({"version": "2.3.1", "character_set": "8859/1"}, status="C")
    when = datetime(2026, 11, 22, 10, 2, 11, tzinfo=UTC)
    ehr = Hl7Destination(name="ehr", host="h", port=1)
    smudged = build_withdrawal(message(), "GWJ7Q2HSD4M2EXAMPLE2", "smudged", when, ehr, Hl7CodeSettings())
    yield "oru-withdrawn", smudged
    yield "mdm", message({"message": "MDM^T02"}, {"final": True}, status="F")
    link = "https://viewer.hospital.example/?study={study_instance_uid}"
    fields = {"PV1-2": "O", "OBR-44": "93000^ECG^C4", "ZEC-1": "{accession_number}", "ZEC-2": "{result_status}"}
    yield "oru-mapped", message({"report": "link", "report_url": link, "fields": fields})
    yield "oru-batch", message({"batch": True})


def _taken(receiver: Receiver) -> Iterator[tuple[str, bytes]]:
    for number, (kind, segments) in enumerate(_INBOUND.items(), start=1):
        data = inbound(kind, *segments, control_id=f"MSG{number:05}")
        yield kind.lower().replace("^", "-"), _exchange(data, receiver)
    refused = inbound("SIU^S12", control_id="MSG00101")
    yield "refused", _exchange(refused, receiver)
    yield "refused-before-2-5", _exchange(inbound("ADT^A08", control_id="MSG00102", version="2.3.1"), receiver)
    enhanced = inbound("ADT^A08", "EVN|A08", _PID, control_id="MSG00103", tail="|||AL|AL")
    yield "enhanced", _exchange(enhanced, receiver)
    batch = b"BHS|^~\\&|EHR|HOSPITAL|ECGGW|HOSPITAL|20261122101530+0100||||B7\r"
    two = [inbound("ADT^A08", "EVN|A08", _PID, control_id="MSG00104"), inbound("SIU^S12", control_id="MSG00105")]
    yield "batch", _exchange(batch + b"".join(two) + b"BTS|2\r", receiver)


def _exchange(data: bytes, receiver: Receiver) -> bytes:
    """A message and, a line apart, its answers; what the clock and chance make of these is replaced."""
    answers = b"\r".join(receiver(data))
    answers = re.sub(rb"\d{14}[+-]\d{4}\|\|ACK", b"20261122101531+0100||ACK", answers)
    answers = re.sub(rb"(BHS(?:\|[^|\r]*){5}\|)\d{14}[+-]\d{4}", rb"\g<1>20261122101531+0100", answers)
    answers = re.sub(rb"\|A[0-9a-f]{19}\|", b"|A0123456789abcdef012|", answers)
    return data + b"\r" + answers


def examples() -> dict[str, str]:
    """Every example by its name, a segment a line."""
    with _time_zone("Europe/Paris"), tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "gateway.db")
        try:
            made = [*_sent(), *_taken(Receiver(Records(store), "UNICODE UTF-8"))]
        finally:
            store.close()
    return {
        name: data.decode("latin-1" if b"|8859/1" in data else "utf-8").replace("\r", "\n").rstrip("\n") + "\n"
        for name, data in made
    }


def written() -> dict[str, str]:
    """The examples that the statement shows."""
    return dict(_BLOCK.findall(STATEMENT.read_text(encoding="utf-8")))


@contextmanager
def _time_zone(name: str) -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


def main() -> None:
    """Write every example into the statement."""
    made = examples()
    text = STATEMENT.read_text(encoding="utf-8")
    text = _BLOCK.sub(lambda found: f"<!-- example: {found[1]} -->\n```\n{made[found[1]]}```\n", text)
    STATEMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
