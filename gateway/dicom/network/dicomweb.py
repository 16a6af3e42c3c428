"""DICOMweb (PS3.18): STOW-RS to store, QIDO-RS to find, WADO-RS to fetch.

A bearer token or a password authenticates us; it is read from its file for every request, so it can be replaced while
the gateway runs.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from pydicom import Dataset

from gateway.dicom.images.pixels import DECODE_ERRORS
from gateway.dicom.images.receive import announced_object
from gateway.dicom.network.find import Study, StudyQuery
from gateway.dicom.network.retrieve import Instance
from gateway.dicom.network.scu import outcome
from gateway.domain.received import Keep
from gateway.errors import DeliveryDeferred, DeliveryRefused, IntakeError, NotReached, SettingsError
from gateway.security.http import MAXIMUM_BYTES, WebPeer, request, secret
from gateway.settings import DicomWebDestination

_JSON = "application/dicom+json"
_PAGE = 200  # matches a request
_STORED_OR_REPORTED = (200, 202, 409)  # table 10.5.3-1: the response says what became of each object
_NEVER = {400, 405, 406, 411, 413, 414, 415, 422}

_COLUMNS = {  # field of Study <- tag, and the query key
    "study_instance_uid": ("0020000D", ""),
    "study_date": ("00080020", "StudyDate"),
    "modalities": ("00080061", "ModalitiesInStudy"),
    "accession_number": ("00080050", "AccessionNumber"),
    "study_description": ("00081030", "StudyDescription"),
    "patient_id": ("00100020", "PatientID"),
    "patient_name": ("00100010", ""),
}


def send(path: Path, destination: DicomWebDestination) -> str:
    """Store a DICOM file by STOW-RS and return the answer, "200" or with a warning "202".

    Raises
    ------
    DeliveryDeferred, DeliveryRefused
        As `gateway.dicom.network.scu.send`.
    """
    boundary = uuid.uuid4().hex
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DeliveryDeferred(f"the file cannot be read ({type(error).__name__})") from error
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
    status, headers, body = _request(
        destination,
        "/studies",
        headers={"Content-Type": content_type, "Accept": _JSON},
        content=b"".join((head, data, f"\r\n--{boundary}--\r\n".encode())),
    )
    if status not in _STORED_OR_REPORTED:
        raise _failure(destination, status)
    _check_stored(destination, status, headers.get("Content-Type", ""), body)
    return str(status)


def check(destination: DicomWebDestination) -> None:
    """Ask for one study, whichever; raise as `send` does where the server does not answer."""
    _query(destination, "/studies", {"limit": "1"})


def find_studies(destination: DicomWebDestination, query: StudyQuery, limit: int) -> tuple[Study, ...]:
    """Return the first `limit` studies that match (QIDO-RS); raise as `send` does where the server does not answer."""
    return tuple(islice(_studies(destination, query), limit))


class WebArchive:
    """A DICOMweb destination asked for what it has; see `gateway.dicom.network.retrieve.DimseArchive`."""

    def __init__(self, peer: DicomWebDestination, keep: Keep, maximum_object_mib: int) -> None:
        self._peer = peer
        self._keep = keep
        self._maximum_object_mib = maximum_object_mib

    def studies(self, query: StudyQuery) -> Sequence[Study]:
        """Return the studies that match."""
        return tuple(_studies(self._peer, query))

    def instances(self, study_instance_uid: str, modalities: Sequence[str]) -> Sequence[Instance]:
        """Return the objects of a study's series of these modalities, of all for none."""
        study = f"/studies/{study_instance_uid}/series"
        series = [
            _text(match, "0020000E")
            for match in _pages(self._peer, study, {}, "0020000E")
            if not modalities or _text(match, "00080060") in modalities
        ]
        return [
            Instance(
                study_instance_uid=study_instance_uid,
                series_instance_uid=uid,
                sop_class_uid=_text(match, "00080016"),
                sop_instance_uid=_text(match, "00080018"),
            )
            for uid in series
            for match in _pages(self._peer, f"{study}/{uid}/instances", {}, "00080018")
        ]

    def fetch(self, instances: Sequence[Instance]) -> None:
        """Fetch objects one by one; one that we cannot take is left out.

        Raises
        ------
        DeliveryDeferred, DeliveryRefused
            The server does not send.
        StorageError
            There is no room here.
        """
        for instance in instances:
            data = self._fetch(instance)
            source = f"dicomweb:{self._peer.name}"
            try:
                self._keep(announced_object(data, instance.sop_class_uid, instance.sop_instance_uid, source, "pull"))
            except IntakeError:
                continue  # the caller sees that it did not arrive

    def _fetch(self, instance: Instance) -> bytes:
        path = (
            f"/studies/{instance.study_instance_uid}/series/{instance.series_instance_uid}"
            f"/instances/{instance.sop_instance_uid}"
        )
        status, headers, body = _request(
            self._peer,
            path,
            headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
            maximum_bytes=(self._maximum_object_mib << 20) + 4096,
        )
        if status != 200:
            raise _failure(self._peer, status)
        return _only_part(self._peer, headers.get("Content-Type", ""), body)


def _studies(peer: DicomWebDestination, query: StudyQuery) -> Iterator[Study]:
    keys = {key: getattr(query, field, "") for field, (_, key) in _COLUMNS.items() if key}
    asked = {key: value for key, value in keys.items() if value}
    for match in _pages(peer, "/studies", asked | {"includefield": "StudyDescription"}, "0020000D"):
        yield Study(**{field: _text(match, tag) for field, (tag, _) in _COLUMNS.items()})


def _pages(peer: DicomWebDestination, path: str, asked: dict[str, str], identity: str) -> Iterator[dict[str, Any]]:
    """Yield all matches, asked for page by page; a server that knows no pages gives the same one again."""
    seen: set[str] = set()
    while True:
        found = _query(peer, path, {**asked, "limit": str(_PAGE), "offset": str(len(seen))})
        new = [match for match in found if _text(match, identity) not in seen]
        yield from new
        seen |= {_text(match, identity) for match in new}
        if len(found) < _PAGE or not new:
            return


def _query(destination: DicomWebDestination, path: str, asked: dict[str, str]) -> list[dict[str, Any]]:
    status, _, body = _request(destination, path, headers={"Accept": _JSON}, params=asked)
    if status == 204:
        return []
    if status not in (200, 206):
        raise _failure(destination, status)
    try:
        found = json.loads(body)
    except ValueError as error:
        raise DeliveryDeferred(
            f"{destination.name}: the answer is no JSON: is url that of a DICOMweb service?"
        ) from error
    return [match for match in found if isinstance(match, dict)] if isinstance(found, list) else []


def _request(
    destination: DicomWebDestination,
    path: str,
    *,
    headers: dict[str, str],
    params: dict[str, str] | None = None,
    content: bytes | None = None,
    maximum_bytes: int = MAXIMUM_BYTES,
) -> tuple[int, Mapping[str, str], bytes]:
    """Make one request, a POST where there is something to send; return status, headers and body."""
    # wild cards as they are, which a query may hold (RFC 3986 section 3.4): Orthanc's plugin takes "%2A" literally
    query = f"?{urlencode(params, quote_via=quote, safe='*?')}" if params else ""
    try:
        sent = {**headers, **_authorization(destination)}
    except SettingsError as error:
        raise NotReached(f"{destination.name}: {error}") from error
    peer = WebPeer(name=destination.name, url=destination.url, timeout_s=destination.timeout_s, tls=destination.tls)
    answer = request(peer, path + query, sent, content, maximum_bytes)
    return answer.status, answer.headers, answer.body


def _authorization(destination: DicomWebDestination) -> dict[str, str]:
    if destination.token_file is not None:
        return {"Authorization": f"Bearer {secret(destination.token_file)}"}
    if destination.password_file is not None:
        pair = f"{destination.username}:{secret(destination.password_file)}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}


def _failure(destination: DicomWebDestination, status: int) -> DeliveryDeferred | DeliveryRefused:
    kind = DeliveryRefused if status in _NEVER else DeliveryDeferred
    more = ": it does not let us in: see token_file or password_file" if status in (401, 403) else ""
    return kind(f"{destination.name}: HTTP status {status}{more}", response=str(status))


def _check_stored(destination: DicomWebDestination, status: int, content_type: str, body: bytes) -> None:
    """Look into a Store Instances Response (PS3.18 I.2); raise where our object is among the failed ones."""
    try:
        failed = _failed_in_xml(body) if "xml" in content_type else _failed_in_json(body)
    except DECODE_ERRORS as error:
        raise DeliveryDeferred(f"{destination.name}: HTTP status {status}, and an answer that is none") from error
    for reason in failed:
        outcome(destination.name, reason)  # 0x0111, it has it already, is stored
    if status == 409 and not failed:
        raise _failure(destination, status)


def _failed_in_json(body: bytes) -> list[int]:
    answer = Dataset.from_json(body.decode()) if body.strip() else Dataset()
    return [int(item.get("FailureReason", 0x0110)) for item in answer.get("FailedSOPSequence") or ()]


def _failed_in_xml(body: bytes) -> list[int]:
    """Return the Failure Reasons of a Native DICOM Model (PS3.19 A.1): some servers answer in nothing else."""
    if b"<NativeDicomModel" not in body:
        raise ValueError("no Native DICOM Model")
    reasons = re.findall(rb"""tag=["']00081197["'][^>]*>\s*<Value[^>]*>\s*(\d+)""", body)
    if not reasons and re.search(rb"""tag=["']00081198["']""", body):
        return [0x0110]
    return [int(reason) for reason in reasons]


def _only_part(destination: DicomWebDestination, content_type: str, body: bytes) -> bytes:
    """Return the one object of a multipart body (RFC 2046 section 5.1), or the body where it is no multipart."""
    if content_type.startswith("application/dicom") and not content_type.startswith(_JSON):
        return body
    boundary = re.search(r'boundary="?([^";,\s]+)', content_type)
    if boundary is None:
        raise DeliveryRefused(f"{destination.name}: an answer of another type than was asked for")
    delimiter = b"--" + boundary[1].encode()
    start = body.find(delimiter)
    head_end = body.find(b"\r\n\r\n", start)
    end = body.find(b"\r\n" + delimiter, head_end)
    if start < 0 or head_end < 0 or end < 0:
        raise DeliveryDeferred(f"{destination.name}: an answer that is cut short")
    return body[head_end + 4 : end]


def _text(match: dict[str, Any], tag: str) -> str:
    """Return an attribute of the DICOM JSON model (PS3.18 F.2) as text, several values with backslashes."""
    element = match.get(tag)
    values = element.get("Value", []) if isinstance(element, dict) else []
    texts = [str(value.get("Alphabetic", "")) if isinstance(value, dict) else str(value) for value in values]
    return "\\".join(texts)
