"""New settings reach the running gateway: no association ends, no process dies, and a wrong file changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE
from pynetdicom.association import Association

from gateway.domain.status import JobStatus
from tests.acceptance.conftest import PROCESSES_S, ROOT, Gateway, to_toml
from tests.acceptance.peers import free_port, secondary_capture
from tests.fake_digitizer import page_pixels, page_png
from tests.waiting import wait_for


class Site:
    """A gateway with callers and a folder as destination, and how its file changes."""

    def __init__(self, root: Path, make_gateway: Callable[..., Gateway]) -> None:
        self.root = root
        (root / "drop").mkdir()
        (root / "drop2").mkdir()
        self.tree: dict[str, Any] = {
            "destinations": [self.destination("drop")],
            "dicom": {"callers": [{"ae_title": "SCANNER"}, {"ae_title": "OTHER"}]},
            "worker": {"processes": 1},
        }
        self.gateway = make_gateway(**self.tree)

    def destination(self, name: str) -> dict[str, Any]:
        return {"kind": "folder", "name": name, "path": str(self.root / name)}

    def write(self, **changes: Any) -> None:
        """Write the file as it is, but for the changes; a value of a section may be another one."""
        gateway = self.gateway
        folder = {"path": str(gateway.inbox), "create": True, "settle_s": 0.2, "incomplete_s": 1.0}
        tree: dict[str, Any] = {
            "dicom": {"port": gateway.port} | self.tree["dicom"],
            "web": {"port": gateway.web_port},
            "storage": {"path": str(self.root / "var"), "minimum_free_mib": 0},
            "folders": [folder],
            "worker": self.tree["worker"],
            "destinations": self.tree["destinations"],
        }
        for name, value in changes.items():
            tree[name] = tree.get(name, {}) | value if isinstance(value, dict) else tree.get(name, []) + value
        gateway.config.write_text(_inline(tree), encoding="utf-8")

    def reload(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway", "reload", "--config", str(self.gateway.config)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PROCESSES_S, check=False)

    def send(self, association: Association) -> str:
        """Store a page and return its job's id."""
        page = secondary_capture(page_pixels())
        status = association.send_c_store(page)
        assert status.Status == 0x0000
        job = self.gateway.store.jobs.find(str(page.SOPInstanceUID))
        assert job is not None
        return job.id

    def arrived(self, job_id: str, *names: str) -> bool:
        return all(any(path.name.startswith(job_id) for path in (self.root / name).iterdir()) for name in names)


def _inline(tree: dict[str, Any]) -> str:
    callers = tree["dicom"].pop("callers", [])
    text = to_toml(tree)
    return text + "".join(f'\n[[dicom.callers]]\nae_title = "{caller["ae_title"]}"' for caller in callers) + "\n"


def associate(port: int, ae_title: str = "SCANNER") -> Association:
    ae = AE(ae_title)
    ae.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    return ae.associate("127.0.0.1", port, ae_title="ECGGW")


@pytest.fixture
def site(tmp_path: Path, make_gateway: Callable[..., Gateway]) -> Site:
    site = Site(tmp_path, make_gateway)
    site.write()
    site.gateway.start()
    assert site.gateway.jobs() == []  # the store is opened while the file is right
    return site


@pytest.fixture
def association(site: Site) -> Iterator[Association]:
    """One that is open all the time."""
    association = associate(site.gateway.port)
    assert association.is_established
    yield association
    association.abort()


def test_new_settings_are_followed_on_an_open_association(site: Site, association: Association) -> None:
    gateway = site.gateway
    first = site.send(association)
    wait_for("the first result", lambda: site.arrived(first, "drop"), PROCESSES_S)
    workers = gateway.workers()

    site.tree["dicom"]["callers"].pop()
    inbox2 = {"path": str(site.root / "inbox2"), "create": True, "settle_s": 0.2, "destinations": ["drop2"]}
    site.write(
        destinations=[site.destination("drop2")],
        folders=[inbox2],
        log={"level": "DEBUG"},
        dicom={"port": free_port(), "maximum_associations": 2},
    )
    done = site.reload()
    assert done.returncode == 0, done.stderr + gateway.log
    changed, restart = done.stdout.splitlines()
    for name in ("destinations drop2", f"folders {site.root}/inbox2", "dicom.callers OTHER", "log.level"):
        assert name in changed
    assert "dicom.maximum_associations" in changed and restart == "needs a restart: dicom.port"

    second = site.send(association)  # the association that was open before
    wait_for("results at both destinations", lambda: site.arrived(second, "drop", "drop2"), PROCESSES_S)
    assert not site.arrived(first, "drop2")
    assert not associate(gateway.port, "OTHER").is_established
    (site.root / "inbox2" / "page.png").write_bytes(page_png())
    (site.root / "inbox2" / "page.png.json").write_text('{"patient_id": "P7"}')
    third = wait_for("the page of the new folder", lambda: [job.id for job in gateway.jobs() if "inbox2" in job.source])
    wait_for("its result", lambda: site.arrived(third[0], "drop2"), PROCESSES_S)
    assert not site.arrived(third[0], "drop")
    assert association.is_established and gateway.process.poll() is None and gateway.workers() == workers

    site.tree["destinations"] = [site.destination("drop2")]  # and away again
    site.write()
    assert site.reload().returncode == 0
    last = site.send(association)
    wait_for("the last result", lambda: site.arrived(last, "drop2"), PROCESSES_S)
    assert not site.arrived(last, "drop")
    assert gateway.store.deliveries.undelivered(None) == [] and gateway.stop() == 0


def test_a_wrong_file_changes_nothing_and_says_why(site: Site, association: Association) -> None:
    gateway = site.gateway
    right = gateway.config.read_text(encoding="utf-8")
    gateway.config.write_text("[dicom]\nprot = 104\n" + right.replace("[dicom]", "[dicom.x]"), encoding="utf-8")
    done = site.reload()
    assert done.returncode == 2 and f"{gateway.config}:2: dicom.prot = 104: is no setting" in done.stderr
    assert "reload" not in gateway.log
    gateway.process.send_signal(signal.SIGHUP)  # without the command's own look
    wait_for("the reason", lambda: f"Nothing is reloaded: {gateway.config}:2: dicom.prot = 104" in gateway.log)

    site.tree["dicom"]["callers"] = []
    site.write(destinations=[site.destination("missing")])  # right in itself, and not on this machine
    done = site.reload()
    assert done.returncode == 1
    assert "nothing is changed" in done.stderr and "the folder is missing: make it, or mount it" in done.stderr
    assert not associate(gateway.port, "STRANGER").is_established

    site.tree["dicom"] = {"plain": False}  # needs a restart, and makes no sense without [dicom.tls]
    site.write()
    assert site.reload().returncode == 2
    page = site.send(association)
    wait_for("its result", lambda: site.arrived(page, "drop"), PROCESSES_S)
    other = associate(gateway.port, "OTHER")
    assert other.is_established
    other.release()


def test_sighup_ends_no_worker(site: Site, association: Association) -> None:
    gateway = site.gateway
    workers = gateway.workers()
    for _ in range(5):
        for process in (gateway.process.pid, *workers):
            os.kill(process, signal.SIGHUP)
        page = site.send(association)
        wait_for("its result", lambda page=page: site.arrived(page, "drop"), PROCESSES_S)
    assert gateway.workers() == workers and gateway.process.poll() is None
    (killed,) = workers
    os.kill(killed, signal.SIGKILL)
    (started,) = wait_for("another worker", lambda: [each for each in gateway.workers() if each != killed])
    os.kill(started, signal.SIGHUP)  # it has loaded nothing yet
    page = site.send(association)
    wait_for("its result", lambda: site.arrived(page, "drop"), PROCESSES_S)
    assert gateway.workers() == [started]


def test_a_file_that_is_wrong_or_not_reloaded_reaches_no_worker(site: Site, association: Association) -> None:
    """A worker that is started again works by the settings that are in effect."""
    gateway = site.gateway
    gateway.config.write_text("[dicom\n", encoding="utf-8")
    (worker,) = gateway.workers()
    os.kill(worker, signal.SIGKILL)
    page = site.send(association)
    wait_for("its result", lambda: site.arrived(page, "drop"), PROCESSES_S)
    assert gateway.process.poll() is None


def test_sighup_before_the_service_is_up_is_a_reload_later(
    tmp_path: Path, make_gateway: Callable[..., Gateway]
) -> None:
    site = Site(tmp_path, make_gateway)
    site.tree["worker"] = {"processes": 0}
    site.write()
    with gateway_process(site) as process:
        status = Path(f"/proc/{process.pid}/status")
        wait_for("its first steps", lambda: int(status.read_text().partition("SigBlk:")[2].split()[0], 16) & 1)
        assert "Receiving" not in site.gateway.log
        process.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: "Reloaded: nothing is different" in site.gateway.log, PROCESSES_S)
        assert process.poll() is None


class gateway_process:
    """`ecg-gateway serve` itself."""

    def __init__(self, site: Site) -> None:
        self._log = site.gateway.log_path.open("ab")
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(site.gateway.config)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=self._log, stderr=self._log)

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def test_nobody_to_ask_is_said(site: Site) -> None:
    site.gateway.stop()
    done = site.reload()
    assert done.returncode == 1 and "no gateway runs on it" in done.stderr
    assert site.gateway.store.jobs.counts().get(JobStatus.FAILED, 0) == 0
