"""What independent HL7 software makes of us: node-hl7-client, node-hl7-server, simple-hl7 and python-hl7's mllp_send.

simple-hl7 answers in version 2.3 with a type of its own; node-hl7-server in the message's.  Both keep connections, but
node-hl7-server 2.5.0 hands its program every earlier message of a connection again: MSH-10 tells them apart.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from gateway.errors import DeliveryDeferred, DeliveryRefused
from gateway.hl7.inbound.receiver import Receiver
from gateway.hl7.transport.client import MllpClient
from gateway.hl7.transport.mllp import MllpListener
from gateway.identity.orders import Records
from gateway.settings import Hl7Destination
from gateway.store.store import Store
from tests.gateway.hl7.outbound.test_messages import built
from tests.interop.peers import free_port
from tests.waiting import PATIENCE_S, wait_for

pytestmark = pytest.mark.interop
NODE = Path(__file__).parent / "node"
PACKAGES = {
    "node_hl7_client.mjs": "node-hl7-client",
    "node_hl7_server.mjs": "node-hl7-server",
    "simple_hl7_client.js": "simple-hl7",
    "simple_hl7_server.js": "simple-hl7",
}


def command(script: str) -> list[str]:
    """How to run one of the scripts here, or a skip that says what to install."""
    package = PACKAGES[script]
    node = shutil.which("node")
    if node is None or not (NODE / "node_modules" / package).is_dir():
        pytest.skip(f"{package} is not installed: npm install --prefix {NODE}")
    return [node, str(NODE / script)]


def mllp_send() -> str:
    program = Path(sys.executable).with_name("mllp_send")
    if not program.exists():
        pytest.skip("python-hl7 is not installed: pip install hl7")
    return str(program)


# -- into our listener ---------------------------------------------------------------------------------------------

SENT = (
    "MSH|^~\\&|RIS|HOSP|ECGGW|HOSP|20261122101530||ADT^A04^ADT_A01|M1|P|2.5.1\rEVN||20261122101530\r"
    "PID|1||P1^^^HOSP^MR||Muster^Ada||19610504|F\rPV1|1|O\r",
    "MSH|^~\\&|RIS|HOSP|ECGGW|HOSP|20261122101531||ORM^O01|M2|P|2.3.1\r"
    "PID|1||P1^^^HOSP^MR||Muster^Ada\rORC|NW|ORD1\rOBR|1|ORD1||EKG||||||||||||||A1\r",
    "MSH|^~\\&|RIS|HOSP|ECGGW|HOSP|20261122101532||ADT^A99|M3|P|2.5.1\rEVN||20261122101532\rPID|1||P1\r",
)
ANSWERS = ["AA M1", "AA M2", "AR M3"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "gateway.db")
    yield store
    store.close()


@pytest.fixture
def port(store: Store) -> Iterator[int]:
    listener = MllpListener("127.0.0.1", 0, Receiver(Records(store), "UNICODE UTF-8"))
    listener.start()
    yield listener.port
    listener.stop()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.hl7" for number in range(len(SENT))]
    for path, message in zip(paths, SENT, strict=True):
        path.write_bytes(message.encode())
    return [str(path) for path in paths]


def run(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def was_taken(store: Store) -> bool:
    order = store.patients.order("A1")
    return order is not None and order[1].patient_name == "Muster^Ada"


@pytest.mark.parametrize("script", ["node_hl7_client.mjs", "simple_hl7_client.js"])
def test_node_clients_send_to_us(store: Store, port: int, files: list[str], script: str) -> None:
    assert run(*command(script), str(port), *files).split("\n")[:-1] == ANSWERS
    assert was_taken(store)


def test_mllp_send_sends_to_us(store: Store, port: int, files: list[str]) -> None:
    said = run(mllp_send(), "--loose", "--file", files[0], "--port", str(port), "127.0.0.1")
    assert "MSA|AA|M1" in said
    said = run(mllp_send(), "--loose", "--file", files[1], "--port", str(port), "127.0.0.1")
    assert "MSA|AA|M2" in said
    said = run(mllp_send(), "--loose", "--file", files[2], "--port", str(port), "127.0.0.1")
    assert "MSA|AR|M3" in said and "201^Unsupported event code^HL70357" in said
    assert was_taken(store)


# -- from our client -----------------------------------------------------------------------------------------------


class Server:
    """A peer that has begun to listen; `received` holds the MSH-10s it printed."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process, self.port = process, port
        self.received: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.received.append(line.strip())

    def wait(self) -> None:
        wait_for("the peer to listen", self._listens)

    def _listens(self) -> bool:
        assert self._process.poll() is None, self.received
        try:
            socket.create_connection(("127.0.0.1", self.port), PATIENCE_S).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._thread.join(PATIENCE_S)


@contextmanager
def serving(script: str, mode: str) -> Iterator[Server]:
    port = free_port()
    arguments = [*command(script), str(port), mode]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        server = Server(process, port)
        try:
            server.wait()
            yield server
        finally:
            server.stop()


def client(server: Server, timeout_s: float = PATIENCE_S) -> MllpClient:
    return MllpClient(Hl7Destination(name="ehr", host="127.0.0.1", port=server.port, timeout_s=timeout_s))


def results(count: int) -> list[bytes]:
    return [built(message_control_id=f"GW{number}") for number in range(count)]


@pytest.mark.parametrize("script", ["node_hl7_server.mjs", "simple_hl7_server.js"])
def test_node_servers_take_results(script: str) -> None:
    with serving(script, "AA") as server, closing(client(server)) as ours:
        assert [ours.send(message) for message in results(3)] == ["AA"] * 3
    assert list(dict.fromkeys(line for line in server.received if line.startswith("GW"))) == ["GW0", "GW1", "GW2"]


@pytest.mark.parametrize("destination", [{"message": "MDM^T02"}, {"version": "2.3.1"}, {"report": "embed"}])
@pytest.mark.parametrize("script", ["node_hl7_server.mjs", "simple_hl7_server.js"])
def test_node_servers_take_every_kind_of_message(script: str, destination: dict[str, str]) -> None:
    with serving(script, "AA") as server, closing(client(server)) as ours:
        assert ours.send(built(destination=destination, report_pdf=b"%PDF-1.4" * 30_000)) == "AA"


@pytest.mark.parametrize("script", ["node_hl7_server.mjs", "simple_hl7_server.js"])
@pytest.mark.parametrize(("mode", "kind"), [("AE", DeliveryDeferred), ("AR", DeliveryRefused)])
def test_a_no_is_understood(script: str, mode: str, kind: type[Exception]) -> None:
    with serving(script, mode) as server, closing(client(server)) as ours:
        for message in results(2):
            with pytest.raises(kind, match=f"answered {mode}"):
                ours.send(message)


@pytest.mark.parametrize(
    ("script", "mode", "words"),
    [
        ("node_hl7_server.mjs", "late", "no answer"),
        ("node_hl7_server.mjs", "nothing", "no answer"),
        ("simple_hl7_server.js", "wrong", "MSA-2"),
    ],
)
def test_no_usable_answer_defers_and_the_next_goes_by_another_connection(script: str, mode: str, words: str) -> None:
    timeout_s = 1.0 if words == "no answer" else PATIENCE_S
    with serving(script, mode) as server, closing(client(server, timeout_s)) as ours:
        for message in results(2):
            with pytest.raises(DeliveryDeferred, match=words):
                ours.send(message)


def test_answers_that_come_twice() -> None:
    with serving("simple_hl7_server.js", "twice") as server, closing(client(server)) as ours:
        assert [ours.send(message) for message in results(3)] == ["AA"] * 3
