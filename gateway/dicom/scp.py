"""C-STORE and C-ECHO SCP: bytes as received -> intake -> status.

A C-STORE is answered 0x0000 only after `Intake.accept` returned, that is after the object is on disk and its job
committed.  The bytes of the data set are never decoded and encoded again: the file that is spooled is a preamble, our
file meta information, and exactly what the sender sent.

Two ports can be listened on, a plain one and one that speaks TLS.  Who may send is decided when the association is
asked for: the called AE title must be ours, the calling one must be listed, from one of its addresses and with one of
its certificates if it has any (PS3.8 section 9.3.4: rejected-permanent, reasons 7 and 3).  ECG waveform objects are not
offered a presentation context: they hold signals already, and an acknowledged object must never be dropped, so the
sender is told no before it sends.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from io import BytesIO
from ipaddress import IPv6Address, ip_address, ip_network

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.sop_class import Verification

from gateway.dicom.pages import (
    DOCUMENT_SOP_CLASSES,
    DOCUMENT_TRANSFER_SYNTAXES,
    IMAGE_SOP_CLASSES,
    IMAGE_TRANSFER_SYNTAXES,
    read_context,
)
from gateway.dicom.transport import Acceptor, ConnectionLimit
from gateway.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, is_uid
from gateway.errors import IntakeError, StorageError, UnsupportedSopClass
from gateway.intake import Intake
from gateway.settings import CallerSettings, DicomSettings
from gateway.tls import ListenerTls, peer_names

logger = logging.getLogger(__name__)

MAXIMUM_PDU_SIZE = 131072  # what we ask peers to stay below; the largest DCMTK sends
_POLL_S = 0.2  # how soon the listening threads notice that they shall stop
_CONNECTIONS_PER_ASSOCIATION = 4  # connections that ask for no association yet take no place among associations

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
INVALID_SOP_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
DATA_SET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
TOO_LARGE = 0xC001


class StorageScp:
    """Listens for associations between `start` and `stop`.

    Raises
    ------
    SettingsError
        The certificate files of [dicom.tls] cannot be used.
    """

    def __init__(self, settings: DicomSettings, intake: Intake) -> None:
        self._settings = settings
        self._intake = intake
        self._ae = _application_entity(settings)
        self._tls = ListenerTls(settings.tls) if settings.tls else None
        self._limit = ConnectionLimit(
            _CONNECTIONS_PER_ASSOCIATION * settings.maximum_associations, settings.maximum_connections_per_host
        )
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

    def stop(self, grace_s: float = 5.0) -> None:
        """Take no new associations, give open ones `grace_s` to end, then abort them."""
        for acceptor, thread in self._listening.values():
            acceptor.shutdown()
            thread.join()
        deadline = time.monotonic() + grace_s
        while self._ae.active_associations and time.monotonic() < deadline:
            time.sleep(0.02)
        _abort(self._ae.active_associations)
        if self._listening:
            logger.info("Stopped listening for DICOM", extra={"action": "scp_stop"})
        self._listening.clear()

    def _listen(self, name: str, port: int, tls: ListenerTls | None) -> None:
        acceptor = self._ae.make_server(
            (self._settings.host, port),
            evt_handlers=[(evt.EVT_REQUESTED, self._on_requested), (evt.EVT_C_STORE, self._on_store)],
            server_class=Acceptor,
            maximum_object_bytes=self._settings.maximum_object_mib << 20,
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
        names = peer_names(connection) if isinstance(connection, ssl.SSLSocket) else frozenset()
        if not is_allowed(self._settings.callers, requestor.primitive.calling_ae_title, requestor.address, names):
            logger.warning("Rejected an association: the caller is not listed", extra={"action": "scp_reject"})
            self._reject(event.assoc, 0x01, 0x01, 0x03)
        elif not self._admit(event.assoc):
            logger.warning("Rejected an association: too many are open", extra={"action": "scp_reject"})
            self._reject(event.assoc, 0x02, 0x03, 0x02)

    def _admit(self, association: Association) -> bool:
        with self._lock:
            self._admitted = [admitted for admitted in self._admitted if admitted.is_alive()]
            if len(self._admitted) >= self._settings.maximum_associations:
                return False
            self._admitted.append(association)
            return True

    @staticmethod
    def _reject(association: Association, result: int, source: int, reason: int) -> None:
        association.acse.send_reject(result, source, reason)
        association.kill()

    def _on_store(self, event: evt.Event) -> Dataset:
        """Answer one C-STORE request (PS3.4 B.2.3)."""
        try:
            return self._store(event)
        except StorageError as error:
            logger.error("Cannot store: %s", error, extra={"action": "scp_defer"})
            return _status(OUT_OF_RESOURCES, "cannot be stored now, try again later")
        except UnsupportedSopClass as error:
            return _refuse(SOP_CLASS_NOT_SUPPORTED, str(error))
        except IntakeError as error:
            return _refuse(CANNOT_UNDERSTAND, str(error))
        except Exception:
            logger.exception("C-STORE failed", extra={"action": "scp_error"})
            return _status(PROCESSING_FAILURE, "internal error, try again later")

    def _store(self, event: evt.Event) -> Dataset:
        request = event.request
        sop_class, sop_instance = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        if not is_uid(sop_instance):
            return _refuse(INVALID_SOP_INSTANCE, "the SOP Instance UID is no UID")
        if sop_class != event.context.abstract_syntax:
            return _refuse(SOP_CLASS_NOT_SUPPORTED, "the SOP Class is not that of the presentation context")
        if request.DataSet.overflowed:
            return _refuse(TOO_LARGE, f"larger than {self._settings.maximum_object_mib} MiB")
        caller = event.assoc.requestor.ae_title
        data = _part10(request.DataSet, sop_class, sop_instance, event.context.transfer_syntax, caller)
        context = read_context(data)
        if (context.source_sop_class_uid, context.source_sop_instance_uid) != (sop_class, sop_instance):
            return _refuse(DATA_SET_DOES_NOT_MATCH, "SOP Class or Instance UID differs from the request's")
        self._intake.accept(
            source=f"dicom:{caller}",
            source_key=sop_instance,
            media_type="application/dicom",
            data=data,
            context=context,
            destinations=None,
            actor="scp",
            hold_reason="" if context.patient_id else "no Patient ID: whose ECG this is must be told by a person",
        )
        return _status(SUCCESS)


def _abort(associations: list[Association], patience_s: float = 1.0) -> None:
    """Abort associations; a peer that is in the middle of a PDU, or asked for nothing yet, is hung up on."""
    aborting = [
        threading.Thread(target=association.abort, daemon=True)
        for association in associations
        if association.is_established
    ]
    for thread in aborting:
        thread.start()
    deadline = time.monotonic() + patience_s
    for thread in aborting:
        thread.join(max(0.0, deadline - time.monotonic()))
    for association in associations:
        association.dul.socket.hang_up()
    deadline = time.monotonic() + patience_s
    for association in associations:
        association.join(max(0.0, deadline - time.monotonic()))


def is_allowed(
    callers: tuple[CallerSettings, ...], ae_title: str, address: str, certificate_names: frozenset[str] = frozenset()
) -> bool:
    """Return whether a peer may send.

    Its AE title must be listed: with no addresses or with one that holds its own, and with no certificate names or
    with one of those that its verified certificate holds.
    """
    if not callers:
        return True
    host = ip_address(address)
    if isinstance(host, IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    names = {name.casefold() for name in certificate_names}
    return any(
        caller.ae_title.strip() == ae_title.strip()
        and (not caller.hosts or any(host in ip_network(network, strict=False) for network in caller.hosts))
        and (not caller.certificate_names or any(name.casefold() in names for name in caller.certificate_names))
        for caller in callers
    )


def _application_entity(settings: DicomSettings) -> AE:
    ae = AE(ae_title=settings.ae_title)
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.require_called_aet = True
    ae.require_calling_aet = [caller.ae_title for caller in settings.callers]
    ae.maximum_associations = _CONNECTIONS_PER_ASSOCIATION * settings.maximum_associations  # ours are in `_admit`
    ae.maximum_pdu_size = MAXIMUM_PDU_SIZE
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = settings.timeout_s
    ae.add_supported_context(Verification, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    for sop_class in IMAGE_SOP_CLASSES:
        ae.add_supported_context(sop_class, list(IMAGE_TRANSFER_SYNTAXES))
    for sop_class in DOCUMENT_SOP_CLASSES:
        ae.add_supported_context(sop_class, list(DOCUMENT_TRANSFER_SYNTAXES))
    return ae


def _part10(data_set: BytesIO, sop_class: str, sop_instance: str, transfer_syntax: str, caller: str) -> bytes:
    """Return a DICOM file (PS3.10 section 7.1) around the data set exactly as it was received."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance)
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    meta.SourceApplicationEntityTitle = caller
    return b"".join((b"\0" * 128, b"DICM", encode_file_meta(meta), data_set.getbuffer()))


def _status(code: int, comment: str = "") -> Dataset:
    status = Dataset()
    status.Status = code
    if comment:
        status.ErrorComment = comment[:64]  # LO
    return status


def _refuse(code: int, reason: str) -> Dataset:
    logger.warning("Refused an object, status 0x%04X: %s", code, reason, extra={"action": "scp_refuse"})
    return _status(code, reason)
