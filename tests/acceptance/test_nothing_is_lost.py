"""The promise: what was acknowledged ends delivered, once by SOP Instance UID, whatever is killed and whenever."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.domain.status import DeliveryStatus, JobStatus
from tests.acceptance.conftest import PROCESSES_S, Gateway
from tests.acceptance.peers import Ehr, Pacs, c_store, secondary_capture
from tests.fake_digitizer import Behaviour, page_pixels, page_png
from tests.waiting import wait_for

MakeGateway = Callable[..., Gateway]


def test_service_killed_right_after_the_c_store_response(make_gateway: MakeGateway, pacs: Pacs, ehr: Ehr) -> None:
    gateway = make_gateway()
    gateway.start()
    sources = [secondary_capture(page_pixels(seed=seed)) for seed in range(3)]
    assert c_store(gateway.port, *sources) == [0x0000] * 3
    gateway.kill()
    gateway.start()
    jobs = gateway.wait_until_settled(3)
    assert {job.status for job in jobs} == {JobStatus.DONE}
    assert {job.source_key for job in jobs} == {source.SOPInstanceUID for source in sources}
    referenced = {w.SOPInstanceUID: w.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID for w in pacs.received}
    assert sorted(referenced.values()) == sorted(source.SOPInstanceUID for source in sources)
    assert len({ehr.control_id(message) for message in ehr.received}) == 3


def test_worker_killed_in_the_middle_of_a_job(make_gateway: MakeGateway, pacs: Pacs) -> None:
    gateway = make_gateway()
    gateway.start()
    assert c_store(gateway.port, secondary_capture(page_pixels(Behaviour.SLOW))) == [0x0000]
    gateway.wait_for_job(JobStatus.RUNNING)
    (worker,) = gateway.workers()
    os.kill(worker, signal.SIGKILL)
    (job,) = gateway.wait_until_settled(1)
    assert (job.status, job.attempts) == (JobStatus.DONE, 2)
    assert len(pacs.uids) == 1
    assert "ended with signal SIGKILL" in gateway.log
    assert gateway.process.poll() is None


def test_service_killed_in_the_middle_of_the_deliveries(make_gateway: MakeGateway, pacs: Pacs, ehr: Ehr) -> None:
    """Both peers have the result, and their answers never arrive: they are sent again, and seen to be the same."""
    pacs.gate.clear()
    ehr.gate.clear()
    gateway = make_gateway()
    gateway.start()
    assert c_store(gateway.port, secondary_capture(page_pixels())) == [0x0000]
    assert pacs.arrived.wait(PROCESSES_S) and ehr.arrived.wait(PROCESSES_S)
    gateway.kill()
    pacs.gate.set()
    ehr.gate.set()
    gateway.start()
    (job,) = gateway.wait_until_settled(1)
    assert job.status == JobStatus.DONE
    deliveries = {d.destination: d for d in gateway.store.deliveries.of_job(job.id)}
    assert {d.status for d in deliveries.values()} == {DeliveryStatus.DELIVERED}
    assert pacs.uids == [deliveries["pacs"].identifier] * 2
    assert pacs.received[0] == pacs.received[1]
    assert len(ehr.received) == 2 and ehr.received[0] == ehr.received[1]
    assert ehr.control_id(ehr.received[0]).decode() == deliveries["ehr"].identifier


def test_service_killed_while_a_job_runs_and_sent_again_by_the_peer(make_gateway: MakeGateway, pacs: Pacs) -> None:
    """The worker of the dead service ends its page and itself; the peer's repeat makes no second job."""
    gateway = make_gateway()
    gateway.start()
    source = secondary_capture(page_pixels(Behaviour.SLOW))
    assert c_store(gateway.port, source) == [0x0000]
    gateway.wait_for_job(JobStatus.RUNNING)
    (worker,) = gateway.workers()
    gateway.kill()
    gateway.start()
    assert c_store(gateway.port, source) == [0x0000]
    (job,) = gateway.wait_until_settled(1)
    assert job.status == JobStatus.DONE and len(pacs.uids) == 1
    wait_for("the orphaned worker to end", lambda: not os.path.exists(f"/proc/{worker}"))


def test_page_that_kills_its_worker_three_times_fails_and_holds_up_no_other(
    make_gateway: MakeGateway, pacs: Pacs
) -> None:
    gateway = make_gateway()
    gateway.start()
    sources = [secondary_capture(page_pixels(behaviour)) for behaviour in (Behaviour.DEADLY, Behaviour.GOOD)]
    assert c_store(gateway.port, *sources) == [0x0000] * 2
    jobs = {job.source_key: job for job in gateway.wait_until_settled(2)}
    deadly, good = (jobs[source.SOPInstanceUID] for source in sources)
    assert (deadly.status, deadly.attempts) == (JobStatus.FAILED, 3)
    assert "attempt 3 of 3" in deadly.reason
    assert good.status == JobStatus.DONE and len(pacs.uids) == 1
    assert [event.action for event in gateway.store.jobs.events(deadly.id)].count("CLAIM") == 3


def test_page_that_hangs_or_wants_all_memory_fails_in_words(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(worker={"page_timeout_s": 8.0, "maximum_attempts": 2})
    gateway.start()
    sources = [secondary_capture(page_pixels(behaviour)) for behaviour in (Behaviour.HANGING, Behaviour.GREEDY)]
    assert c_store(gateway.port, *sources) == [0x0000] * 2
    jobs = {job.source_key: job for job in gateway.wait_until_settled(2)}
    hanging, greedy = (jobs[source.SOPInstanceUID] for source in sources)
    assert (hanging.status, hanging.attempts) == (JobStatus.FAILED, 2)
    assert hanging.reason == "page 1 took longer than 8 s"
    assert (greedy.status, greedy.attempts) == (JobStatus.FAILED, 1)
    assert "more memory than the 8192 MiB" in greedy.reason


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_clean_stop_with_a_job_running(
    make_gateway: MakeGateway, pacs: Pacs, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gateway = make_gateway()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        gateway.start()
        wait_for("READY", lambda: systemd.recv(100) == b"READY=1")
        assert systemd.recv(100) == b"WATCHDOG=1"
    slow, waiting = (secondary_capture(page_pixels(b)) for b in (Behaviour.SLOW, Behaviour.GOOD))
    assert c_store(gateway.port, slow, waiting) == [0x0000] * 2
    gateway.wait_for_job(JobStatus.RUNNING)
    workers = gateway.workers()
    gateway.process.send_signal(number)
    assert gateway.process.wait(PROCESSES_S) == 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
    assert {job.status for job in gateway.jobs()} <= {JobStatus.DONE, JobStatus.QUEUED}
    assert "Traceback" not in gateway.log
    monkeypatch.delenv("NOTIFY_SOCKET")
    gateway.start()
    assert {job.status for job in gateway.wait_until_settled(2)} == {JobStatus.DONE}
    assert sorted(pacs.uids) == sorted(set(pacs.uids)) and len(pacs.uids) == 2


def test_file_dropped_while_nobody_runs_is_delivered(make_gateway: MakeGateway, pacs: Pacs) -> None:
    gateway = make_gateway()
    gateway.inbox.mkdir()
    (gateway.inbox / "page.png").write_bytes(page_png())
    (gateway.inbox / "page.png.json").write_text('{"patient_id": "P7"}')
    gateway.start()
    (job,) = gateway.wait_until_settled(1)
    assert job.status == JobStatus.DONE and [w.PatientID for w in pacs.received] == ["P7"]
    wait_for("the original to be put away", (gateway.inbox / "done" / "page.png").exists)


def test_second_service_on_a_taken_port_says_so_and_ends(make_gateway: MakeGateway, tmp_path: Path) -> None:
    gateway = make_gateway()
    gateway.start()
    other = make_gateway(dicom={"port": gateway.port}, storage={"path": str(tmp_path / "other")})
    with pytest.raises(AssertionError, match="Cannot start"):
        other.start()
    assert other.process.wait(PROCESSES_S) == 1
