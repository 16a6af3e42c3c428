"""The first send of the README, with its own commands: img2dcm makes an object of a JPEG file, storescu sends it."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gateway.dicom.network.scp import StorageScp
from gateway.domain.status import JobStatus
from gateway.intake.accept import Intake
from gateway.settings import DicomSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from tests.interop.peers import tool

pytestmark = pytest.mark.interop

README = Path(__file__).resolve().parents[2] / "README.md"


def commands() -> list[list[str]]:
    """The commands of the block that has `storescu`."""
    section = README.read_text(encoding="utf-8").partition("[start:first-send]")[2]
    (block,) = [block for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) if "storescu" in block]
    return [shlex.split(line) for line in block.splitlines()]


def test_page_arrives(tmp_path: Path) -> None:
    Image.fromarray(np.full((120, 160, 3), 250, np.uint8)).save(tmp_path / "page.jpg")
    store = Store(tmp_path / "gateway.db")
    spool = Spool(tmp_path / "spool", 1)
    scp = StorageScp(DicomSettings(port=0), Intake(spool, store).accept, spool)
    scp.start()
    try:
        for name, *arguments in commands():
            arguments = [str(scp.port) if argument == "11112" else argument for argument in arguments]
            subprocess.run([tool(name), *arguments], cwd=tmp_path, check=True, timeout=60)
        (job,) = store.jobs.newest()
        assert (job.status, job.source, job.patient_id) == (JobStatus.QUEUED, "dicom:STORESCU", "P1")
    finally:
        scp.stop()
        store.close()
