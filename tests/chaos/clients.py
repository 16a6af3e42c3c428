"""What speaks to the gateway: scanners and ordering systems that bear its absence."""

from __future__ import annotations

import socket

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE

from tests.acceptance.peers import CR, FS, VT

NAME = "ZWYRTKOWSKA^QUINTESSA"  # of every patient: it must not be in a log
TIMEOUT_S = 30.0


def scanner(title: str) -> AE:
    ae = AE(title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
    ae.connection_timeout = 5
    ae.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    return ae


def c_store(ae: AE, port: int, datasets: list[Dataset], host: str = "127.0.0.1") -> list[int | None]:
    """Send over one association from the address `host`; None where there was no answer."""
    association = ae.associate("127.0.0.1", port, ae_title="ECGGW", bind_address=(host, 0))
    statuses: list[int | None] = []
    try:
        while association.is_established and len(statuses) < len(datasets):
            try:
                statuses.append(getattr(association.send_c_store(datasets[len(statuses)]), "Status", None))
            except (RuntimeError, ValueError):
                break
    finally:
        if association.is_established:
            association.release()
    return statuses + [None] * (len(datasets) - len(statuses))


def mllp(port: int, message: bytes, host: str = "127.0.0.1") -> bytes:
    """Send a message over a connection of its own; return MSA-1, b"" where there was no answer."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S, source_address=(host, 0)) as connection:
            connection.sendall(VT + message + FS + CR)
            while FS not in answer and (data := connection.recv(65536)):
                answer += data
    except OSError:
        return b""
    _, _, msa = answer.partition(b"\rMSA|")
    return msa[:2]


def order(control_id: str, accession_number: str, patient_id: str) -> bytes:
    return (
        f"MSH|^~\\&|RIS|H|ECGGW|H|20260101120000||ORM^O01|{control_id}|P|2.3.1\r"
        f"PID|1||{patient_id}^^^H^MR||{NAME}||19600101|M\r"
        f"ORC|NW|PL{accession_number}|FI{accession_number}\r"
        f"OBR|1|PL{accession_number}|FI{accession_number}|ECG^12 lead||||||||||||||{accession_number}\r"
    ).encode()
