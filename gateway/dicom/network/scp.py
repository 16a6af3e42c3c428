"""The listener: who may associate, and who answers C-STORE, C-ECHO and storage commitment.

What is stored goes to `gateway.dicom.images.receive`, storage commitment (N-ACTION of modalities, N-EVENT-REPORT of
peers we asked) to `gateway.dicom.network.commitment`.

Two ports can be listened on, a plain one and one that speaks TLS.  Who may send is decided when the association is
asked for: the called AE title must be ours, the calling one must be listed, from one of its addresses and with one of
its certificates if it has any (PS3.8 section 9.3.4: rejected-permanent, reasons 7 and 3).  A peer that we ask to commit
need not be listed: it may report, and nothing else.  ECG waveform objects are not offered a presentation context: they
hold signals already, and an acknowledged object must never be dropped, so the sender is refused before it sends.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from gateway.dicom.images.pages import (
    DOCUMENT_SOP_CLASSES,
    DOCUMENT_TRANSFER_SYNTAXES,
    IMAGE_SOP_CLASSES,
    IMAGE_TRANSFER_SYNTAXES,
)
from gateway.dicom.images.receive import PROCESSING_FAILURE, answer_store, status
from gateway.dicom.network.commitment import CommitmentResult, Reference, answer_request, answer_result
from gateway.dicom.network.transport import Acceptor, Room
from gateway.dicom.objects.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.domain.received import Keep
from gateway.security.connections import ConnectionLimit
from gateway.security.tls import ListenerTls, peer_names
from gateway.settings import CallerSettings, DicomSettings

logger = logging.getLogger(__name__)

MAXIMUM_PDU_SIZE = 131072  # what we ask peers to stay below; the largest DCMTK sends
_END_S = 2.0  # what threads of connections get to end in when we stop
_POLL_S = 0.2  # how soon the listening threads notice that they shall stop
_UNCOMPRESSED = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_FOR_REPORTS = (Verification, StorageCommitmentPushModel)
_CONNECTIONS_PER_ASSOCIATION = 4  # connections that ask for no association yet take no place among associations


class Commitments(Protocol):
    """Who answers requests and results of storage commitment, with a status."""

    def expects(self, calling_ae_title: str, called_ae_title: str, address: str) -> bool:
        """Return whether a result may come from this peer."""
        ...

    def request_received(
        self, ae_title: str, host: str, transaction_uid: str, references: tuple[Reference, ...]
    ) -> int:
        """Keep a request of a modality; return the status of the answer."""
        ...

    def result_received(self, result: CommitmentResult) -> int:
        """Record a result of a peer; return the status of the answer."""
        ...


class StorageScp:
    """Listens for associations between `start` and `stop`.

    Parameters
    ----------
    keep
        Keeps an object for good before it is acknowledged.
    room
        Where objects are kept on their way in.
    commitments
        Who answers for storage commitment; without, it is not offered.

    Attributes
    ----------
    maximum_connections : int
        How many connections may be open at once, with an association or not.

    Raises
    ------
    SettingsError
        The certificate files of [dicom.tls] cannot be used.
    """

    def __init__(self, settings: DicomSettings, keep: Keep, room: Room, commitments: Commitments | None = None) -> None:
        self._settings = settings
        self._keep = keep
        self._room = room
        self._commitments = commitments
        self._ae = _application_entity(settings)
        if commitments is not None:
            self._ae.add_supported_context(StorageCommitmentPushModel, _UNCOMPRESSED, scu_role=True, scp_role=True)
        self._tls = ListenerTls(settings.tls) if settings.tls else None
        self.maximum_connections = _maximum_connections(settings)
        self._limit = ConnectionLimit("DICOM", self.maximum_connections, settings.maximum_connections_per_host)
        self._lock = threading.Lock()
        self._admitted: list[Association] = []
        self._listening: dict[str, tuple[Acceptor, threading.Thread]] = {}

    @property
    def port(self) -> int:
        """The plain port that is listened on; the system's choice where the settings say 0."""
        return self._port("dicom-scp", self._settings.port)

    @property
    def tls_port(self) -> int:
        """The TLS port likewise; 0 where there is none."""
        return self._port("dicom-tls-scp", self._settings.tls.port if self._settings.tls else 0)

    @property
    def is_alive(self) -> bool:
        """Whether every listening thread runs."""
        return bool(self._listening) and all(thread.is_alive() for _, thread in self._listening.values())

    def start(self) -> None:
        """Listen; return when connections are taken.

        Raises
        ------
        OSError
            An address cannot be listened on; nothing is listened on then.
        """
        try:
            if self._settings.plain:
                self._listen("dicom-scp", self._settings.port, None)
            if self._settings.tls is not None:
                self._listen("dicom-tls-scp", self._settings.tls.port, self._tls)
        except OSError:
            self.stop(grace_s=0.0)
            raise

    def take_up(self, settings: DicomSettings) -> None:
        """Follow changed callers and limits from the next association on; open ones go on, and ports stay."""
        self._settings = settings
        _apply_limits(self._ae, settings)
        self.maximum_connections = _maximum_connections(settings)
        self._limit.change(self.maximum_connections, settings.maximum_connections_per_host)
        for acceptor, _ in self._listening.values():
            acceptor.maximum_object_bytes = settings.maximum_object_mib << 20

    def stop(self, grace_s: float = 5.0) -> None:
        """Take no new associations, give open ones `grace_s` to end, then abort them.

        A peer that is in the middle of a PDU, or has asked for nothing yet, is hung up on.
        """
        for acceptor, thread in self._listening.values():
            acceptor.shutdown()
            thread.join()
        _wait_while(lambda: bool(self._ae.active_associations), grace_s)
        _abort([association for association in self._ae.active_associations if association.is_established])
        acceptors = [acceptor for acceptor, _ in self._listening.values()]
        _wait_while(lambda: any([acceptor.hang_up() for acceptor in acceptors]), _END_S)
        if self._listening:
            logger.info("Stopped listening for DICOM", extra={"action": "scp_stop"})
        self._listening.clear()

    def _listen(self, name: str, port: int, tls: ListenerTls | None) -> None:
        acceptor = self._ae.make_server(
            (self._settings.host, port),
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_C_STORE, self._on_store),
                (evt.EVT_N_ACTION, self._on_action),
                (evt.EVT_N_EVENT_REPORT, self._on_event_report),
            ],
            server_class=Acceptor,
            maximum_object_bytes=self._settings.maximum_object_mib << 20,
            room=self._room,
            limit=self._limit,
            tls=tls,
        )
        thread = threading.Thread(target=acceptor.serve_forever, args=(_POLL_S,), name=name, daemon=True)
        self._listening[name] = acceptor, thread
        thread.start()
        logger.info(
            "Listening for DICOM%s on %s:%d",
            *(" with TLS" if tls else "", self._settings.host, self._port(name, port)),
            extra={"action": "scp_start"},
        )

    def _port(self, name: str, port: int) -> int:
        return int(self._listening[name][0].server_address[1]) if name in self._listening else port

    def _on_requested(self, event: evt.Event) -> None:
        """Reject a caller that is not listed, or not from this address, or not with this certificate, or too many."""
        requestor, connection = event.assoc.requestor, event.assoc.dul.socket.socket
        calling, called = requestor.primitive.calling_ae_title, requestor.primitive.called_ae_title
        names = peer_names(connection) if isinstance(connection, ssl.SSLSocket) else frozenset()
        listed = is_allowed(self._settings.callers, calling, requestor.address, names)
        ours = called.strip() == self._settings.ae_title.strip()
        if not (listed and ours):
            commitments = self._commitments
            if commitments is None or not commitments.expects(calling, called, requestor.address):
                reason = f"{called} is not our AE title" if listed else "it is not among the callers"
                self._reject(event.assoc, reason, 0x01, 0x01, 0x07 if listed else 0x03)
                return
            event.assoc.acceptor.supported_contexts = [
                context for context in self._ae.supported_contexts if context.abstract_syntax in _FOR_REPORTS
            ]
        if not self._admit(event.assoc):
            self._reject(event.assoc, "too many are open", 0x02, 0x03, 0x02)

    def _admit(self, association: Association) -> bool:
        with self._lock:
            self._admitted = [admitted for admitted in self._admitted if admitted.is_alive()]
            if len(self._admitted) >= self._settings.maximum_associations:
                return False
            self._admitted.append(association)
            return True

    @staticmethod
    def _reject(association: Association, why: str, result: int, source: int, reason: int) -> None:
        requestor = association.requestor
        logger.warning(
            "Rejected an association of %s from %s: %s",
            *(requestor.primitive.calling_ae_title, requestor.address, why),
            extra={"action": "scp_reject"},
        )
        association.acse.send_reject(result, source, reason)
        association.kill()

    def _on_store(self, event: evt.Event) -> Dataset:
        """Answer one C-STORE request (PS3.4 B.2.3)."""
        try:
            return answer_store(event, self._keep, self._settings.maximum_object_mib, "scp")
        except Exception:
            logger.exception("C-STORE failed", extra={"action": "scp_error"})
            return status(PROCESSING_FAILURE, "internal error, try again later")

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        """Answer a modality that asks us to commit (PS3.4 J.3.2)."""
        assert self._commitments is not None
        try:
            return answer_request(event, self._commitments.request_received), None
        except Exception:
            logger.exception("N-ACTION failed", extra={"action": "scp_error"})
            return PROCESSING_FAILURE, None

    def _on_event_report(self, event: evt.Event) -> tuple[int, None]:
        """Answer a peer that reports what it has committed (PS3.4 J.3.3)."""
        assert self._commitments is not None
        try:
            return answer_result(event, self._commitments.result_received)
        except Exception:
            logger.exception("N-EVENT-REPORT failed", extra={"action": "scp_error"})
            return PROCESSING_FAILURE, None


def _abort(associations: list[Association]) -> None:
    """Abort associations; one that is not gone after `_END_S` is left."""
    aborting = [threading.Thread(target=association.abort, daemon=True) for association in associations]
    for thread in aborting:
        thread.start()
    _wait_while(lambda: any(thread.is_alive() for thread in aborting), _END_S)


def _wait_while(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def is_allowed(
    callers: tuple[CallerSettings, ...], ae_title: str, address: str, certificate_names: frozenset[str] = frozenset()
) -> bool:
    """Return whether a peer may send.

    Its AE title must be listed: with no addresses or with one that holds its own, and with no certificate names or
    with one of those that its verified certificate holds.
    """
    if not callers:
        return True
    host = _peer_address(address)
    names = {name.casefold() for name in certificate_names}
    return any(
        caller.ae_title.strip() == ae_title.strip()
        and (not caller.hosts or any(host in ip_network(network, strict=False) for network in caller.hosts))
        and (not caller.certificate_names or any(name.casefold() in names for name in caller.certificate_names))
        for caller in callers
    )


def is_from(address: str, host: str) -> bool:
    """Return whether a peer's address is that of a host, which the settings name by address or by name."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):  # it cannot be resolved, or is no name
        return False
    return _peer_address(address) in {_peer_address(one) for one in found}


def _peer_address(address: str) -> IPv4Address | IPv6Address:
    host = ip_address(address)
    mapped = host.ipv4_mapped if isinstance(host, IPv6Address) else None
    return mapped or host


def _maximum_connections(settings: DicomSettings) -> int:
    return _CONNECTIONS_PER_ASSOCIATION * settings.maximum_associations


def _apply_limits(ae: AE, settings: DicomSettings) -> None:
    ae.maximum_associations = _maximum_connections(settings)  # ours are in `_admit`
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = settings.timeout_s


def _application_entity(settings: DicomSettings) -> AE:
    ae = AE(ae_title=settings.ae_title)
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = MAXIMUM_PDU_SIZE
    _apply_limits(ae, settings)
    ae.add_supported_context(Verification, _UNCOMPRESSED)
    for sop_class in IMAGE_SOP_CLASSES:
        ae.add_supported_context(sop_class, list(IMAGE_TRANSFER_SYNTAXES))
    for sop_class in DOCUMENT_SOP_CLASSES:
        ae.add_supported_context(sop_class, list(DOCUMENT_TRANSFER_SYNTAXES))
    return ae
