"""The C-STORE SCU against peers that take, warn, refuse, stall and vanish."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    GeneralECGWaveformStorage,
    ImplicitVRLittleEndian,
    TwelveLeadECGWaveformStorage,
)
from pynetdicom import AE, evt

from gateway.dicom.network.scu import send
from gateway.dicom.objects.uids import IMPLEMENTATION_CLASS_UID
from gateway.dicom.objects.waveform import build_waveform, encode
from gateway.errors import DeliveryDeferred, DeliveryRefused
from gateway.settings import DicomDestination, ObjectSettings
from tests.gateway.dicom.samples import make_page
from tests.waiting import PATIENCE_S, SOON_S

Respond = Callable[[evt.Event], int]


@pytest.fixture(scope="module")
def waveform(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = build_waveform(make_page(layout_name="3x4"), "12-lead", ObjectSettings())
    path = tmp_path_factory.mktemp("spool") / "waveform.dcm"
    path.write_bytes(encode(dataset))
    return path


class Peer:
    """A PACS of one SOP Class and one transfer syntax that answers what it is told to."""

    def __init__(
        self,
        respond: Respond = lambda event: 0x0000,
        sop_class: str = TwelveLeadECGWaveformStorage,
        syntax: str = ExplicitVRLittleEndian,
        require_calling: str = "",
    ) -> None:
        self.received: list[Dataset] = []
        self.requests: list[tuple[str, str, str]] = []
        self.respond = respond
        self._ae = AE(ae_title="PACS")
        self._ae.require_called_aet = True
        if require_calling:
            self._ae.require_calling_aet = [require_calling]
        self._ae.add_supported_context(sop_class, syntax)
        self._server = self._ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        self.port = int(self._server.server_address[1])

    def _store(self, event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        self.received.append(dataset)
        requestor = event.assoc.requestor
        self.requests.append(
            (requestor.ae_title, event.context.transfer_syntax, str(requestor.implementation_class_uid))
        )
        return self.respond(event)

    def close(self) -> None:
        for association in self._ae.active_associations:
            association.kill()
        self._server.shutdown()


@pytest.fixture(scope="module")
def pacs() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(*args: object, **kwargs: object) -> Peer:
        made.append(Peer(*args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for peer in made:
        peer.close()


def destination(port: int, **changes: object) -> DicomDestination:
    values: dict[str, object] = {
        "name": "pacs",
        "host": "127.0.0.1",
        "port": port,
        "ae_title": "PACS",
        "timeout_s": PATIENCE_S,
    }
    return DicomDestination(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_object_arrives_in_the_syntax_the_peer_takes(
    peers: Callable[..., Peer], waveform: Path, syntax: str
) -> None:
    peer = peers(syntax=syntax)
    assert send(waveform, destination(peer.port), "ECGGW") == "0x0000"
    (received,), original = peer.received, dcmread(waveform)
    assert received.WaveformSequence[0].WaveformData == original.WaveformSequence[0].WaveformData
    assert received == original
    assert peer.requests == [("ECGGW", syntax, IMPLEMENTATION_CLASS_UID)]


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0111])
def test_a_warning_and_a_repeat_are_delivered(pacs: Peer, waveform: Path, status: int) -> None:
    pacs.respond = lambda event: status
    assert send(waveform, destination(pacs.port), "ECGGW") == f"0x{status:04X}"


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0213, 0x0001])
def test_failures_that_pass_are_deferred(pacs: Peer, waveform: Path, status: int) -> None:
    pacs.respond = lambda event: status
    with pytest.raises(DeliveryDeferred, match=f"0x{status:04X}"):
        send(waveform, destination(pacs.port), "ECGGW")


@pytest.mark.parametrize("status", [0xA900, 0xA9FF, 0xC000, 0xCFFF, 0x0122, 0x0124, 0x0117])
def test_failures_that_stay_are_refused(pacs: Peer, waveform: Path, status: int) -> None:
    pacs.respond = lambda event: status
    with pytest.raises(DeliveryRefused, match=f"0x{status:04X}"):
        send(waveform, destination(pacs.port), "ECGGW")


@pytest.mark.parametrize(
    ("sop_class", "syntax"),
    [(GeneralECGWaveformStorage, ExplicitVRLittleEndian), (TwelveLeadECGWaveformStorage, ExplicitVRBigEndian)],
)
def test_a_peer_without_the_class_or_a_syntax_refuses(
    peers: Callable[..., Peer], waveform: Path, sop_class: str, syntax: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="pynetdicom")
    with pytest.raises(DeliveryRefused, match="takes no 12-lead ECG"):
        send(waveform, destination(peers(sop_class=sop_class, syntax=syntax).port), "ECGGW")


def test_a_rejected_association_is_deferred_with_the_peers_reason(peers: Callable[..., Peer], waveform: Path) -> None:
    peer = peers(require_calling="OTHER")
    with pytest.raises(DeliveryDeferred, match=r"(?i)calling AE title not recogni"):
        send(waveform, destination(peer.port), "ECGGW")
    with pytest.raises(DeliveryDeferred, match=r"(?i)called AE title not recogni"):
        send(waveform, destination(peer.port, ae_title="NOTPACS"), "OTHER")


def test_nobody_listening_is_deferred(waveform: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(DeliveryDeferred, match="no association"):
        send(waveform, destination(port), "ECGGW")


def test_a_host_that_does_not_resolve_is_deferred(waveform: Path) -> None:
    with pytest.raises(DeliveryDeferred, match="cannot be resolved"):
        send(waveform, destination(104, host="pacs.invalid"), "ECGGW")


def test_a_peer_that_accepts_tcp_and_says_nothing_is_deferred_in_time(waveform: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(DeliveryDeferred):
            send(waveform, destination(silent.getsockname()[1], timeout_s=0.5), "ECGGW")
        assert time.monotonic() - started < SOON_S


def test_a_peer_that_never_answers_the_store_is_deferred_in_time(peers: Callable[..., Peer], waveform: Path) -> None:
    done = threading.Event()

    def stall(event: evt.Event) -> int:
        done.wait(2 * PATIENCE_S)
        return 0x0000

    started = time.monotonic()
    peer = peers(stall)
    with pytest.raises(DeliveryDeferred, match="no answer"):
        send(waveform, destination(peer.port, timeout_s=3.0), "ECGGW")
    assert time.monotonic() - started < SOON_S
    done.set()


def test_a_peer_that_aborts_in_the_middle_is_deferred(peers: Callable[..., Peer], waveform: Path) -> None:
    def abort(event: evt.Event) -> int:
        event.assoc.abort()
        return 0x0000

    with pytest.raises(DeliveryDeferred):
        send(waveform, destination(peers(abort).port), "ECGGW")


def test_a_missing_file_is_deferred_and_a_broken_one_refused(tmp_path: Path) -> None:
    with pytest.raises(DeliveryDeferred, match="cannot be read"):
        send(tmp_path / "gone.dcm", destination(104), "ECGGW")
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"cat" * 100)
    with pytest.raises(DeliveryRefused, match="no DICOM file"):
        send(broken, destination(104), "ECGGW")
