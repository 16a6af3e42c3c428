"""Orders and patients by HL7 into a gateway as a real process: kept once answered, and never in a log."""

from __future__ import annotations

import socket
from collections.abc import Callable

from gateway.domain.status import JobStatus
from gateway.hl7.inbound.acknowledgement import scan_acknowledgement
from gateway.hl7.transport.frames import FrameParser, frame
from tests.acceptance.conftest import Gateway
from tests.acceptance.peers import Ehr, free_port
from tests.fake_digitizer import page_png
from tests.hl7_examples import inbound
from tests.waiting import PATIENCE_S

MakeGateway = Callable[..., Gateway]
PID = "PID|1||PID0815XYZ^^^HOSP^MR||ZWYRTKOWSKA^QUINTESSA||19410507|F"
ORDER = ("ORC|NW|PLC4711", "OBR|1|PLC4711||EKG||||||||||||||ACC4711QRS")
MARKS = ("ZWYRTKOWSKA", "QUINTESSA", "PID0815XYZ", "19410507", "ACC4711QRS", "PLC4711")


def exchange(port: int, *messages: bytes) -> list[str]:
    """Send messages over one connection; return MSA-1 of every answer."""
    parser, codes = FrameParser(), []
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        connection.sendall(b"".join(frame(message) for message in messages))
        while len(codes) < len(messages):
            for answer in parser.feed(connection.recv(65536)):
                acknowledgement = scan_acknowledgement(answer)
                assert acknowledgement is not None
                codes.append(acknowledgement.code)
    return codes


def test_order_outlives_a_kill_right_after_its_ack_and_finds_its_scan(make_gateway: MakeGateway, ehr: Ehr) -> None:
    port = free_port()
    gateway = make_gateway(
        hl7={"enabled": True, "port": port},
        log={"level": "DEBUG"},
    )
    gateway.start()
    order = inbound("ORM^O01", PID, *ORDER)
    wrong = [inbound("ADT^A08", "PID|1||^^^ZWYRTKOWSKA", control_id="M2"), inbound("ADT^A08", control_id="M3")]
    assert exchange(port, order, *wrong, PID.encode(), order) == ["AA", "AE", "AE", "AR", "AA"]
    gateway.kill()
    gateway.start()
    (gateway.inbox / "page.png.json").write_text('{"accession_number": "ACC4711QRS"}')
    (gateway.inbox / "page.png").write_bytes(page_png())
    (job,) = gateway.wait_until_settled(1)
    assert job.status == JobStatus.DONE
    (result,) = ehr.received
    assert b"PID0815XYZ^^^HOSP^MR" in result and b"|PLC4711|" in result
    assert exchange(port, order) == ["AA"]  # a repeat, known after the restart
    assert gateway.stop() == 0
    assert "A repeat of an HL7 message" in gateway.log
    assert [mark for mark in MARKS if mark in gateway.log.upper()] == []
