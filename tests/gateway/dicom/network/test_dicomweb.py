"""DICOMweb against a small server that answers what it is told to, with and without TLS."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.dicom.network import dicomweb as web
from gateway.dicom.network.dicomweb import WebArchive
from gateway.dicom.network.find import StudyQuery
from gateway.errors import DeliveryDeferred, DeliveryRefused
from gateway.intake.accept import Intake
from gateway.settings import DicomWebDestination, TlsClientSettings
from tests.gateway.delivery.destinations import kind
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.tls_samples import Authority
from tests.waiting import PATIENCE_S


class Server:
    """Answers every request with `status`, `body` and `content_type`, and remembers what was asked."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.status, self.body, self.content_type = 200, b"", "application/dicom+json"
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.requests.append((self.command, self.path, dict(self.headers), data))
                self.send_response(server.status)
                self.send_header("Content-Type", server.content_type)
                self.send_header("Content-Length", str(len(server.body)))
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(server.body)

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context:
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def destination(server: Server, scheme: str = "http", **changes: object) -> DicomWebDestination:
    values: dict[str, object] = {
        "name": "web",
        "url": f"{scheme}://127.0.0.1:{server.port}/dicom-web/",
        "timeout_s": PATIENCE_S,
    }
    return DicomWebDestination(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.dcm"
    path.write_bytes(part10(secondary_capture()))
    return path


def failed(reason: int) -> bytes:
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


def test_the_file_is_posted_as_it_is(server: Server, page: Path) -> None:
    assert web.send(page, destination(server)) == "200"
    ((method, path, headers, body),) = server.requests
    assert (method, path) == ("POST", "/dicom-web/studies")
    assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert page.read_bytes() in body and body.startswith(b"--")
    assert "Authorization" not in headers


@pytest.mark.parametrize("status", [202, 409])
def test_a_repeat_is_stored(server: Server, page: Path, status: int) -> None:
    server.status, server.body = status, failed(0x0111)
    assert web.send(page, destination(server)) == str(status)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (202, failed(0xA700), DeliveryDeferred),
        (409, failed(0xA900), DeliveryRefused),
        (409, b"", DeliveryDeferred),
        (200, b"<html>", DeliveryDeferred),
        (400, b"", DeliveryRefused),
        (413, b"", DeliveryRefused),
        (401, b"", DeliveryDeferred),
        (302, b"", DeliveryDeferred),
        (503, b"", DeliveryDeferred),
    ],
)
def test_what_an_answer_means(server: Server, page: Path, status: int, body: bytes, error: type[Exception]) -> None:
    server.status, server.body = status, body
    with pytest.raises(error):
        web.send(page, destination(server))
    assert len(server.requests) == 1  # a redirection is not followed


_XML = b'<?xml version="1.0"?><NativeDicomModel xml:space="preserve">%s</NativeDicomModel>'
_XML_FAILED = (
    b'<DicomAttribute tag="00081198" vr="SQ" keyword="FailedSOPSequence"><Item number="1">%s</Item></DicomAttribute>'
)
_XML_REASON = (
    b'<DicomAttribute tag="00081197" vr="US" keyword="FailureReason"><Value number="1">%d</Value></DicomAttribute>'
)


@pytest.mark.parametrize(
    ("inside", "error"),
    [
        (b"", None),
        (_XML_FAILED % (_XML_REASON % 0x0111), None),  # it has it already
        (_XML_FAILED % (_XML_REASON % 0xA700), DeliveryDeferred),
        (_XML_FAILED % (_XML_REASON % 0xA900), DeliveryRefused),
        (_XML_FAILED % b"", DeliveryDeferred),
    ],
)
def test_an_answer_in_xml_is_understood(
    server: Server, page: Path, inside: bytes, error: type[Exception] | None
) -> None:
    server.content_type, server.body = "application/dicom+xml", _XML % inside
    if error is None:
        assert web.send(page, destination(server)) == "200"
        return
    with pytest.raises(error):
        web.send(page, destination(server))


def test_a_log_in_page_is_no_answer(server: Server, page: Path) -> None:
    server.content_type, server.body = "application/xhtml+xml", b"<html>"
    with pytest.raises(DeliveryDeferred, match="an answer that is none"):
        web.send(page, destination(server))


def test_a_token_is_read_anew_for_every_request(server: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    server.body = b"[]"
    for word in ("first", "second"):
        token.write_text(word + "\n")
        web.check(destination(server, token_file=token))
    assert [request[2]["Authorization"] for request in server.requests] == ["Bearer first", "Bearer second"]
    token.unlink()
    with pytest.raises(DeliveryDeferred, match="cannot be read"):
        web.check(destination(server, token_file=token))


def test_a_password_goes_by_basic_authentication(server: Server, tmp_path: Path) -> None:
    (tmp_path / "word").write_text("sécret\n", encoding="utf-8")
    server.body = b"[]"
    web.check(destination(server, username="ecggw", password_file=tmp_path / "word"))
    sent = server.requests[0][2]["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == "ecggw:sécret"


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://pacs/dicom-web"},
        {"url": "http://user:word@pacs/dicom-web"},
        {"url": "http://pacs/dicom-web", "token_file": "/t"},
        {"url": "http://pacs/dicom-web", "tls": {}},
        {"url": "https://pacs/dicom-web", "username": "x"},
        {"url": "https://pacs/dicom-web", "token_file": "/t", "username": "x", "password_file": "/p"},
    ],
)
def test_settings_that_would_leak_or_contradict(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DicomWebDestination(name="web", **wrong)  # type: ignore[arg-type]


def test_tls_proves_the_server(tmp_path: Path, page: Path) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    identity = authority.issue("pacs.example", "pacs.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate_file, identity.private_key_file)
    server = Server(context)
    try:
        trusted = TlsClientSettings(ca_file=authority.ca_file, server_name="pacs.example")
        assert web.send(page, destination(server, "https", tls=trusted)) == "200"
        for tls in (
            TlsClientSettings(ca_file=other.ca_file, server_name="pacs.example"),
            TlsClientSettings(ca_file=authority.ca_file),  # the certificate is not for 127.0.0.1
            None,
        ):
            with pytest.raises(DeliveryDeferred, match="certificate not trusted"):
                web.send(page, destination(server, "https", tls=tls))
    finally:
        server.close()


def test_nobody_there_is_told_without_the_query(server: Server, intake: Intake) -> None:
    peer = destination(server)
    server.close()
    with pytest.raises(DeliveryDeferred) as caught:
        WebArchive(peer, intake.accept, 1).studies(StudyQuery(patient_id="4711"))
    assert "4711" not in str(caught.value)
    server.__init__()  # type: ignore[misc]  # so that the fixture has something to close


def test_studies_are_asked_for_once_where_the_server_knows_no_pages(server: Server, intake: Intake) -> None:
    server.body = json.dumps(
        [
            {
                "0020000D": {"vr": "UI", "Value": [f"1.2.{n}"]},
                "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]},
            }
            for n in range(200)
        ]
    ).encode()
    studies = WebArchive(destination(server), intake.accept, 1).studies(
        StudyQuery(study_description="*ECG*", patient_id="a&b")
    )
    assert [study.study_instance_uid for study in studies] == [f"1.2.{n}" for n in range(200)]
    assert studies[0].patient_name == "A^B"
    assert [path.partition("offset=")[2] for _, path, _, _ in server.requests] == ["0", "200"]
    assert "StudyDescription=*ECG*" in server.requests[0][1] and "PatientID=a%26b" in server.requests[0][1]


def test_find_stops_at_its_limit_and_names_what_fails(server: Server) -> None:
    server.body = json.dumps([{"0020000D": {"vr": "UI", "Value": [f"1.2.{n}"]}} for n in range(9)]).encode()
    studies, steps = kind(destination(server)).find(StudyQuery(patient_id="P1"), 3)
    assert [study.study_instance_uid for study in studies] == ["1.2.0", "1.2.1", "1.2.2"] and steps == ()
    server.status = 401
    studies, steps = kind(destination(server)).find(StudyQuery(), 3)
    *reached, last = steps
    assert studies == () and all(step.ok for step in reached)
    assert (last.name, last.ok) == ("QIDO-RS", False) and "token_file" in last.advice


def test_an_answer_that_is_too_long_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web._request, "__kwdefaults__", {**web._request.__kwdefaults__, "maximum_bytes": 1000})
    server.body = b"[" + b" " * 2000 + b"]"
    with pytest.raises(DeliveryRefused, match="more than"):
        web.check(destination(server))
