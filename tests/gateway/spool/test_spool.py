"""The spool: whole files or none, never outside its folder, never into the last free space."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StorageError, UnreadableFile
from gateway.spool.disk import Disk, write_durably
from gateway.spool.folder import Spool
from gateway.spool.place import Size
from gateway.store.tables import new_id
from tests.fakes import make_unreadable


def test_a_source_comes_back_byte_for_byte(spool: Spool) -> None:
    job_id = new_id()
    spool.write_source(job_id, b"\x00\xffbytes")
    path = spool.path / job_id / "source"
    assert spool.read(job_id) == path.read_bytes() == b"\x00\xffbytes"
    assert os.listdir(path.parent) == ["source"]
    assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0


def test_an_artefact_lies_beside_its_source_and_may_be_replaced(spool: Spool) -> None:
    job_id = new_id()
    spool.write_source(job_id, b"page")
    spool.write_artefact(job_id, "page1.dcm", b"one")
    spool.write_artefact(job_id, "page1.dcm", b"two")
    assert spool.read(job_id, "page1.dcm") == b"two" and spool.has(job_id, "page1.dcm")
    assert sorted(os.listdir(spool.path / job_id)) == ["page1.dcm", "source"]


def test_a_spool_that_comes_back_while_a_file_is_read_lets_it_be_read(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed before was the spool, not the file: nobody's attempt is counted."""
    job_id = new_id()
    spool.write_source(job_id, b"page")
    path, write = spool.path / job_id / "source", Disk.write
    make_unreadable(path)

    def write_and_come_back(self: Disk, *args: Any) -> None:
        path.unlink()
        path.write_bytes(b"page")
        write(self, *args)

    monkeypatch.setattr(Disk, "write", write_and_come_back)
    assert spool.read(job_id) == b"page"
    make_unreadable(path)
    monkeypatch.undo()
    with pytest.raises(UnreadableFile):
        spool.read(job_id)


@pytest.mark.parametrize("name", ["", "source", "../x", "a/b", ".hidden", "a\\b", "x.tmp", "a\nb", "x" * 101, "a\0b"])
def test_a_name_that_could_leave_the_folder_is_no_artefact(spool: Spool, name: str) -> None:
    with pytest.raises(ValueError, match="no artefact name"):
        spool.write_artefact(new_id(), name, b"")


@pytest.mark.parametrize("job_id", ["", "..", "../../etc", "x" * 36, "D40B1F20-4937-4555-9B51-F593BC71E4AF/"])
def test_a_job_id_that_is_none_has_no_folder(spool: Spool, job_id: str) -> None:
    for use in (spool.read, spool.remove, lambda job: spool.write_source(job, b"")):
        with pytest.raises(ValueError, match="no job id"):
            use(job_id)


def test_too_little_space_is_a_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    full = Spool(tmp_path / "spool", minimum_free_mib=10**9)
    with pytest.raises(StorageError, match="must stay free"):
        full.check_space()
    with pytest.raises(StorageError, match="must stay free"):
        full.write_source(new_id(), b"page")
    assert os.listdir(full.path) == []


def test_a_full_disk_does_not_stop_artefacts(spool: Spool, tmp_path: Path) -> None:
    job_id = new_id()
    spool.write_source(job_id, b"page")
    Spool(spool.path, minimum_free_mib=10**9).write_artefact(job_id, "page1.dcm", b"result")


def test_a_spool_that_cannot_be_written_is_a_storage_error(spool: Spool, tmp_path: Path) -> None:
    spool.path.rmdir()
    with pytest.raises(StorageError):
        spool.write_source(new_id(), b"page")
    spool.path.write_text("a file in the way")
    with pytest.raises(StorageError):
        spool.write_source(new_id(), b"page")
    with pytest.raises(StorageError):
        spool.write_artefact(new_id(), "page1.dcm", b"result")
    with pytest.raises(StorageError):
        Spool(spool.path, minimum_free_mib=0)


_LIMITED = """
import resource, sys
from pathlib import Path
from gateway.errors import StorageError
from gateway.spool.folder import Spool
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    Spool(Path(sys.argv[1]), 0).write_source(sys.argv[2], bytes(5000))
except StorageError as error:
    sys.exit(f"refused: {error}")
"""


def test_a_write_that_breaks_off_leaves_nothing(spool: Spool) -> None:
    job_id = new_id()
    run = subprocess.run(
        [sys.executable, "-c", _LIMITED, spool.path, job_id], capture_output=True, text=True, check=False
    )
    assert run.stderr.strip() == "refused: spool: File too large"
    assert os.listdir(spool.path) == []


_REWRITE = """
import sys
from pathlib import Path
from gateway.spool.disk import write_durably
for n in range(10**6):
    write_durably(Path(sys.argv[1]), bytes([n % 256]) * 100_000)
    print(n, flush=True)
"""


def test_kill_9_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "file"
    process = subprocess.Popen([sys.executable, "-c", _REWRITE, target], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    data = target.read_bytes()
    assert len(data) == 100_000 and len(set(data)) == 1
    write_durably(target, b"next")  # what the killed one left beside it is in nobody's way
    assert target.read_bytes() == b"next"
    assert os.listdir(tmp_path) == ["file"]


def test_remove_deletes_all_of_a_job_and_may_be_repeated(spool: Spool) -> None:
    job_id = new_id()
    spool.write_source(job_id, b"page")
    spool.remove(job_id)
    spool.remove(job_id)
    assert os.listdir(spool.path) == []


def test_what_is_unchanged_is_known_by_its_folder(spool: Spool) -> None:
    old, fresh = new_id(), new_id()
    for job_id in (old, fresh):
        spool.write_source(job_id, b"page")
    (spool.path / "lost+found").mkdir()
    for name in (old, "lost+found"):
        os.utime(spool.path / name, (0, 0))
    assert spool.unchanged(for_s=3600) == [old]


def test_the_usage_tells_sources_from_artefacts_and_quarantine(spool: Spool) -> None:
    first, second, lost = new_id(), new_id(), new_id()
    for job_id in (first, second, lost):
        spool.write_source(job_id, b"12345")
    spool.write_artefact(first, "page-1.dcm", b"123")
    assert spool.quarantine(lost)
    assert spool.usage() == {"sources": Size(2, 10), "artefacts": Size(1, 3), "quarantine": Size(1, 5)}
    assert spool.size(first) == Size(2, 8) and spool.size(new_id()) == Size()
