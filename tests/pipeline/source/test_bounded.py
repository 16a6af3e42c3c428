"""Files that cost too much: refused within seconds, with the bound, and the next page is read as if nothing was."""

from __future__ import annotations

import io
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from reportlab.pdfgen.canvas import Canvas

from pipeline import BUDGET
from pipeline.errors import PageUnreadable, TraceNotFound, TransientError
from pipeline.source.bounded import read_bounded
from pipeline.source.page import decode_pages, load_pages
from tests.memory import forget_peak, peak_mib
from tests.pipeline.source import readers
from tests.waiting import PATIENCE_S, SOON_S, eventually

Read = Callable[[bytes], Iterator[object]]

PAGE = cv2.imencode(".png", np.random.default_rng(1).integers(0, 255, (300, 400, 3), np.uint8))[1].tobytes()
MORE_MIB = 64  # of this process, at most


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def deep_png() -> bytes:
    header = struct.pack(">IIBBBBB", 9990, 9990, 16, 6, 0, 0, 0)
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(bytes(1 + 8 * 9990)) for _ in range(9990)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def jpeg(scans: int, side: int = 64) -> bytes:
    out = io.BytesIO()
    Image.new("L", (side, side), 200).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]


def tiff(pages: int) -> bytes:
    sheets = [np.full((32, 32), number, np.uint8) for number in range(pages)]
    return bytes(cv2.imencodemulti(".tiff", sheets)[1])


def pdf_of(content: bytes, *forms: bytes) -> bytes:
    """A page with this content, and the forms that it may draw, each as /F."""
    resources = b"/Resources<</XObject<</F %d 0 R>>>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R" + (resources % 5 if forms else b"") + b">>",
        b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(z := zlib.compress(content)), z),
    ]
    for number, form in enumerate(forms, 6):
        following = resources % number if number - 5 < len(forms) else b""
        head = b"<</Type/XObject/Subtype/Form/BBox[0 0 99 99]" + following
        objects.append(head + b"/Length %d>>stream\n%s\nendstream" % (len(form), form))
    out, places = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj%s endobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    tail = b"trailer<</Root 1 0 R/Size %d>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(out))
    return out + head + table + tail


def pdf(pages: int, side: float = 100.0) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=(side, side))
    for number in range(1, pages + 1):
        canvas.line(0, 0, number, side)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def nested_forms() -> bytes:
    return pdf_of(b"/F Do", *[b"/F Do /F Do"] * 29, b"0 0 m 9 9 l S")


def long_strokes() -> bytes:
    return pdf_of(b"0 0 m 595 842 l S 0 842 m 595 0 l S\n" * 200_000)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "scans": (lambda: jpeg(BUDGET.scans + 1), "the JPEG has more than 100 scans"),
    "bit depth": (deep_png, "the picture has 798 million bytes once it is decoded; the limit is 400 million"),
    "TIFF pages": (lambda: tiff(BUDGET.pages + 1), "the file has more than 200 pages"),
    "PDF pages": (lambda: pdf(BUDGET.pages + 1), "the file has more than 200 pages"),
    "strokes": (
        lambda: pdf_of(b"0 0 m 9 9 l S\n" * (BUDGET.pieces + 1)),
        "a page of the PDF is drawn with more than 1000000 points and objects",
    ),
    "points": (
        lambda: pdf_of(b"0 0 m " + b"9 9 l " * BUDGET.pieces + b"S"),
        "a page of the PDF is drawn with more than 1000000 points and objects",
    ),
    "points in forms": (
        lambda: pdf_of(b"/F Do " * 11, b"0 0 m " + b"9 9 l " * 99_999 + b"S"),
        "a page of the PDF is drawn with more than 1000000 points and objects",
    ),
}
MEMORY = "reading it takes more than {} MiB of memory"
PROCESSOR = "reading a page took longer than 1 s of processor time"
NETS: dict[str, tuple[Read, bytes, dict[str, float], str]] = {
    "forms in forms": (decode_pages, nested_forms(), {"memory_mib": 256}, MEMORY.format(256)),
    "array": (readers.allocate, b"x", {}, MEMORY.format(2048)),
    "long strokes": (decode_pages, long_strokes(), {"processor_s": 1}, PROCESSOR),
    "loop": (readers.compute, b"x", {"processor_s": 1}, PROCESSOR),
    "sleep": (readers.sleep, b"x", {"seconds": 0.5}, "reading it took longer than 0.5 s"),
    "crash": (readers.crash, b"x", {}, r"reading it ended with SIGSEGV, at \d+ of 2048 MiB of memory"),
    "exit": (readers.end, b"x", {}, r"reading it ended with exit code 3, at \d+ of 2048 MiB of memory"),
}


def healthy() -> None:
    (page,), (here,) = load_pages(PAGE), decode_pages(PAGE)
    assert np.array_equal(page.pixels, here.pixels)


@pytest.mark.parametrize("bomb", BOMBS)
def test_bomb_is_refused_with_the_bound(bomb: str) -> None:
    make, reason = BOMBS[bomb]
    data = make()
    healthy()
    before, start = forget_peak(), time.monotonic()
    with pytest.raises(PageUnreadable, match=f"^scan: {reason}$"):
        load_pages(data, "scan")
    assert time.monotonic() - start < SOON_S
    healthy()
    assert peak_mib() - before < MORE_MIB


@pytest.mark.parametrize("net", NETS)
def test_what_no_header_shows_ends_with_its_child(net: str) -> None:
    read, data, bounds, reason = NETS[net]
    healthy()
    before, start = forget_peak(), time.monotonic()
    with pytest.raises(PageUnreadable, match=f"^{reason}$"):
        read_bounded(read, data, budget=replace(BUDGET, **bounds))
    assert time.monotonic() - start < SOON_S
    healthy()
    assert peak_mib() - before < MORE_MIB


def test_what_is_legal_is_read_however_much() -> None:
    assert len(load_pages(pdf(60, 300.0))) == 60
    assert [int(page.pixels[0, 0, 0]) for page in load_pages(tiff(BUDGET.pages))] == list(range(200))
    assert load_pages(jpeg(BUDGET.scans))[0].pixels.shape == (64, 64, 3)


def test_scans_behind_the_picture_and_in_its_thumbnail_do_not_count() -> None:
    plain, many = jpeg(10), b"\xff\xda" * 200
    behind = plain + many
    inside = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(many) + 2) + many + plain[2:]
    for data in (behind, inside):
        assert np.array_equal(load_pages(data)[0].pixels, load_pages(plain)[0].pixels)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".bmp"])
def test_pages_are_the_same_to_the_bit_and_may_be_written(suffix: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (301, 203, 3), np.uint8)
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    (page,), (here,) = load_pages(data), decode_pages(data)
    assert np.array_equal(page.pixels, here.pixels)
    page.pixels[0, 0] = 7
    assert page.pixels.flags.c_contiguous


def test_drawn_lines_are_the_same_to_the_bit() -> None:
    data = pdf_of(b"0 0 m " + b"".join(b"%d %d l " % (k, 400 + k * k % 97) for k in range(500)) + b"S")
    (page,), (here,) = load_pages(data), decode_pages(data)
    assert np.array_equal(page.pixels, here.pixels)
    assert len(page.strokes) == len(here.strokes) == 1
    assert np.array_equal(page.strokes[0], here.strokes[0])


@pytest.mark.parametrize("pixels", [np.uint8, np.uint16])
def test_transparency_of_a_tall_page_is_the_same_in_every_band(pixels: type[np.unsignedinteger]) -> None:
    rng = np.random.default_rng(3)
    bgra = rng.integers(0, np.iinfo(pixels).max, (700, 40, 4), pixels, endpoint=True)
    (page,) = load_pages(cv2.imencode(".png", bgra)[1].tobytes())
    eight = cv2.convertScaleAbs(bgra, alpha=1 / 257) if pixels is np.uint16 else bgra
    alpha = eight[..., 3:4].astype(np.float32) / 255.0
    expected = np.round(eight[..., 2::-1].astype(np.float32) * alpha + 255.0 * (1.0 - alpha))
    assert np.array_equal(page.pixels, expected.astype(np.uint8))


def test_every_page_has_the_time_of_a_page() -> None:
    assert read_bounded(readers.compute_a_while, b"x", budget=replace(BUDGET, processor_s=1)) == [0, 1, 2, 3]


def test_errors_come_back_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TraceNotFound, match="there is no trace"):
        read_bounded(readers.refuse, b"x")
    assert caplog.messages == []
    with pytest.raises(ValueError, match="invalid literal"):
        read_bounded(readers.break_down, b"x")
    (message,) = caplog.messages
    assert message.startswith("ValueError in the process that read the file, at readers.py:")
    healthy()


def test_threads_read_side_by_side() -> None:
    files = [cv2.imencode(".png", np.full((40 + k, 50, 3), k, np.uint8))[1].tobytes() for k in range(24)]
    with ThreadPoolExecutor(8) as threads:
        for k, (page,) in enumerate(threads.map(load_pages, files)):
            assert page.pixels.shape == (40 + k, 50, 3) and (page.pixels == k).all()


def test_a_killed_process_is_replaced() -> None:
    (first,) = read_bounded(readers.parent, b"x")
    assert read_bounded(readers.parent, b"x") == [first]
    os.kill(first, signal.SIGKILL)
    (second,) = read_bounded(readers.parent, b"x")
    assert second != first
    healthy()


def test_a_file_that_nobody_waits_for_any_more_is_no_error() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    os.close(reading)
    with ours, tempfile.TemporaryFile() as shared:
        with theirs:
            server = subprocess.Popen(
                [sys.executable, "-m", "pipeline.source.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        socket.send_fds(ours, [pickle.dumps((readers.parent, (), BUDGET))], [shared.fileno(), writing])
        os.close(writing)
        eventually(lambda: os.fstat(shared.fileno()).st_size > 0)
        eventually(lambda: not Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text())
    assert server.communicate(timeout=PATIENCE_S)[1] == b""


def test_a_machine_that_starts_no_process_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    (process,) = read_bounded(readers.parent, b"x")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    os.kill(process, signal.SIGKILL)
    with pytest.raises(TransientError, match="cannot be started, or was killed"):
        load_pages(PAGE)
    monkeypatch.undo()
    healthy()


def test_a_script_without_guard_reads_a_file_and_leaves_no_process_behind(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_bytes(PAGE)
    (tmp_path / "script.py").write_text(
        "import os, pathlib\n"
        "from pipeline import load_pages\n"
        "from pipeline.source.bounded import read_bounded\n"
        "from tests.pipeline.source.readers import parent\n"
        "shape = load_pages(pathlib.Path('page.png').read_bytes())[0].pixels.shape\n"
        "print(shape, *read_bounded(parent, b'x'), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout.startswith("(300, 400, 3) "), done.stderr
    process = Path("/proc", done.stdout.split()[-1])
    eventually(lambda: not process.exists())


def test_a_page_that_is_no_file_starts_no_process() -> None:
    code = (
        "import os, pathlib, numpy, pipeline\n"
        "class Fake:\n"
        "    def digitize(self, page, **_): return page\n"
        "page = pipeline.PageImage(pixels=numpy.zeros((8, 8, 3), numpy.uint8))\n"
        "assert pipeline.digitize(page, Fake()) is page\n"
        "children = [path.read_text() for path in pathlib.Path('/proc/self/task').glob('*/children')]\n"
        "assert not any(children), children"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
