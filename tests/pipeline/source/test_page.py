import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import numpy.typing as npt
import pypdfium2
import pytest

from pipeline.errors import PageUnreadable
from pipeline.source.page import decode_pages, load_pages


def encode(suffix: str, pixels: npt.NDArray[np.generic]) -> bytes:
    return bytes(cv2.imencode(suffix, pixels)[1])


def half_red(height: int = 60, width: int = 80) -> npt.NDArray[np.uint8]:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 2] = 255  # BGR
    return pixels


def pdf(sizes: list[tuple[float, float]]) -> bytes:
    document = pypdfium2.PdfDocument.new()
    for size in sizes:
        document.new_page(*size)
    out = io.BytesIO()
    document.save(out)
    document.close()
    return out.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(chunk: bytes, data: bytes) -> bytes:
    return data[:33] + chunk + data[33:]  # after the signature (8) and IHDR (25)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".bmp"])
def test_colour_and_shape_survive(suffix: str) -> None:
    (page,) = load_pages(encode(suffix, half_red()))
    assert page.pixels.shape == (60, 80, 3)
    assert np.abs(page.pixels[30, 10].astype(int) - [255, 0, 0]).max() < 5
    assert page.pixels[30, 70].max() < 5
    assert page.px_per_mm_hint is None


def test_sixteen_bit_grey_keeps_its_range() -> None:
    grey = np.full((60, 80), 65535, np.uint16)
    grey[:, 40:] = 32896
    (page,) = load_pages(encode(".png", grey))
    assert page.pixels[0, 0].tolist() == [255, 255, 255]
    assert page.pixels[0, 79].tolist() == [128, 128, 128]


def test_transparency_is_white_paper() -> None:
    pixels = np.dstack([half_red(), np.full((60, 80), 255, np.uint8)])
    pixels[:, 40:, 3] = 0
    (page,) = load_pages(encode(".png", pixels))
    assert page.pixels[0, 0].tolist() == [255, 0, 0]
    assert page.pixels[0, 79].tolist() == [255, 255, 255]


def test_every_tiff_page_is_read_in_order() -> None:
    sheets = [half_red(), np.full((90, 50), 200, np.uint8), half_red(40, 70)]
    encoded = cv2.imencodemulti(".tiff", sheets)[1]
    pages = load_pages(bytes(encoded))
    assert [page.pixels.shape for page in pages] == [(60, 80, 3), (90, 50, 3), (40, 70, 3)]
    assert [page.page_number for page in pages] == [1, 2, 3]
    assert pages[1].pixels[5, 5].tolist() == [200, 200, 200]


@pytest.mark.parametrize(("dpi", "hint"), [(300, 300 / 25.4), (96, None), (72, None), (4000, None)])
def test_png_resolution_is_believed_only_where_a_scanner_could_have_it(dpi: int, hint: float | None) -> None:
    per_metre = round(dpi / 0.0254)
    physical = png_chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1))
    (page,) = load_pages(png_with(physical, encode(".png", half_red())))
    assert page.px_per_mm_hint == (None if hint is None else pytest.approx(hint, rel=1e-3))


def test_jfif_resolution_in_dots_per_inch() -> None:
    data = encode(".jpg", half_red())
    assert data[6:11] == b"JFIF\0"
    (page,) = load_pages(data[:13] + struct.pack(">BHH", 1, 200, 200) + data[18:])
    assert page.px_per_mm_hint == pytest.approx(200 / 25.4)


def test_a_fax_s_flat_pixels_become_square() -> None:
    flags = [cv2.IMWRITE_TIFF_RESUNIT, 2, cv2.IMWRITE_TIFF_XDPI, 204, cv2.IMWRITE_TIFF_YDPI, 98]
    (page,) = load_pages(bytes(cv2.imencode(".tiff", half_red(), flags)[1]))
    assert page.pixels.shape == (round(60 * 204 / 98), 80, 3)
    assert page.px_per_mm_hint == pytest.approx(204 / 25.4)
    assert page.pixels[100, 10, 0] == 255 and page.pixels[100, 70, 0] == 0


def test_flat_pixels_of_a_turned_jpeg_become_square_too() -> None:
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    data = encode(".jpg", half_red())
    data = data[:13] + struct.pack(">BHH", 1, 200, 100) + data[18:]
    after_jfif = 4 + int.from_bytes(data[4:6], "big")
    turned = data[:after_jfif] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[after_jfif:]
    (page,) = load_pages(turned)
    assert page.pixels.shape == (80, 120, 3)


@pytest.mark.parametrize(("x_dpi", "y_dpi"), [(300, 72), (96, 48)])
def test_resolutions_no_scanner_has_do_not_stretch_the_page(x_dpi: int, y_dpi: int) -> None:
    data = encode(".jpg", half_red())
    (page,) = load_pages(data[:13] + struct.pack(">BHH", 1, x_dpi, y_dpi) + data[18:])
    assert page.pixels.shape == (60, 80, 3)
    assert page.px_per_mm_hint is None


def test_jpeg_is_turned_as_exif_says() -> None:
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    data = encode(".jpg", half_red())
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    (page,) = load_pages(turned)
    assert page.pixels.shape == (80, 60, 3)
    assert page.pixels[10, 30, 0] > 200  # the left half came up
    assert page.pixels[70, 30, 0] < 50


def test_pdf_pages_have_an_exact_scale() -> None:
    pages = load_pages(pdf([(842, 595), (612, 792)]))
    for page, (height, width) in zip(pages, [(2480, 3509), (3300, 2550)], strict=True):
        assert abs(page.pixels.shape[0] - height) <= 1
        assert abs(page.pixels.shape[1] - width) <= 1
        assert page.px_per_mm_hint == pytest.approx(300 / 25.4, rel=5e-4)
    assert pages[0].pixels.min() == 255


def test_a_poster_sized_pdf_is_bounded_and_states_no_scale() -> None:
    (page,) = load_pages(pdf([(4000, 3000)]))
    assert page.pixels.shape[0] * page.pixels.shape[1] <= 25_200_000
    assert page.px_per_mm_hint is None


def bomb_png() -> bytes:
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def bomb_jpeg() -> bytes:
    data = encode(".jpg", half_red())
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", 60000, 60000) + data[frame + 9 :]


def bomb_tiff() -> bytes:
    data = bytearray(encode(".tiff", half_red()))
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    for entry in range(count):
        tag, kind = struct.unpack_from(order + "HH", data, at + 2 + 12 * entry)
        if tag in (256, 257):
            struct.pack_into(order + ("H" if kind == 3 else "I"), data, at + 10 + 12 * entry, 60000)
    return bytes(data)


def bomb_bmp() -> bytes:
    data = bytearray(encode(".bmp", half_red()))
    struct.pack_into("<ii", data, 18, 30000, 30000)
    return bytes(data)


@pytest.mark.parametrize("make", [bomb_png, bomb_jpeg, bomb_tiff, bomb_bmp])
def test_a_bomb_is_refused_before_it_is_decoded(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make()  # type: ignore[operator]

    def decoded(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decoded)
    monkeypatch.setattr(cv2, "imdecodemulti", decoded)
    with pytest.raises(PageUnreadable, match=r"claims \d+ x \d+ pixels; the limit is 100 million"):
        list(decode_pages(data))


def test_opencv_refuses_a_bomb_itself_whatever_is_imported_first() -> None:
    """A second lock: OpenCV reads its limit when it is imported, so the limit must be set before any module does."""
    code = (
        "import pipeline.sheet.paper, cv2, numpy, sys\n"
        "data = numpy.frombuffer(bytes.fromhex(sys.argv[1]), numpy.uint8)\n"
        "try:\n    cv2.imdecode(data, cv2.IMREAD_COLOR)\n"
        "except cv2.error as error:\n    assert 'CV_IO_MAX_IMAGE_PIXELS' in str(error), error\n"
        "else:\n    sys.exit('not refused')"
    )
    header = struct.pack(">4sIIBBBBB", b"IHDR", 20_000, 6_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    scan = zlib.compress(bytes(100))
    body = struct.pack(">I", len(scan)) + b"IDAT" + scan + struct.pack(">I", zlib.crc32(b"IDAT" + scan))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk + body
    done = subprocess.run([sys.executable, "-c", code, bomb.hex()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".bmp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_half_a_file_is_no_page(suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    data = encode(suffix, noise)
    with pytest.raises(PageUnreadable, match=r"cut short|damaged"):
        load_pages(data[: int(share * len(data))])


def test_a_directory_beyond_every_file_is_no_page() -> None:
    big_tiff = b"II+\0" + struct.pack("<HHQ", 8, 0, (1 << 64) - 1)
    with pytest.raises(PageUnreadable, match="cut short"):
        load_pages(big_tiff)


ENCRYPTED_PDF = b"""%%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>endobj
4 0 obj<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>endobj
trailer<</Root 1 0 R/Encrypt 4 0 R/ID[<00112233445566778899aabbccddeeff><00112233445566778899aabbccddeeff>]>>
%%%%EOF""" % (b"ab" * 32, b"cd" * 32)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, this is a letter", "this is no PNG, JPEG, TIFF, BMP or PDF"),
        (b"\0\0\0\x18ftypheic" + bytes(200), "export it as JPEG"),
        (bytes(128) + b"DICM" + bytes(50), "DICOM object"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "export it as PNG"),
        (ENCRYPTED_PDF, "the PDF is encrypted"),
        (pdf([]), "the PDF is damaged or has no page"),
        (b"%PDF-1.7\nnonsense", "the PDF is damaged or has no page"),
        (encode(".png", half_red(20, 20)), "too small to hold an ECG"),
    ],
)
def test_bad_files_say_why_in_words(data: bytes, message: str) -> None:
    with pytest.raises(PageUnreadable, match=message) as caught:
        load_pages(data, "page.png")
    assert str(caught.value).startswith("page.png: ")
