"""The C-STORE SCP with an intake that only remembers, and peers that talk to it over real sockets."""

from __future__ import annotations

import dataclasses
import ssl
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from gateway.dicom.network.scp import StorageScp
from gateway.dicom.network.transport import Requestor
from gateway.domain.identity import Evidence
from gateway.domain.received import Accepted, ReceivedObject, opened
from gateway.errors import StorageError
from gateway.identity.decide import decide
from gateway.settings import DicomSettings
from tests.waiting import PATIENCE_S

TIMEOUT_S = 1.0  # of a listener that has to cut somebody off; any other is patient


@dataclass
class FakeIntake:
    """Keeps what it is given, or raises `error`."""

    error: Exception | None = None
    taken: list[dict[str, object]] = field(default_factory=list)

    def accept(self, received: ReceivedObject) -> Accepted:
        if self.error is not None:
            raise self.error
        decision = decide(received.context, Evidence(registered=True))
        fields = {each.name: getattr(received, each.name) for each in dataclasses.fields(received)}
        fields["data"] = opened(received.data).read()
        self.taken.append(fields | {"hold_reason": decision.hold_reason})
        return Accepted(job_id="1", duplicate=len(self.taken) > 1)


@dataclass
class FakeRoom:
    """Room on the disk; `device` is written to instead where there is one, and `error` raised."""

    device: str = ""
    error: StorageError | None = None
    files: list[BinaryIO] = field(default_factory=list)

    def check_space(self, size: int = 0) -> None:
        if self.error is not None:
            raise self.error

    def temporary_file(self) -> BinaryIO:
        self.files.append(open(self.device, "w+b") if self.device else tempfile.TemporaryFile())
        return self.files[-1]


def listen(intake: FakeIntake, room: FakeRoom | None = None, **changes: object) -> StorageScp:
    settings = DicomSettings(**{"port": 0, "timeout_s": PATIENCE_S, **changes})  # type: ignore[arg-type]
    scp = StorageScp(settings, intake.accept, room or FakeRoom())
    scp.start()
    return scp


@contextmanager
def listening(**changes: object) -> Iterator[StorageScp]:
    """A listener that is stopped at the end, whatever happens."""
    scp = listen(FakeIntake(), **changes)
    try:
        yield scp
    finally:
        scp.stop(grace_s=0.0)


def associate(
    scp: StorageScp,
    sop_class: str = SecondaryCaptureImageStorage,
    syntaxes: tuple[str, ...] = (ExplicitVRLittleEndian,),
    called: str = "ECGGW",
    calling: str = "CART1",
    tls: ssl.SSLContext | None = None,
    source: str = "127.0.0.1",
) -> Association:
    """Ask for an association, from the loopback address `source`, on the TLS port where `tls` is given."""
    ae = Requestor(ae_title=calling)  # the stock one leaves sockets open where no connection is made
    ae.connection_timeout = ae.network_timeout = ae.acse_timeout = ae.dimse_timeout = PATIENCE_S
    return ae.associate(
        "127.0.0.1",
        scp.tls_port if tls else scp.port,
        [build_context(sop_class, list(syntaxes))],
        ae_title=called,
        bind_address=(source, 0),
        tls_args=(tls, "localhost") if tls else None,
    )


def encoded(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def send_bytes(
    association: Association, data: bytes, sop_class: str = SecondaryCaptureImageStorage, uid: str = "2.25.1003"
) -> Dataset:
    """C-STORE `data` as it is, under the association's one context; returns the response's status group."""
    request = C_STORE()
    request.MessageID = 1
    request.Priority = 2
    request.AffectedSOPClassUID = sop_class
    request.AffectedSOPInstanceUID = uid
    request.DataSet = BytesIO(data)
    paused(association)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    answer = Dataset()
    if response is not None:
        answer.Status = response.Status
        answer.ErrorComment = response.ErrorComment or ""
    return answer


def store_pdus(association: Association, uid: str, pieces: Iterable[bytes], message_id: int = 1) -> Iterator[bytes]:
    """The P-DATA-TF PDUs (PS3.8 section 9.3.5) of a C-STORE request, the pieces of whose data set may be endless."""
    context_id = association.accepted_contexts[0].context_id
    request = C_STORE_RQ()
    command = request.command_set
    command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = SecondaryCaptureImageStorage, uid
    command.CommandField, command.MessageID, command.Priority, command.CommandDataSetType = (
        0x0001,
        message_id,
        2,
        0x0001,
    )
    del command.MoveOriginatorApplicationEntityTitle, command.MoveOriginatorMessageID
    request.data_set = None
    for part in request.encode_msg(context_id, 0):
        for _, data in part.presentation_data_value_list:
            yield _pdu(context_id, data[0], data[1:])
    for piece in pieces:
        yield _pdu(context_id, 0, piece)
    yield _pdu(context_id, 2, b"")


def _pdu(context_id: int, control: int, data: bytes) -> bytes:
    return struct.pack(">BBLLBB", 4, 0, len(data) + 6, len(data) + 2, context_id, control) + data


def paused(association: Association) -> Association:
    """Leave the answers to whoever asks `association.dimse` for them."""
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.001)
    return association


def store(
    scp: StorageScp, data: bytes, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1", **names: str
) -> Dataset:
    association = associate(scp, tls=tls, source=source)
    assert association.is_established
    answer = send_bytes(association, data, **names)
    association.release()
    return answer


def rejection(association: Association) -> tuple[int, int, int]:
    assert association.is_rejected
    answer = association.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic
