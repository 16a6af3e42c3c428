"""Bytes of a file to pages: PNG, JPEG, TIFF (every page), BMP and PDF (every page) become `PageImage`.

The first bytes of a file decide its format, never its name.  Size and resolution are read from the header before
anything is decoded, so that a small file that claims gigapixels, a thousand pages or a thousand scans is refused at no
cost.  A child process decodes (`bounded`): what the header does not show costs a bounded time and memory, and no more.
A truncated picture is refused, too: a decoder would fill the rest with grey, and half an ECG looks like a whole one.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pypdfium2

from pipeline.datatypes import BUDGET, ByteArray, PageImage
from pipeline.errors import PageUnreadable
from pipeline.source.bounded import read_bounded
from pipeline.source.strokes import read_strokes

MIN_SIDE_PX = 32

MM_PER_INCH = 25.4
POINTS_PER_INCH = 72.0

_JPEG_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # after a scan's data: no stuffed byte, no restart
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


@dataclass(frozen=True, slots=True)
class _Header:
    """What a page claims before it is decoded."""

    width: int
    height: int
    px_per_mm: float | None
    index: int = 0  # of the page in the file
    aspect: float = 1.0  # a pixel's height over its width: a fax's is 2 at standard resolution
    pixel_bytes: int = 3  # as stored, all channels

    @property
    def area(self) -> float:
        """Pixels of the page, once they are square."""
        return self.width * self.height * max(self.aspect, 1 / self.aspect)


def _resolution(x_per_unit: float, y_per_unit: float, unit_mm: float | None) -> tuple[float | None, float]:
    """Return pixels per millimetre of the denser side, and a pixel's aspect; (None, 1) if no scanner has such values.

    Accepted are 100 to 1200 dpi, and half of that along one side: faxes have 204 x 98.  Software that does not know the
    resolution writes 72 or 96 dpi.
    """
    dense, sparse = max(x_per_unit, y_per_unit), min(x_per_unit, y_per_unit)
    if unit_mm is None or not 100 <= dense * MM_PER_INCH / unit_mm <= 1200 or sparse < 0.45 * dense:
        return None, 1.0
    return dense / unit_mm, x_per_unit / y_per_unit if dense > 1.02 * sparse else 1.0


def _png_header(data: bytes) -> list[_Header]:
    """Walk the chunks (PNG 1.2, section 4): IHDR for the size, pHYs for the resolution, IEND for completeness."""
    width, height, px_per_mm, aspect, pixel_bytes, at = 0, 0, None, 1.0, 3, 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack_from(">IIBB", data, at + 8)
            pixel_bytes = {0: 1, 2: 3}.get(colour, 4) * (2 if depth == 16 else 1)
        elif kind == b"pHYs" and length == 9:
            x, y, unit = struct.unpack_from(">IIB", data, at + 8)
            px_per_mm, aspect = _resolution(x, y, 1000.0 if unit == 1 else None)
        elif kind == b"IEND":
            return [_Header(width, height, px_per_mm, aspect=aspect, pixel_bytes=pixel_bytes)]
        at += 12 + length
    if width * height <= BUDGET.page_pixels:
        raise PageUnreadable("the PNG is cut short")
    return [_Header(width, height, px_per_mm)]


def _jpeg_header(data: bytes) -> list[_Header]:
    """Walk the segments (ITU T.81, annex B) to the scan: frame size, JFIF density, and an end-of-image marker."""
    size: tuple[int, int] | None = None
    px_per_mm, aspect, at = None, 1.0, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker == 0xE0 and data[at + 4 : at + 9] == b"JFIF\0":
            unit, x, y = struct.unpack_from(">BHH", data, at + 11)
            px_per_mm, aspect = _resolution(x, y, {1: MM_PER_INCH, 2: 10.0}.get(unit))
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = (width, height)
        elif marker == _START_OF_SCAN and size is not None:
            if data.rfind(b"\xff\xd9") < at and size[0] * size[1] <= BUDGET.page_pixels:
                raise PageUnreadable("the JPEG is cut short")
            _check_scans(data, at)
            return [_Header(*size, px_per_mm, aspect=aspect)]
        at += 2 + length
    raise PageUnreadable("the JPEG is cut short")


def _check_scans(data: bytes, at: int) -> None:
    """Refuse a JPEG whose first scan begins at `at`, if more scans follow than the budget has."""
    if data.count(b"\xff\xda") <= BUDGET.scans:  # also counts what is no marker, or belongs to a picture behind it
        return
    scans, marker = 0, _START_OF_SCAN
    while marker != _END_OF_IMAGE:
        scans += marker == _START_OF_SCAN
        if scans > BUDGET.scans:
            raise PageUnreadable(f"the JPEG has more than {BUDGET.scans} scans")
        following = _JPEG_MARKER.search(data, at + 2 + struct.unpack_from(">H", data, at + 2)[0])
        if following is None:
            return
        marker, at = following[1][0], following.start(1) - 1


def _bmp_header(data: bytes) -> list[_Header]:
    """Read the BITMAPINFOHEADER (or its 12-byte predecessor)."""
    size, offset_bits = struct.unpack_from("<I", data, 14)[0], struct.unpack_from("<I", data, 10)[0]
    if size == 12:
        width, height, depth = *struct.unpack_from("<HH", data, 18), struct.unpack_from("<H", data, 24)[0]
        return [_Header(width, height, None)]
    width, height, _, depth, compression, _, x, y = struct.unpack_from("<iiHHIIii", data, 18)
    width, height = abs(width), abs(height)
    stride = (width * depth + 31) // 32 * 4
    if compression == 0 and width * height <= BUDGET.page_pixels and len(data) < offset_bits + stride * height:
        raise PageUnreadable("the BMP is cut short")
    px_per_mm, aspect = _resolution(x, y, 1000.0)
    return [_Header(width, height, px_per_mm, aspect=aspect)]


@dataclass(frozen=True, slots=True)
class _TiffFormat:
    """Byte order and field sizes of a TIFF file (TIFF 6.0, section 2) or BigTIFF."""

    order: str
    big: bool

    def entries(self, data: bytes, at: int) -> tuple[dict[int, float], int]:
        """Read the numeric tags of the directory at `at`, first value each, and the offset of the next directory."""
        count_format, entry_size, offset_format = ("Q", 20, "Q") if self.big else ("H", 12, "I")
        (count,) = struct.unpack_from(self.order + count_format, data, at)
        at += struct.calcsize(count_format)
        tags: dict[int, float] = {}
        for _ in range(min(count, 4096)):
            tag, kind, values = struct.unpack_from(self.order + "HH" + offset_format, data, at)
            value_at, room = at + 4 + struct.calcsize("=" + offset_format), struct.calcsize("=" + offset_format)
            if values * {3: 2, 4: 4, 5: 8}.get(kind, 0) > room:
                (value_at,) = struct.unpack_from(self.order + offset_format, data, value_at)
            if kind == 3:
                tags[tag] = struct.unpack_from(self.order + "H", data, value_at)[0]
            elif kind == 4:
                tags[tag] = struct.unpack_from(self.order + "I", data, value_at)[0]
            elif kind == 5:  # RATIONAL
                numerator, denominator = struct.unpack_from(self.order + "II", data, value_at)
                tags[tag] = numerator / denominator if denominator else 0.0
            at += entry_size
        return tags, struct.unpack_from(self.order + offset_format, data, at)[0]


def _tiff_header(data: bytes) -> list[_Header]:
    """Walk the image file directories; reduced-resolution copies (NewSubfileType bit 0) are no pages."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    layout = _TiffFormat(order, big)
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    headers: list[_Header] = []
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        _check_pages(len(seen))
        tags, at = layout.entries(data, at)
        if int(tags.get(254, 0)) & 1:
            continue
        unit_mm = {2: MM_PER_INCH, 3: 10.0}.get(int(tags.get(296, 2)))
        px_per_mm, aspect = _resolution(tags.get(282, 0.0), tags.get(283, 0.0), unit_mm)
        pixel_bytes = math.ceil(tags.get(258, 1) / 8) * int(tags.get(277, 1))
        size = int(tags.get(256, 0)), int(tags.get(257, 0))
        headers.append(_Header(*size, px_per_mm, len(seen) - 1, aspect, pixel_bytes))
    return headers


def _check_pages(count: int) -> None:
    """Refuse a file with more pages than the budget has."""
    if count > BUDGET.pages:
        raise PageUnreadable(f"the file has more than {BUDGET.pages} pages")


def _check_size(headers: list[_Header]) -> None:
    """Refuse what is unsafe or useless to decode."""
    for header in headers:
        if header.area > BUDGET.page_pixels:
            raise PageUnreadable(
                f"the picture claims {header.width} x {header.height} pixels; "
                f"the limit is {BUDGET.page_pixels // 1_000_000} million"
            )
        size = header.width * header.height * header.pixel_bytes
        if size > BUDGET.page_bytes:
            raise PageUnreadable(
                f"the picture has {size // 1_000_000} million bytes once it is decoded; "
                f"the limit is {BUDGET.page_bytes // 1_000_000} million"
            )
        if min(header.width, header.height) < MIN_SIDE_PX:
            raise PageUnreadable(f"a picture of {header.width} x {header.height} pixels is too small to hold an ECG")
    total = round(sum(header.area for header in headers))
    if total > BUDGET.pixels:
        raise PageUnreadable(
            f"the {len(headers)} pages have {total // 1_000_000} million pixels together; "
            f"the limit is {BUDGET.pixels // 1_000_000} million"
        )


def _to_rgb(decoded: npt.NDArray[np.generic], *, band: int = 256) -> ByteArray:
    """Turn what OpenCV decoded (grey, BGR or BGRA, any depth) to 8-bit RGB, transparent parts white.

    Transparency is applied `band` rows at a time: it takes 32 bytes a pixel.
    """
    pixels = np.asarray(decoded)
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    elif pixels.dtype != np.uint8:  # float TIFF: its own range is its meaning
        low, high = float(np.nanmin(pixels)), float(np.nanmax(pixels))
        pixels = np.nan_to_num((pixels - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8)
    if pixels.shape[2] == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    if not pixels[..., 3].any():  # 32-bit BMP and some exports leave the channel empty
        return np.ascontiguousarray(pixels[..., 2::-1])
    rgb = np.empty((*pixels.shape[:2], 3), np.uint8)
    for top in range(0, len(pixels), band):
        part = pixels[top : top + band]
        alpha = part[..., 3:4].astype(np.float32) / 255.0
        rgb[top : top + band] = np.round(part[..., 2::-1].astype(np.float32) * alpha + 255.0 * (1.0 - alpha))
    return rgb


def _decode(data: bytes, kind: str, header: _Header) -> ByteArray:
    """Decode one page: JPEG in colour, which applies EXIF orientation; others unchanged, which keeps transparency."""
    buffer = np.frombuffer(data, np.uint8)
    try:
        if kind == "TIFF":
            _, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED, range=(header.index, header.index + 1))
            decoded = pages[0] if pages else None
        else:
            decoded = cv2.imdecode(buffer, cv2.IMREAD_COLOR if kind == "JPEG" else cv2.IMREAD_UNCHANGED)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise PageUnreadable(f"the {kind} is damaged")
    if sorted(decoded.shape[:2]) != sorted((header.height, header.width)):
        raise PageUnreadable(f"the {kind} contradicts its own header")
    return _to_rgb(decoded)


def _picture_pages(data: bytes, kind: str, read_header: Callable[[bytes], list[_Header]]) -> Iterator[PageImage]:
    """Read the header, check the size, decode: one `PageImage` a page."""
    try:
        headers = read_header(data)
    except (struct.error, IndexError, OverflowError) as error:  # BigTIFF: an offset may have 64 bits
        raise PageUnreadable(f"the {kind} is cut short") from error
    if not headers:
        raise PageUnreadable(f"the {kind} holds no page")
    _check_size(headers)
    for number, header in enumerate(headers, 1):
        pixels = _decode(data, kind, header)
        turned = pixels.shape[0] != header.height
        pixels = _square(pixels, 1 / header.aspect if turned else header.aspect)
        yield PageImage(pixels=pixels, page_number=number, px_per_mm_hint=header.px_per_mm)


def _square(pixels: ByteArray, aspect: float) -> ByteArray:
    """Return a picture (h, w, 3) with square pixels, as dense as the denser side was."""
    if aspect == 1.0:
        return pixels
    size = (round(pixels.shape[1] / min(aspect, 1.0)), round(pixels.shape[0] * max(aspect, 1.0)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _pdf_scale(width_pt: float, height_pt: float, dpi: float, max_pixels: int) -> float:
    """Pixels a point: `dpi`, or less where the page would have more than `max_pixels`."""
    return min(dpi / POINTS_PER_INCH, math.sqrt(max_pixels / (width_pt * height_pt)))


def _pdf_pages(data: bytes, *, dpi: float = 300.0, max_pixels: int = 25_000_000) -> Iterator[PageImage]:
    """Render every page at `dpi` (12 px/mm: a hair line stays two pixels wide), at most `max_pixels` each.

    The scale is exact where the page has the size of paper; a page of metres is a photo, one pixel a point.
    """
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        # PDFium's error code is stale where a file without pages is refused: the trailer says it better.
        locked = b"/Encrypt" in data
        reason = "is encrypted; a copy without password is needed" if locked else "is damaged or has no page"
        raise PageUnreadable(f"the PDF {reason}") from error
    try:
        _check_pages(len(document))
        sizes = [document.get_page_size(index) for index in range(len(document))]
        if not sizes:
            raise PageUnreadable("the PDF is damaged or has no page")
        if any(min(size) < 1 for size in sizes):
            raise PageUnreadable("a page of the PDF has no size")
        scales = [_pdf_scale(width, height, dpi, max_pixels) for width, height in sizes]
        _check_size(
            [_Header(math.ceil(w * s), math.ceil(h * s), None) for (w, h), s in zip(sizes, scales, strict=True)]
        )
        for index, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
            sheet = document[index]
            strokes = read_strokes(sheet, *(math.ceil(side * scale) for side in size))
            pixels = np.array(sheet.render(scale=scale, rev_byteorder=True).to_numpy())
            longest_mm = max(size) / POINTS_PER_INCH * MM_PER_INCH
            px_per_mm = pixels.shape[1] / size[0] * POINTS_PER_INCH / MM_PER_INCH if longest_mm <= 600 else None
            rgb = pixels[..., :3] if pixels.ndim == 3 and pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, 2)
            yield PageImage(
                pixels=np.ascontiguousarray(rgb),
                page_number=index + 1,
                px_per_mm_hint=px_per_mm,
                strokes=strokes,
            )
    except pypdfium2.PdfiumError as error:
        raise PageUnreadable("a page of the PDF is damaged") from error
    finally:
        document.close()


def _foreign(data: bytes) -> str:
    """Name what the bytes are instead, as far as it helps the person who sent them."""
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"hevc"):
        return "HEIC photos are not read; export it as JPEG"
    if data[128:132] == b"DICM":
        return "this is a DICOM object; send it to the gateway"
    if data[:4] == b"GIF8" or data[8:12] == b"WEBP":
        return "GIF and WebP are not read; export it as PNG"
    return "this is no PNG, JPEG, TIFF, BMP or PDF"


def load_pages(data: bytes, name: str = "") -> list[PageImage]:
    """Decode every page of a file.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        Put in front of the error message, if given.

    Returns
    -------
    list of PageImage
        At least one, in the file's order; RGB, turned as EXIF says, over white where transparent.

    Raises
    ------
    PageUnreadable
        Empty, unknown, damaged, encrypted, cut short, or more than `BUDGET` allows.
    """
    try:
        return read_bounded(decode_pages, data)
    except PageUnreadable as error:
        raise PageUnreadable(f"{name}: {error}" if name else str(error)) from error


def decode_pages(data: bytes) -> Iterator[PageImage]:
    """Decode the pages of a file one after the other, in this process: without bounds of time and memory."""
    if not data:
        raise PageUnreadable("the file is empty")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _picture_pages(data, "PNG", _png_header)
    if data.startswith(b"\xff\xd8\xff"):
        return _picture_pages(data, "JPEG", _jpeg_header)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _picture_pages(data, "TIFF", _tiff_header)
    if data.startswith(b"BM"):
        return _picture_pages(data, "BMP", _bmp_header)
    if b"%PDF-" in data[:1024]:
        return _pdf_pages(data)
    raise PageUnreadable(_foreign(data))
