"""A folder as a destination."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.delivery.folder import FolderKind, deliver_to_folder
from gateway.domain.artefact import Role
from gateway.errors import DeliveryDeferred, NotReached
from gateway.settings import FolderDestination, Hl7CodeSettings
from gateway.store.tables import Delivery, new_id


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_a_result_is_dropped_whole_under_a_name_of_its_job(tmp_path: Path) -> None:
    (tmp_path / "page1.dcm").write_bytes(b"result")
    share = tmp_path / "share"
    delivery = Delivery(
        job_id=new_id(), role=Role.WAVEFORM, page_number=1, destination="share", kind="folder", artefact="page1.dcm"
    )
    with pytest.raises(DeliveryDeferred, match="not there"):
        deliver_to_folder(share, tmp_path / "page1.dcm", delivery)
    share.mkdir()
    for _ in range(2):
        assert deliver_to_folder(share, tmp_path / "page1.dcm", delivery) == "stored"
        (name,) = os.listdir(share)
        assert (share / name).stat().st_mode & 0o777 == 0o640  # it names a patient
    assert files(share) == [f"{delivery.job_id}-page1.dcm"]
    assert (share / files(share)[0]).read_bytes() == b"result"
    (share / f".{delivery.job_id}-page1.dcm.tmp").mkdir()  # something in the way
    with pytest.raises(DeliveryDeferred, match="cannot take it"):
        deliver_to_folder(share, tmp_path / "page1.dcm", delivery)


def test_a_folder_is_made_where_the_settings_say_so(tmp_path: Path) -> None:
    (tmp_path / "page1.dcm").write_bytes(b"result")
    delivery = Delivery(
        job_id=new_id(), role=Role.WAVEFORM, page_number=1, destination="out", kind="folder", artefact="page1.dcm"
    )
    settings = FolderDestination(name="out", path=tmp_path / "new" / "out", create=True)
    assert FolderKind(settings, Hl7CodeSettings()).send(tmp_path / "page1.dcm", delivery) == "stored"
    (tmp_path / "file").write_bytes(b"")
    blocked = FolderKind(settings.model_copy(update={"path": tmp_path / "file" / "out"}), Hl7CodeSettings())
    with pytest.raises(NotReached, match="cannot be made: Not a directory"):
        blocked.send(tmp_path / "page1.dcm", delivery)
    assert [step.ok for step in blocked.check()] == [False]
