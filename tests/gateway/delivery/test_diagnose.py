"""`echo`, `find` and `send-test`: every step that can fail, with its advice, against real peers."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import (
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    GeneralECGWaveformStorage,
    KeyObjectSelectionDocumentStorage,
    TwelveLeadECGWaveformStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from gateway.delivery.dicom import report_step
from gateway.delivery.sample_ecg import TEST_PATIENT_ID
from gateway.delivery.steps import Step
from gateway.dicom.network.association import NoContext
from gateway.dicom.network.find import StudyQuery, find_studies
from gateway.errors import DeliveryDeferred, DeliveryRefused, SettingsError
from gateway.hl7.inbound.acknowledgement import build_ack
from gateway.hl7.transport.mllp import MllpListener
from gateway.security.tls import server_context
from gateway.settings import DicomDestination, DicomSettings, FolderDestination, Hl7Destination, TlsClientSettings
from tests.gateway.delivery.destinations import kind
from tests.gateway.security.test_tls import listener
from tests.tls_samples import Authority, Identity
from tests.waiting import PATIENCE_S

CLASSES = (
    Verification,
    TwelveLeadECGWaveformStorage,
    StudyRootQueryRetrieveInformationModelFind,
    KeyObjectSelectionDocumentStorage,
)


class Peer:
    """A PACS with AE title PACS that knows the caller ECGGW."""

    def __init__(
        self,
        classes: tuple[str, ...] = CLASSES,
        matches: list[tuple[int, Dataset | None]] | None = None,
        store: int = 0x0000,
        identity: Identity | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self.stored: list[Dataset] = []
        self.asked: list[Dataset] = []
        self.on_find: Callable[[evt.Event], None] = lambda event: None
        self.hears_cancel = False
        self._status = store
        self._matches = matches or []
        ae = AE(ae_title="PACS")
        ae.require_called_aet = True
        ae.require_calling_aet = ["ECGGW"]
        for sop_class in classes:
            ae.add_supported_context(sop_class, ExplicitVRLittleEndian)
        self._server = ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find)],
            ssl_context=server_context(listener(identity, ca_file=ca_file)) if identity else None,
        )
        self.port = int(self._server.server_address[1])

    def _store(self, event: evt.Event) -> int:
        self.stored.append(event.dataset)
        return self._status

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.asked.append(event.identifier)
        self.on_find(event)
        for answer in self._matches:
            if self.hears_cancel and event.is_cancelled:
                yield 0xFE00, None
                return
            yield answer

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="pynetdicom")


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(**kwargs: Any) -> Peer:
        made.append(Peer(**kwargs))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def pacs(port: int, **more: Any) -> DicomDestination:
    return DicomDestination(
        **{"name": "pacs", "host": "127.0.0.1", "ae_title": "PACS", "timeout_s": PATIENCE_S, **more}, port=port
    )


def steps(destination: Any, calling: str = "ECGGW") -> list[Step]:
    return list(kind(destination, calling).check())


def failed(tried: list[Step]) -> Step:
    """The step that failed, which must be the last and the only one, and must say what to do."""
    assert [step.ok for step in tried] == [True] * (len(tried) - 1) + [False]
    assert tried[-1].advice
    return tried[-1]


def unused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


# ---- echo


def test_a_good_peer_passes_every_step(peers: Callable[..., Peer]) -> None:
    tried = steps(pacs(peers().port))
    assert [(step.name, step.ok) for step in tried] == [
        ("name", True),
        ("TCP", True),
        ("association", True),
        ("context", True),
        ("context", True),
        ("C-ECHO", True),
    ]
    assert not any(step.advice for step in tried)


def test_a_name_that_does_not_resolve() -> None:
    step = failed(steps(pacs(104, host="pacs.invalid")))
    assert step.name == "name" and "pacs.invalid cannot be resolved" in step.found


def test_a_port_nobody_listens_on() -> None:
    step = failed(steps(pacs(unused_port())))
    assert step.name == "TCP" and "connection refused" in step.found and "nothing listens on port" in step.advice


def test_a_peer_that_does_not_answer_tcp() -> None:
    """A listener whose queue is full answers nothing, as behind a firewall."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        step = failed(steps(pacs(port, timeout_s=0.5)))
        for filler in fillers:
            filler.close()
    assert step.name == "TCP" and "no answer in time" in step.found and "firewalls" in step.advice


@pytest.mark.parametrize(
    ("calling", "called", "advice"),
    [("OTHER", "PACS", "have AE title OTHER"), ("ECGGW", "ARCHIVE", "another AE title than ARCHIVE")],
)
def test_ae_titles_that_are_not_known(peers: Callable[..., Peer], calling: str, called: str, advice: str) -> None:
    step = failed(steps(pacs(peers().port, ae_title=called), calling))
    assert step.name == "association" and "rejected" in step.found and advice in step.advice


def test_a_port_that_is_not_dicom() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        step = failed(steps(pacs(silent.getsockname()[1], timeout_s=0.5)))
    assert step.name == "association" and "set [destinations.tls]" in step.advice


def test_a_peer_that_does_not_take_our_class(peers: Callable[..., Peer]) -> None:
    tried = steps(pacs(peers(classes=(Verification, GeneralECGWaveformStorage)).port))
    (step,) = [step for step in tried if not step.ok]
    assert step.name == "context" and "no 12-lead ECG" in step.found and "sop_class" in step.advice
    assert steps(pacs(peers(classes=(GeneralECGWaveformStorage,)).port, sop_class="general"))[-1].ok  # without C-ECHO
    step = failed(steps(pacs(peers(classes=(StudyRootQueryRetrieveInformationModelFind,)).port)))
    assert step.name == "context"


def test_a_peer_must_take_both_classes_that_a_page_may_become(peers: Callable[..., Peer]) -> None:
    port = peers(classes=(Verification, TwelveLeadECGWaveformStorage)).port
    tried = steps(pacs(port, sop_class="12-lead-or-general", rejection_note=False))
    (step,) = [step for step in tried if not step.ok]
    assert step.name == "context" and "no General ECG" in step.found and "sop_class" in step.advice


def test_a_peer_that_does_not_take_all_we_would_send(peers: Callable[..., Peer]) -> None:
    port = peers(classes=(Verification, TwelveLeadECGWaveformStorage, EncapsulatedPDFStorage)).port
    tried = steps(pacs(port, also=("report", "overlay"), storage_commitment=True))
    missing = {step.found.removeprefix("the peer takes no "): step for step in tried if step.advice}
    assert {name: step.ok for name, step in missing.items()} == {
        "Secondary Capture Image Storage": False,
        "Storage Commitment Push Model SOP Class": False,
        "Key Object Selection Document Storage": True,  # until something is corrected
    }
    assert "take overlay out of also" in missing["Secondary Capture Image Storage"].advice
    assert all(step.ok and not step.advice for step in steps(pacs(port, also=("report",), rejection_note=False)))


@pytest.mark.parametrize(("host", "ours", "ok"), [("pacs", "127.0.0.1", False), ("pacs", "0.0.0.0", True)])
def test_commitment_results_need_a_listener_that_the_peer_can_reach(host: str, ours: str, ok: bool) -> None:
    destination = DicomDestination(name="pacs", host=host, port=104, ae_title="PACS1", calling_ae_title="SCU")
    step = report_step(destination, DicomSettings(host=ours))
    assert step.ok is ok
    assert step.found == f"commitment results are taken of PACS1 from pacs, to SCU at {ours}, port 11112"
    assert step.advice == (
        "" if ok else "pacs cannot reach 127.0.0.1: set [dicom] host to the address that it knows, or to 0.0.0.0"
    )


def test_echo_says_how_commitment_results_arrive(peers: Callable[..., Peer]) -> None:
    classes = (*CLASSES, StorageCommitmentPushModel)
    tried = steps(pacs(peers(classes=classes).port, storage_commitment=True))
    assert tried[-1].name == "results" and "from 127.0.0.1, to ECGGW at 127.0.0.1, port 11112" in tried[-1].found
    assert all(step.ok for step in tried)


# ---- TLS


def files(identity: Identity | None, ca_file: Path | None, **more: Any) -> TlsClientSettings:
    return TlsClientSettings.model_validate(
        {
            "ca_file": ca_file,
            "certificate_file": identity and identity.certificate_file,
            "private_key_file": identity and identity.private_key_file,
            **more,
        }
    )


def test_tls_tells_what_was_agreed(peers: Callable[..., Peer], authority: Authority) -> None:
    peer = peers(identity=authority.issue("pacs", "127.0.0.1"))
    tried = steps(pacs(peer.port, tls=files(None, authority.ca_file)))
    assert all(step.ok for step in tried)
    assert "TLSv1.3, TLS_AES_256_GCM_SHA384, its certificate ends" in tried[2].found


@contextmanager
def resetting() -> Iterator[int]:
    """A port that resets whoever says something that is no DICOM, as Orthanc's does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            connection.recv(16)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listening.getsockname()[1])
        thread.join(PATIENCE_S)


def test_tls_that_fails_says_what_to_do(peers: Callable[..., Peer], authority: Authority, tmp_path: Path) -> None:
    def tls(port: int, settings: TlsClientSettings, **more: Any) -> Step:
        step = failed(steps(pacs(port, tls=settings, **more)))
        assert step.name == "TLS"
        return step

    ca = authority.ca_file
    good = peers(identity=authority.issue("pacs", "127.0.0.1")).port
    assert "set server_name" in tls(good, files(None, ca, server_name="archive")).advice
    assert "set ca_file" in tls(good, files(None, Authority(tmp_path, "Other CA").ca_file)).advice
    assert "absent.pem" in tls(good, files(None, tmp_path / "absent.pem")).found
    old = peers(identity=authority.issue("old", "127.0.0.1", days=-1)).port
    assert "have it renewed" in tls(old, files(None, ca)).advice
    strict = peers(identity=authority.issue("strict", "127.0.0.1"), ca_file=ca).port
    assert "set certificate_file" in tls(strict, files(None, ca)).advice
    with resetting() as port:
        assert "does not speak TLS" in tls(port, files(None, ca)).advice
    with socket.create_server(("127.0.0.1", 0)) as plain:
        silent = tls(plain.getsockname()[1], files(None, ca), timeout_s=0.5)
    assert "does not speak TLS" in silent.advice


# ---- other kinds


def test_an_hl7_destination_is_reached(peers: Callable[..., Peer]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as engine:
        port = engine.getsockname()[1]
        tried = steps(Hl7Destination(name="ehr", host="127.0.0.1", port=port))
    assert [(step.name, step.ok) for step in tried] == [("name", True), ("TCP", True)]


def test_a_folder_must_be_there(tmp_path: Path) -> None:
    assert steps(FolderDestination(name="out", path=tmp_path))[0].ok
    assert failed(steps(FolderDestination(name="out", path=tmp_path / "absent"))).name == "folder"


# ---- send-test


def test_send_test_stores_an_ecg_that_says_it_is_none(peers: Callable[..., Peer]) -> None:
    peer = peers()
    for _ in range(2):
        tried = list(kind(pacs(peer.port)).send_test())
        assert all(step.ok for step in tried) and tried[-1].name == "C-STORE"
    first, second = peer.stored
    assert (first.PatientID, first.PatientName) == (TEST_PATIENT_ID, "TEST^GATEWAY")
    assert first.StudyDescription.startswith("TEST")
    assert first.SOPInstanceUID == second.SOPInstanceUID


@pytest.mark.parametrize(
    ("status", "advice"), [(0xA700, "out of resources"), (0xA900, "SOP class"), (0x0124, "right"), (0x0110, "log")]
)
def test_send_test_explains_a_status(peers: Callable[..., Peer], status: int, advice: str) -> None:
    step = failed(list(kind(pacs(peers(store=status).port)).send_test()))
    assert step.name == "C-STORE" and f"0x{status:04X}" in step.found and advice in step.advice


def test_send_test_stores_nothing_where_echo_fails() -> None:
    assert failed(list(kind(pacs(unused_port())).send_test())).name == "TCP"
    with pytest.raises(SettingsError, match="is of kind folder"):
        list(kind(FolderDestination(name="out", path=Path())).send_test())


@pytest.mark.parametrize(("code", "ok"), [("AA", True), ("AE", False), ("AR", False)])
def test_send_test_sends_a_message_that_says_it_is_a_test(code: str, ok: bool) -> None:
    received: list[bytes] = []

    def answer(message: bytes) -> tuple[bytes, ...]:
        received.append(message)
        return (build_ack(message, code),)

    engine = MllpListener("127.0.0.1", 0, answer)
    engine.start()
    try:
        ehr = Hl7Destination(name="ehr", host="127.0.0.1", port=engine.port, timeout_s=PATIENCE_S)
        tried = list(kind(ehr).send_test())
    finally:
        engine.stop()
    assert (tried[-1].name, tried[-1].ok) == ("ORU^R01", ok)
    assert code in tried[-1].found and bool(tried[-1].advice) is not ok
    assert b"|ECGGW-TEST^" in received[0] or b"|ECGGW-TEST|" in received[0]
    assert b"TEST^GATEWAY" in received[0]


# ---- find


def match(number: int) -> Dataset:
    found = Dataset()
    found.StudyInstanceUID = f"2.25.{number}"
    found.StudyDate = "20100304"
    found.ModalitiesInStudy = ["ECG", "OT"]
    found.PatientName = "Muster^Zoë"
    found.SpecificCharacterSet = "ISO_IR 192"
    return found


def test_find_asks_and_returns_what_matches(peers: Callable[..., Peer]) -> None:
    peer = peers(matches=[(0xFF00, match(1)), (0xFF01, match(2))])
    query = StudyQuery(patient_id="P1", study_date="20100101-20101231", study_description="*ECG*")
    first, second = find_studies(pacs(peer.port), "ECGGW", query, limit=10)
    assert (first.study_instance_uid, first.modalities, first.patient_name) == ("2.25.1", "ECG\\OT", "Muster^Zoë")
    assert second.study_instance_uid == "2.25.2" and first.accession_number == ""
    (asked,) = peer.asked
    assert asked.QueryRetrieveLevel == "STUDY"
    assert (asked.PatientID, asked.StudyDate, asked.StudyDescription) == ("P1", "20100101-20101231", "*ECG*")
    assert "AccessionNumber" in asked and not asked.AccessionNumber


@pytest.mark.parametrize(("n_matches", "hears"), [(3, False), (100, False), (100, True), (300, False)])
def test_find_stops_at_its_limit(peers: Callable[..., Peer], n_matches: int, hears: bool) -> None:
    """Whether the peer then stops, goes on a little, or goes on and on."""
    peer = peers(matches=[(0xFF00, match(number)) for number in range(n_matches)])
    peer.hears_cancel = hears
    started = time.monotonic()
    assert len(find_studies(pacs(peer.port), "ECGGW", StudyQuery(), limit=3)) == 3
    assert time.monotonic() - started < PATIENCE_S / 2  # it waits for no timeout


def test_find_has_what_it_wanted_before_the_peer_failed(peers: Callable[..., Peer]) -> None:
    peer = peers(matches=[(0xFF00, match(1)), (0xA700, None)])
    assert len(find_studies(pacs(peer.port), "ECGGW", StudyQuery(), limit=1)) == 1


@pytest.mark.parametrize(("status", "kind"), [(0xA700, DeliveryDeferred), (0xA900, DeliveryRefused)])
def test_find_that_fails_says_so(peers: Callable[..., Peer], status: int, kind: type[Exception]) -> None:
    peer = peers(matches=[(status, None)])
    with pytest.raises(kind, match=f"0x{status:04X}"):
        find_studies(pacs(peer.port), "ECGGW", StudyQuery(), limit=3)


def test_a_peer_that_breaks_off_says_so(peers: Callable[..., Peer]) -> None:
    """So Orthanc answers a caller that may not query."""
    peer = peers()
    peer.on_find = lambda event: event.assoc.abort()
    with pytest.raises(DeliveryDeferred, match="may not allow us"):
        find_studies(pacs(peer.port), "ECGGW", StudyQuery(), limit=3)


@pytest.mark.parametrize(
    ("told", "calling", "name", "advice"),
    [
        ({}, "OTHER", "association", "have AE title OTHER"),
        ({"classes": (Verification,)}, "ECGGW", "context", "have queries (C-FIND, Study Root) allowed"),
        ({"matches": [(0xA700, None)]}, "ECGGW", "C-FIND", "ask for less"),
        ({"matches": [(0xA900, None)]}, "ECGGW", "C-FIND", "does not know one of the keys"),
        ({"matches": [(0x0122, None)]}, "ECGGW", "C-FIND", "does not take this SOP class"),
    ],
)
def test_find_names_the_step_that_fails_and_what_to_do(
    peers: Callable[..., Peer], told: dict[str, Any], calling: str, name: str, advice: str
) -> None:
    studies, tried = kind(pacs(peers(**told).port), calling).find(StudyQuery(), 3)
    step = failed(list(tried))
    assert studies == () and (step.name, advice in step.advice) == (name, True)


def test_find_at_a_peer_that_is_not_there_or_breaks_off(peers: Callable[..., Peer]) -> None:
    _, tried = kind(pacs(unused_port())).find(StudyQuery(), 3)
    assert failed(list(tried)).name == "TCP"
    peer = peers()
    peer.on_find = lambda event: event.assoc.abort()
    _, tried = kind(pacs(peer.port)).find(StudyQuery(), 3)
    assert "have AE title ECGGW allowed to query" in failed(list(tried)).advice
    with pytest.raises(SettingsError, match="no archive"):
        kind(FolderDestination(name="out", path=Path("out"))).find(StudyQuery(), 3)


def test_a_peer_without_query_says_so(peers: Callable[..., Peer]) -> None:
    with pytest.raises(NoContext, match="takes no Study Root"):
        find_studies(pacs(peers(classes=(Verification,)).port), "ECGGW", StudyQuery(), limit=3)


# ---- the commands


@pytest.fixture
def run(tmp_path: Path, gateway_command: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    def run(port: int, *command: str) -> tuple[int, str, str]:
        config = tmp_path / "gateway.toml"
        config.write_text(
            f'[[destinations]]\nkind = "dicom"\nname = "pacs"\nhost = "127.0.0.1"\nport = {port}\nae_title = "PACS"\n'
        )
        return gateway_command(config, *command)

    return run


def test_commands_print_steps_and_tables(peers: Callable[..., Peer], run: Callable[..., tuple[int, str, str]]) -> None:
    peer = peers(matches=[(0xFF00, match(7))])
    status, output, _ = run(peer.port, "echo", "pacs")
    assert status == 0 and "ok     C-ECHO: status 0x0000" in output
    assert run(peer.port, "send-test", "pacs")[0] == 0 and len(peer.stored) == 1
    status, output, _ = run(peer.port, "find", "pacs", "--modality", "ECG")
    assert status == 0 and "2.25.7" in output and "Muster" not in output
    assert "Muster" in run(peer.port, "find", "pacs", "--patient")[1]
    status, output, _ = run(unused_port(), "echo", "pacs")
    assert status == 1 and "FAILED TCP" in output and "what to do: " in output
    status, _, errors = run(peer.port, "echo", "nobody")
    assert status == 2 and "no destination is named nobody" in errors
