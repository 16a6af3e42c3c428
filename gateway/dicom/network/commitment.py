"""Storage commitment, push model (PS3.4 annex J), on the wire: requests and results, both as SCU and as SCP.

A request (N-ACTION) names objects under a transaction UID.  Its result (N-EVENT-REPORT) names those that are
committed and those that are not, usually on an association that the SCP opens later, with the roles turned round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from gateway.dicom.images.bounded import PARSING, BoundedReader, Bounds
from gateway.dicom.images.pixels import DECODE_ERRORS
from gateway.dicom.network.association import associate
from gateway.dicom.network.transport import MAXIMUM_MESSAGE_ELEMENTS
from gateway.dicom.objects.uids import is_uid
from gateway.errors import DeliveryDeferred, DeliveryRefused, GatewayError
from gateway.settings import DicomDestination

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_OBJECT_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT_VALUE = 0x0115
CLASS_INSTANCE_CONFLICT = 0x0119
NO_SUCH_ACTION = 0x0123
NOT_AUTHORIZED = 0x0124

MAXIMUM_REFERENCES = 10_000  # in one request of a modality
_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_REQUEST = 1  # action type; table J.3-1
_ALL_COMMITTED, _SOME_FAILED = 1, 2  # event types; table J.3-4
_NEVER = {0x0112, 0x0114, 0x0115, 0x0117, 0x0118, 0x0119, 0x0122, 0x0123, 0x0124, 0x0211, 0x0212}  # PS3.7 annex C

FAILURE_REASONS = {  # PS3.3 C.14.1.1
    0x0110: "the peer could not process it",
    0x0112: "the peer does not have the object",
    0x0119: "the peer has it as another SOP class",
    0x0122: "the peer does not commit this SOP class",
    0x0131: "the transaction UID is in use",
    0x0213: "the peer is out of resources",
}

OnResult = Callable[["CommitmentResult"], int]


class InvalidArgument(GatewayError):
    """A request or result that breaks PS3.4 annex J; `status` says so on the wire."""

    def __init__(self, message: str, status: int = INVALID_ARGUMENT_VALUE) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One object, as a request or result names it."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentResult:
    """What became of a request: committed objects, and failed ones with their Failure Reason."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: Mapping[Reference, int] = field(default_factory=dict)


def ask(
    destination: DicomDestination,
    calling_ae_title: str,
    transaction_uid: str,
    references: Sequence[Reference],
    on_result: OnResult,
) -> None:
    """Ask a peer to commit objects (N-ACTION); a result on this same association goes to `on_result`.

    Raises
    ------
    DeliveryDeferred
        The peer was not reached, or cannot take the request now.
    DeliveryRefused
        The peer offers no storage commitment, or will never take this request.
    """
    information = Dataset()
    information.TransactionUID = UID(transaction_uid)
    information.ReferencedSOPSequence = [_item(reference) for reference in references]
    handlers = [(evt.EVT_N_EVENT_REPORT, lambda event: answer_result(event, on_result))]
    context = build_context(StorageCommitmentPushModel, _SYNTAXES)
    association = associate(destination, calling_ae_title, [context], handlers=handlers)
    status = _exchange(association, association.send_n_action, information, _REQUEST)
    if status == SUCCESS:
        return
    if status is None:
        raise DeliveryDeferred(f"{destination.name}: no answer to the storage commitment request")
    kind = DeliveryRefused if status in _NEVER else DeliveryDeferred
    raise kind(f"{destination.name}: storage commitment request: status 0x{status:04X}", response=f"0x{status:04X}")


def send_result(peer: DicomDestination, calling_ae_title: str, result: CommitmentResult) -> None:
    """Send a result to a modality (N-EVENT-REPORT) on an association of our own, where we are the SCP.

    Raises
    ------
    DeliveryDeferred, DeliveryRefused
        It did not take the result.
    """
    information = Dataset()
    information.TransactionUID = UID(result.transaction_uid)
    if result.committed:
        information.ReferencedSOPSequence = [_item(reference) for reference in result.committed]
    if result.failed:
        information.FailedSOPSequence = [_item(reference, reason) for reference, reason in result.failed.items()]
    context = build_context(StorageCommitmentPushModel, _SYNTAXES)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    association = associate(peer, calling_ae_title, [context], roles=[role])
    event_type = _SOME_FAILED if result.failed else _ALL_COMMITTED
    status = _exchange(association, association.send_n_event_report, information, event_type)
    if status != SUCCESS:
        words = "no answer" if status is None else f"status 0x{status:04X}"
        raise DeliveryDeferred(f"{peer.name}: storage commitment result: {words}")


def answer_request(event: evt.Event, on_request: Callable[[str, str, str, tuple[Reference, ...]], int]) -> int:
    """Answer a modality's N-ACTION; `on_request` is given AE title, address, transaction UID and objects."""
    try:
        if event.action_type != _REQUEST:
            raise InvalidArgument(f"action type {event.action_type}", NO_SUCH_ACTION)
        if event.request.RequestedSOPInstanceUID != StorageCommitmentPushModelInstance:
            raise InvalidArgument("not the well-known SOP Instance", NO_SUCH_OBJECT_INSTANCE)
        with PARSING:
            information = _decoded(lambda: event.action_information)
            references = _references(information, "ReferencedSOPSequence")
        if not references:
            raise InvalidArgument("no objects")
        transaction_uid = _transaction(information)
    except InvalidArgument as error:
        return error.status
    requestor = event.assoc.requestor
    return on_request(requestor.ae_title, requestor.address, transaction_uid, tuple(references))


def answer_result(event: evt.Event, on_result: OnResult) -> tuple[int, None]:
    """Answer a peer's N-EVENT-REPORT with what `on_result` says."""
    try:
        if event.event_type not in (_ALL_COMMITTED, _SOME_FAILED):
            raise InvalidArgument(f"event type {event.event_type}", NO_SUCH_EVENT_TYPE)
        with PARSING:
            information = _decoded(lambda: event.event_information)
            result = CommitmentResult(
                transaction_uid=_transaction(information),
                committed=tuple(_references(information, "ReferencedSOPSequence")),
                failed=_references(information, "FailedSOPSequence"),
            )
    except InvalidArgument as error:
        return error.status, None
    return on_result(result), None


def _exchange(association: Association, send: Callable[..., Any], information: Dataset, number: int) -> int | None:
    """Send one request under the well-known SOP Instance; return the status of its answer, if there was one."""
    try:
        status, _ = send(information, number, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    except (ValueError, RuntimeError):  # the association ended meanwhile, or the peer did not take the role
        return None
    finally:
        if association.is_established:
            association.release()
    code: int | None = status.get("Status")
    return code


def _item(reference: Reference, failure_reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = UID(reference.sop_class_uid)
    item.ReferencedSOPInstanceUID = UID(reference.sop_instance_uid)
    if failure_reason is not None:
        item.FailureReason = failure_reason
    return item


def _decoded(read: Callable[[], Dataset]) -> Dataset:
    try:
        return read()
    except DECODE_ERRORS as error:
        raise InvalidArgument("the information cannot be decoded") from error


def _transaction(information: Dataset) -> str:
    uid = str(information.get("TransactionUID") or "")
    if not is_uid(uid):
        raise InvalidArgument("the transaction UID is not a UID")
    return uid


def _items(information: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return the items of a sequence; one that says its length is parsed here, within the same bounds as the others."""
    raw = information.get_item(keyword) if keyword in information else None
    if not isinstance(raw, RawDataElement):
        return information.get(keyword) or ()
    value = raw.value or b""
    reader = cast(BinaryIO, BoundedReader(value, Bounds(MAXIMUM_MESSAGE_ELEMENTS)))
    return read_sequence(reader, raw.is_implicit_VR, raw.is_little_endian, len(value), "iso8859")


def _references(information: Dataset, sequence: str) -> dict[Reference, int]:
    """Return the objects of a sequence with their Failure Reason, 0 where there is none."""
    found: dict[Reference, int] = {}
    try:
        for item in _items(information, sequence):
            sop_class, sop_instance = str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)
            if not (is_uid(sop_class) and is_uid(sop_instance)):
                raise InvalidArgument("a reference is not a UID")
            found[Reference(sop_class_uid=sop_class, sop_instance_uid=sop_instance)] = int(item.get("FailureReason", 0))
            if len(found) > MAXIMUM_REFERENCES:
                raise InvalidArgument(f"more than {MAXIMUM_REFERENCES} objects")
    except DECODE_ERRORS as error:
        raise InvalidArgument("a reference cannot be read") from error
    return found
