"""DICOM TLS with independent software: DCMTK's profiles against both of ours, in both directions, and Orthanc."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.dicom.network.scp import StorageScp
from gateway.dicom.network.scu import send
from gateway.errors import DeliveryDeferred
from gateway.intake.accept import Intake
from gateway.settings import CallerSettings, DicomDestination, DicomSettings, DicomTlsSettings, TlsClientSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.interop.peers import Orthanc, free_port, run, running_orthanc, tool
from tests.tls_samples import Authority, Identity
from tests.waiting import PATIENCE_S, SOON_S, wait_for

pytestmark = pytest.mark.interop

PROFILES = ("bcp195", "bcp195-modified")
DCMTK_PROFILES = ("--profile-bcp195-nd", "--profile-bcp195-ex", "--profile-bcp195")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def gateway_identity(authority: Authority) -> Identity:
    return authority.issue("gateway", "localhost", "127.0.0.1", kind="rsa")


@pytest.fixture(scope="module")
def cart1(authority: Authority) -> Identity:
    return authority.issue("cart1", "localhost", "127.0.0.1", kind="rsa")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.dcm"
    path.write_bytes(part10(secondary_capture()))
    return path


@dataclass
class Gateway:
    """Our SCP with both ports, a real spool and database."""

    port: int
    tls_port: int
    folder: Path

    def received(self) -> int:
        return len(list(self.folder.rglob("source*")))


@pytest.fixture(params=PROFILES)
def gateway(
    request: pytest.FixtureRequest, tmp_path: Path, authority: Authority, gateway_identity: Identity
) -> Iterator[Gateway]:
    folder = tmp_path / "gateway"
    folder.mkdir()
    store = Store(folder / "gateway.db")
    tls = DicomTlsSettings(
        port=0,
        profile=request.param,
        certificate_file=gateway_identity.certificate_file,
        private_key_file=gateway_identity.private_key_file,
        ca_file=authority.ca_file,
    )
    callers = (CallerSettings(ae_title="CART1", certificate_names=("cart1",)), CallerSettings(ae_title="ORTHANC"))
    spool = Spool(folder / "spool", 1)
    scp = StorageScp(DicomSettings(port=0, tls=tls, callers=callers), Intake(spool, store).accept, spool)
    scp.start()
    yield Gateway(scp.port, scp.tls_port, folder)
    scp.stop()
    store.close()


def files(identity: Identity, authority: Authority) -> tuple[object, ...]:
    """DCMTK's options for a certificate of its own and the authority it trusts."""
    return "+tls", identity.private_key_file, identity.certificate_file, "+cf", authority.ca_file


def to(port: int, title: str = "CART1") -> tuple[object, ...]:
    return "-aet", title, "-aec", "ECGGW", "127.0.0.1", port


@pytest.mark.parametrize("profile", DCMTK_PROFILES)
def test_every_profile_of_dcmtk_stores(
    gateway: Gateway, authority: Authority, cart1: Identity, page: Path, profile: str
) -> None:
    run("storescu", *files(cart1, authority), profile, *to(gateway.tls_port), page)
    assert gateway.received() == 1


@pytest.mark.parametrize(
    ("suite", "agreed"),
    [("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", True), ("TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", False)],
)
def test_only_our_suites_are_agreed_on(
    gateway: Gateway, authority: Authority, cart1: Identity, suite: str, agreed: bool
) -> None:
    """With the extended profile DCMTK stays at TLS 1.2; openssl says what was agreed."""
    said = subprocess.run(
        [
            *["openssl", "s_client", "-connect", f"127.0.0.1:{gateway.tls_port}", "-CAfile", str(authority.ca_file)],
            *["-cert", str(cart1.certificate_file), "-key", str(cart1.private_key_file), "-tls1_2"],
            *["-cipher", suite.removeprefix("TLS_").replace("_WITH", "").replace("_", "-").replace("AES-", "AES")],
        ],
        input=b"",
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    ).stdout.decode(errors="replace")
    assert ("Cipher is ECDHE-RSA-AES128-GCM-SHA256" in said) is agreed
    assert ("Cipher is (NONE)" in said) is not agreed


def test_peers_without_the_right_certificate_or_without_tls_are_refused(
    gateway: Gateway, authority: Authority, cart1: Identity, page: Path, tmp_path: Path
) -> None:
    def refused(*options: object) -> bool:
        return "Association Accepted" not in run("storescu", "-v", *options, page, check=False)

    assert refused("+tla", "+cf", authority.ca_file, *to(gateway.tls_port))
    stranger = Authority(tmp_path / "other", "Other CA").issue("cart1", kind="rsa")
    assert refused(*files(stranger, authority), *to(gateway.tls_port))
    assert refused(*to(gateway.tls_port))
    someone = authority.issue("someone", kind="rsa")  # trusted, but CART1 is bound to another certificate
    assert refused(*files(someone, authority), *to(gateway.tls_port))
    assert refused(*to(gateway.port))
    assert gateway.received() == 0


def test_echo_is_answered_while_silent_clients_hold_the_tls_port(
    gateway: Gateway, authority: Authority, cart1: Identity
) -> None:
    with ExitStack() as stack:
        for _ in range(14):  # of fifteen from one address
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.tls_port)))
        started = time.monotonic()
        run("echoscu", *files(cart1, authority), *to(gateway.tls_port))
        assert time.monotonic() - started < SOON_S


# ---- going out


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module", params=["--profile-bcp195-nd", "--profile-bcp195-ex"])
def storescp(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority, cart1: Identity
) -> Iterator[tuple[int, Path]]:
    """DCMTK's storescp that asks for certificates: (port, folder of what it took)."""
    port, folder = free_port(), tmp_path_factory.mktemp("storescp")
    command = [tool("storescp"), *map(str, files(cart1, authority)), request.param, "-aet", "MOVER", "-od", str(folder)]
    with subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for("storescp, or its end", lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None
        yield port, folder
        process.terminate()


def destination(port: int, title: str, tls: TlsClientSettings | None) -> DicomDestination:
    return DicomDestination(name="pacs", host="127.0.0.1", port=port, ae_title=title, timeout_s=PATIENCE_S, tls=tls)


def client(identity: Identity | None, authority: Authority, profile: str) -> TlsClientSettings:
    return TlsClientSettings.model_validate(
        {
            "profile": profile,
            "ca_file": authority.ca_file,
            "certificate_file": identity and identity.certificate_file,
            "private_key_file": identity and identity.private_key_file,
        }
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_storescp_with_tls_takes_our_object(
    storescp: tuple[int, Path], authority: Authority, gateway_identity: Identity, page: Path, profile: str
) -> None:
    port, folder = storescp
    ours = destination(port, "MOVER", client(gateway_identity, authority, profile))
    assert send(page, ours, "ECGGW") == "0x0000"
    (stored,) = folder.iterdir()
    stored.unlink()
    with pytest.raises(DeliveryDeferred, match="no association"):
        send(page, destination(port, "MOVER", client(None, authority, profile)), "ECGGW")
    with pytest.raises(DeliveryDeferred):
        send(page, destination(port, "MOVER", None), "ECGGW")
    assert list(folder.iterdir()) == []


def test_orthanc_takes_and_sends_over_tls(
    gateway: Gateway, tmp_path: Path, authority: Authority, gateway_identity: Identity, cart1: Identity, page: Path
) -> None:
    tls = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(cart1.certificate_file),
        "DicomTlsPrivateKey": str(cart1.private_key_file),
        "DicomTlsTrustedCertificates": str(authority.ca_file),
    }
    with running_orthanc(tmp_path, {}, **tls) as orthanc:
        ours = destination(orthanc.dicom_port, "ORTHANC", client(gateway_identity, authority, "bcp195"))
        assert send(page, ours, "ECGGW") == "0x0000"
        (instance,) = orthanc.instances()
        assert stored_by_orthanc(orthanc, gateway.tls_port, instance) == (1, 0)
    assert gateway.received() == 1


def stored_by_orthanc(orthanc: Orthanc, port: int, instance: str) -> tuple[int, int]:
    """Let Orthanc send an instance to us over TLS; (sent, failed)."""
    modality = {"AET": "ECGGW", "Host": "127.0.0.1", "Port": port, "UseDicomTls": True}
    orthanc.request("/modalities/gateway", json.dumps(modality).encode(), method="PUT")
    answer = json.loads(orthanc.request("/modalities/gateway/store", instance.encode()))
    return answer["InstancesCount"], answer["FailedInstancesCount"]
