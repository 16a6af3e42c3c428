"""Is a destination reachable, and if not, at which step and what to do: for whoever connects the gateway.

A check is a few steps, each tried only after the one before it worked: the name, TCP, TLS, the association, its
presentation contexts, the peer's answer.  A step that fails says what was seen and what to do about it.
"""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.uid import (
    UID,
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from gateway.dicom.network import dicomweb as web
from gateway.dicom.network.association import AssociationRejected, NoConnection, NoContext, associate
from gateway.dicom.network.find import Study, StudyQuery, find_studies
from gateway.dicom.network.scu import send
from gateway.dicom.objects.uids import derived_uid
from gateway.dicom.objects.waveform import SOP_CLASS_UIDS, build_waveform, encode
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.errors import DeliveryError, SettingsError
from gateway.hl7.outbound.messages import Result, build_message, message_control_id
from gateway.hl7.transport.client import MllpClient
from gateway.security.tls import client_context, server_name, words
from gateway.settings import (
    Destination,
    DicomDestination,
    DicomWebDestination,
    FolderDestination,
    Hl7CodeSettings,
    Hl7Destination,
    TlsClientSettings,
)
from gateway.store.tables import new_id
from pipeline import LEADS, Calibration, EcgRecord, Quality

TEST_PATIENT_ID = "ECGGW-TEST"

_ALERT_S = 0.3  # a TLS 1.3 server that does not like our certificate says so after the handshake

# (result, source, reason) of PS3.8 table 9-21
_REJECTIONS = {
    (1, 1, 2): "the peer does not know DICOM's application context: is it a DICOM archive?",
    (1, 1, 3): "the peer does not know us: have AE title {calling} (and this machine's address) entered there, "
    "or set calling_ae_title to one it knows",
    (1, 1, 7): "the peer has another AE title than {called}: set ae_title as it is written there",
    (2, 3, 1): "the peer is too busy: try again later",
    (2, 3, 2): "the peer has too many associations open: try again later, or have its limit raised",
}
_STATUSES = (
    (range(0xA700, 0xA800), "the peer is out of resources: its disk may be full"),
    (range(0xA900, 0xAA00), "the peer finds the object not to be what its SOP class says: see its log"),
    (range(0xC000, 0xD000), "the peer cannot read the object: see its log"),
    (range(0x0122, 0x0123), "the peer does not take this SOP class: set sop_class, or have it configured there"),
    (range(0x0124, 0x0125), "the peer does not allow us this: have our AE title given the right there"),
)
_FIND_STATUSES = (
    (range(0xA700, 0xA800), "the peer is out of resources: ask for less, by date or patient"),
    (range(0xA900, 0xAA00), "the peer does not know one of the keys, or its form: ask by others"),
    (range(0xC000, 0xD000), "the peer cannot process the query: ask for less, and see its log"),
    *_STATUSES[-2:],
)

_HTTP_ADVICE = {
    "401": "set token_file, or username and password_file, to what the server knows",
    "403": "have this user allowed there to query and store",
    "404": "nothing is at url: it is the path above /studies",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that was tried: what was found, and if it failed what to do."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def echo(destination: Destination, calling_ae_title: str) -> Iterator[Step]:
    """Yield the steps up to C-ECHO, and whether a DICOM peer takes what we send; nothing is stored there."""
    if isinstance(destination, FolderDestination):
        yield _folder(destination.path)
        return
    for step in reach(destination.host, destination.port, destination.timeout_s, _tls(destination)):
        yield step
        if not step.ok:
            return
    if isinstance(destination, DicomDestination):
        yield from _verify(destination, calling_ae_title)
    elif isinstance(destination, DicomWebDestination):
        yield _query(destination)


def find(
    destination: Destination, calling_ae_title: str, query: StudyQuery, limit: int
) -> tuple[tuple[Study, ...], Iterable[Step]]:
    """Return the studies a destination has, and no steps; or none, and the steps up to the one that fails.

    Raises
    ------
    SettingsError
        The destination is of another kind.
    """
    if not isinstance(destination, DicomDestination | DicomWebDestination):
        raise SettingsError(f"{destination.name} is no archive: its kind is {destination.kind}")
    try:
        if isinstance(destination, DicomWebDestination):
            return web.find_studies(destination, query, limit), ()
        return find_studies(destination, calling_ae_title, query, limit), ()
    except DeliveryError as error:
        return (), _not_found(destination, calling_ae_title, error)


def _not_found(
    destination: DicomDestination | DicomWebDestination, calling_ae_title: str, error: DeliveryError
) -> Iterator[Step]:
    for step in reach(destination.host, destination.port, destination.timeout_s, _tls(destination)):
        yield step
        if not step.ok:
            return
    if isinstance(destination, DicomWebDestination):
        yield _not_answered(error)
    elif isinstance(error, NoContext):
        advice = "have queries (C-FIND, Study Root) allowed there for our AE title"
        yield Step(name="context", ok=False, found=str(error), advice=advice)
    elif isinstance(error, NoConnection | AssociationRejected):
        yield _not_associated(error, destination, calling_ae_title)
    else:
        advice = f"have AE title {calling_ae_title} allowed to query there"
        if error.response:
            advice = _answer_advice(error.response, _FIND_STATUSES)
        yield Step(name="C-FIND", ok=False, found=str(error), advice=advice)


def send_test(destination: Destination, calling_ae_title: str, codes: Hl7CodeSettings) -> Iterator[Step]:
    """Yield the steps of `echo`, then send a made-up ECG of a made-up patient: a waveform object, or a message.

    Raises
    ------
    SettingsError
        The destination is of another kind.
    """
    if not isinstance(destination, DicomDestination | DicomWebDestination | Hl7Destination):
        raise SettingsError(f"{destination.name} is of kind {destination.kind}: use `echo`, or submit a test page")
    for step in echo(destination, calling_ae_title):
        yield step
        if not step.ok:
            return
    names = {"dicom": "C-STORE", "dicomweb": "STOW-RS"}
    name = destination.message if isinstance(destination, Hl7Destination) else names[destination.kind]
    try:
        if isinstance(destination, Hl7Destination):
            answer = _message_test(destination, codes)
        else:
            answer = _store_test(destination, calling_ae_title)
    except DeliveryError as error:
        yield Step(name=name, ok=False, found=str(error), advice=_answer_advice(error.response))
        return
    yield Step(name=name, ok=True, found=f"answered {answer}; take patient {TEST_PATIENT_ID} out there when you saw it")


def _store_test(destination: DicomDestination | DicomWebDestination, calling_ae_title: str) -> str:
    ecg = _made_up_ecg(destination.name)
    dataset = build_waveform(
        ecg.record,
        ecg.quality,
        ecg.context,
        page_number=1,
        layout_name="test",
        sop_class=destination.sop_class,
        created_at=ecg.created_at,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.dcm"
        path.write_bytes(encode(dataset))
        if isinstance(destination, DicomWebDestination):
            return web.send(path, destination)
        return send(path, destination, calling_ae_title)


def _message_test(destination: Hl7Destination, codes: Hl7CodeSettings) -> str:
    ecg = _made_up_ecg(destination.name)
    result = Result(
        record=ecg.record,
        quality=ecg.quality,
        context=ecg.context,
        study_instance_uid=ecg.context.study_instance_uid,
        waveform_sop_instance_uid=derived_uid("test waveform", destination.name),
        message_control_id=message_control_id(new_id(), 1, destination.name),
        doubtful=False,
        created_at=ecg.created_at,
    )
    client = MllpClient(destination)
    try:
        return client.send(build_message(result, destination, codes))
    finally:
        client.close()


def reach(host: str, port: int, timeout_s: float, tls: TlsClientSettings | None) -> Iterator[Step]:
    """Yield the steps to a connection: name, TCP, and TLS where there are settings for it."""
    name = _resolve(host)
    yield name
    if not name.ok:
        return
    try:
        connection = socket.create_connection((host, port), timeout_s)
    except OSError as error:
        yield Step(name="TCP", ok=False, found=f"{host}:{port}: {words(error)}", advice=_tcp_advice(error, port))
        return
    with connection:
        yield Step(name="TCP", ok=True, found=f"{host}:{port} takes connections")
        if tls is not None:
            yield _handshake(connection, host, timeout_s, tls)


def _query(destination: DicomWebDestination) -> Step:
    try:
        web.check(destination)
    except DeliveryError as error:
        return _not_answered(error)
    return Step(name="QIDO-RS", ok=True, found="the server answers queries")


def _not_answered(error: DeliveryError) -> Step:
    advice = _HTTP_ADVICE.get(error.response, "is url that of a DICOMweb service?  See the server's log")
    return Step(name="QIDO-RS", ok=False, found=str(error), advice=advice)


def _tls(destination: DicomDestination | DicomWebDestination | Hl7Destination) -> TlsClientSettings | None:
    if isinstance(destination, DicomWebDestination) and destination.secure:
        return destination.tls or TlsClientSettings()
    return destination.tls


def _resolve(host: str) -> Step:
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        advice = "check the spelling of host, and this machine's name servers; or write the address instead"
        return Step(name="name", ok=False, found=f"{host} cannot be resolved ({words(error)})", advice=advice)
    return Step(name="name", ok=True, found=f"{host} is {', '.join(sorted(found))}")


def _tcp_advice(error: OSError, port: int) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"the machine is there, but nothing listens on port {port}: check port, and that the peer's service runs"
    if isinstance(error, TimeoutError):
        return "nothing came back: check host, and that the firewalls between let this port through"
    return "check host, and this machine's network"


def _handshake(connection: socket.socket, host: str, timeout_s: float, tls: TlsClientSettings) -> Step:
    try:
        context = client_context(tls)
    except SettingsError as error:
        return Step(name="TLS", ok=False, found=str(error), advice="put the file right; check-config tries it too")
    connection.settimeout(timeout_s)
    agreed = False
    try:
        with context.wrap_socket(connection, server_hostname=server_name(tls, host)) as secure:
            agreed = True
            _await_alert(secure)
            cipher = secure.cipher()
            certificate = secure.getpeercert() or {}
            found = f"{secure.version()}, {cipher[0] if cipher else ''}, its certificate ends {certificate['notAfter']}"
            return Step(name="TLS", ok=True, found=found)
    except OSError as error:
        advice = _tls_advice(error, server_name(tls, host), agreed=agreed)
        return Step(name="TLS", ok=False, found=words(error), advice=advice)


def _await_alert(secure: ssl.SSLSocket) -> None:
    """Wait for the peer to object to our certificate; raise OSError when it does."""
    secure.settimeout(_ALERT_S)
    try:
        if not secure.recv(1):
            raise ConnectionResetError("closed after the handshake")
    except TimeoutError:
        return  # it waits for us to speak: all is well


def _tls_advice(error: OSError, name: str, *, agreed: bool) -> str:
    """Return what to do; `agreed`: the handshake was over, and the peer closed then."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if "mismatch" in error.verify_message:
            return f"its certificate is not for {name}: set server_name to the name that stands in it"
        if "expired" in error.verify_message:
            return "the peer's certificate has ended: have it renewed there"
        return "set ca_file to the authority that issued the peer's certificate"
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    if "PROTOCOL_VERSION" in reason or "HANDSHAKE_FAILURE" in reason:
        return "nothing in common: the peer must speak TLS 1.2 or 1.3 with ECDHE and AES-GCM; try the other profile"
    if "ALERT" in reason or agreed:
        return "the peer does not take our certificate: set certificate_file, and have its authority trusted there"
    return "the port does not speak TLS: use the peer's TLS port, or leave [destinations.tls] out"


def _verify(destination: DicomDestination, calling_ae_title: str) -> Iterator[Step]:
    wanted = _wanted(destination)
    contexts = [build_context(Verification), *(build_context(sop_class) for sop_class in wanted)]
    try:
        association = associate(destination, calling_ae_title, contexts)
    except (NoConnection, AssociationRejected, NoContext) as error:
        yield _not_associated(error, destination, calling_ae_title)
        return
    try:
        found = f"{calling_ae_title} to {destination.ae_title}"
        yield Step(name="association", ok=True, found=found)
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        for sop_class, advice in wanted.items():
            takes = sop_class in accepted
            yield Step(
                name="context",
                ok=takes or sop_class == KeyObjectSelectionDocumentStorage,  # nothing but corrections needs that
                found=f"the peer takes {'' if takes else 'no '}{UID(sop_class).name}",
                advice="" if takes else advice,
            )
        if Verification in accepted:
            yield _c_echo(association)
    finally:
        if association.is_established:
            association.release()


def _wanted(destination: DicomDestination) -> dict[str, str]:
    """Return what a destination must take of us, by SOP class, and what to do where it does not."""
    wanted = {SOP_CLASS_UIDS[destination.sop_class]: "set sop_class to the other one, or have it configured there"}
    for kind, sop_class in (("report", EncapsulatedPDFStorage), ("overlay", SecondaryCaptureImageStorage)):
        if kind in destination.also:
            wanted[sop_class] = f"have it configured there, or take {kind} out of also"
    if destination.storage_commitment:
        wanted[StorageCommitmentPushModel] = "have it configured there, or set storage_commitment = false"
    if destination.rejection_note:
        wanted[KeyObjectSelectionDocumentStorage] = (
            "a correction could not reject what it replaces: have it configured there, or set rejection_note = false"
        )
    return wanted


def _c_echo(association: Association) -> Step:
    status = association.send_c_echo().get("Status")
    if status == 0x0000:
        return Step(name="C-ECHO", ok=True, found="status 0x0000")
    found = "no answer" if status is None else f"status 0x{status:04X}"
    return Step(name="C-ECHO", ok=False, found=found, advice="see the peer's log")


def _not_associated(error: DeliveryError, destination: DicomDestination, calling_ae_title: str) -> Step:
    if isinstance(error, NoContext):
        advice = f"have {destination.sop_class} ECG storage configured at the peer, for our AE title"
        return Step(name="context", ok=False, found=str(error), advice=advice)
    advice = "is it the peer's DICOM port?  Some close it on AE titles they do not know" + (
        "" if destination.tls else ", or want TLS: then set [destinations.tls]"
    )
    if isinstance(error, AssociationRejected):
        advice = _REJECTIONS.get(error.rejection, "see the peer's log")
        advice = advice.format(calling=calling_ae_title, called=destination.ae_title)
    return Step(name="association", ok=False, found=str(error), advice=advice)


def _answer_advice(response: str, statuses: Sequence[tuple[range, str]] = _STATUSES) -> str:
    """Return what to do about a DICOM status ("0xA700") or an HL7 acknowledgement code ("AE")."""
    code = int(response, 16) if response.startswith("0x") else -1
    return next((advice for codes, advice in statuses if code in codes), "see the peer's log")


def _folder(path: Path) -> Step:
    if path.is_dir() and os.access(path, os.W_OK | os.X_OK):
        return Step(name="folder", ok=True, found=f"{path} can be written to")
    return Step(name="folder", ok=False, found=f"{path} is no folder we can write to", advice="make it, or allow us to")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _MadeUpEcg:
    record: EcgRecord
    quality: Quality
    context: StudyContext
    created_at: datetime


def _made_up_ecg(destination_name: str) -> _MadeUpEcg:
    """Return 10 s of pulses of 1 mV that no heart makes, the same at every call of a day."""
    now = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    beat = np.exp(-(((np.arange(5000) % 500) - 100.0) ** 2) / 50).astype(np.float32)
    signal_mv = np.tile(beat, (len(LEADS), 1))
    key = f"{destination_name} {now:%Y%m%d}"
    return _MadeUpEcg(
        record=EcgRecord(
            signal_mv=signal_mv,
            confidence=np.ones_like(signal_mv),
            leads=LEADS,
            sampling_frequency_hz=500.0,
            calibration=Calibration(),
        ),
        quality=Quality(
            coverage=dict.fromkeys(LEADS, 1.0),
            confidence=dict.fromkeys(LEADS, 1.0),
            einthoven_residual_mv=None,
            layout_score=1.0,
            estimated_snr_db=0.0,
        ),
        context=StudyContext(
            patient_id=TEST_PATIENT_ID,
            patient_name="TEST^GATEWAY",
            study_instance_uid=derived_uid("test study", key),
            study_date=f"{now:%Y%m%d}",
            study_description="TEST of the ECG gateway, no patient",
            source_sop_instance_uid=derived_uid("test source", key),
        ),
        created_at=now,
    )
