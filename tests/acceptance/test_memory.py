"""Memory: the service stays small whatever it is sent."""

from __future__ import annotations

import itertools
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import build_context

from gateway.dicom.network.transport import Requestor
from tests.acceptance.conftest import Gateway
from tests.acceptance.peers import CR, FS, VT, free_port
from tests.gateway.dicom.samples import secondary_capture
from tests.gateway.dicom.scp_peers import encoded, paused, store_pdus
from tests.waiting import PATIENCE_S

MakeGateway = Callable[..., Gateway]

GOAL_MIB = 300
ASSOCIATIONS = 8
OBJECT_MIB = 48
CONNECTIONS = 12
MESSAGE_MIB = 15
REAL = (sys.executable, "-m", "gateway")
_PIECE = bytes(1 << 16)


def test_large_objects_on_many_associations_at_once(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(command=REAL, worker={"processes": 0})
    gateway.start()
    uids = [generate_uid(prefix=None) for _ in range(ASSOCIATIONS)]
    assert send_all(gateway.port, uids) == [0x0000] * ASSOCIATIONS
    sources = [gateway.root / "var" / "spool" / job.id / "source" for job in gateway.jobs()]
    assert len(sources) == ASSOCIATIONS
    assert all(source.stat().st_size > OBJECT_MIB << 20 for source in sources)
    assert peak_mib(gateway) < GOAL_MIB


def test_large_messages_on_many_connections_at_once(make_gateway: MakeGateway) -> None:
    port = free_port()
    gateway = make_gateway(command=REAL, worker={"processes": 0}, hl7={"enabled": True, "port": port})
    gateway.start()
    answers: list[bytes] = []
    senders = [
        threading.Thread(target=lambda number=number: answers.append(send_message(port, number)))
        for number in range(CONNECTIONS)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert [b"MSA|AA|" in answer for answer in answers] == [True] * CONNECTIONS
    assert peak_mib(gateway) < GOAL_MIB


def send_message(port: int, number: int) -> bytes:
    """Send a message of `MESSAGE_MIB`; return its answer."""
    head = f"MSH|^~\\&|A|B|C|D|20260101||ADT^A08|{number}|P|2.5.1\rPID|1||N{number}\rOBX|1|ED|PDF||"
    source = f"127.0.0.{2 + number % 2}"
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S, source_address=(source, 0)) as connection:
        connection.settimeout(CONNECTIONS * PATIENCE_S)
        connection.sendall(VT + head.encode())
        for _ in range(MESSAGE_MIB):
            connection.sendall(b"x" * (1 << 20))
        connection.sendall(CR + FS + CR)
        return connection.recv(1000)


def send_all(port: int, uids: list[str]) -> list[int | None]:
    """Send an object for each UID, all at once; return the answers."""
    answers: list[int | None] = []
    senders = [threading.Thread(target=lambda uid=uid: answers.append(send(port, uid))) for uid in uids]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return answers


def send(port: int, uid: str) -> int | None:
    """Send an object of `OBJECT_MIB`, which is never in our memory as a whole; return the status of the answer."""
    ae = Requestor(ae_title="CART1")
    ae.connection_timeout = ae.network_timeout = ae.acse_timeout = ae.dimse_timeout = PATIENCE_S
    context = build_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    association = paused(ae.associate("127.0.0.1", port, [context], ae_title="ECGGW"))
    head = encoded(secondary_capture(SOPInstanceUID=uid, PixelData=None))
    head += struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, OBJECT_MIB << 20)
    pixels = (_PIECE for _ in range((OBJECT_MIB << 20) // len(_PIECE)))
    for pdu in store_pdus(association, uid, itertools.chain([head], pixels)):
        association.dul.socket.socket.sendall(pdu)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    return None if answer is None else int(answer.Status)


def peak_mib(gateway: Gateway) -> int:
    """The most memory that the service ever had, in MiB."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) >> 10
