"""What the fuzzers begin with, and how it is mutated: input `number` of a seed is always the same bytes."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import cv2
import numpy as np
from PIL import Image
from pydicom import DataElement, Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    EncapsulatedPDFStorage,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)
from reportlab.pdfgen import canvas

from tests.acceptance.peers import secondary_capture
from tests.chaos.clients import order
from tests.fake_digitizer import page_pixels

MAXIMUM_BYTES = 1 << 20

# What parsers trip over: lengths, sequence and item tags, VRs, character sets, escapes, delimiters, numbers, paths.
_TOKENS = (
    *(b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0"),
    *(b"\xfe\xff\xdd\xe0\0\0\0\0", b"SQ\0\0\xff\xff\xff\xff", b"UN\0\0\xff\xff\xff\xff", b"OB\0\0\xff\xff\xff\xff"),
    *(b"FL", b"US", b"AT", b"DS", b"IS", b"PN", b"ISO_IR 100", b"\\ISO 2022 IR 87", b"\x1b$B", b"\x1b(J"),
    *(b"\\X1C\\", b"\\X0B\\", b"|", b"^", b"~", b"\\", b"&", b"\r", b"MSH|", b"PID|", b"\rORC|NW|1", b'""'),
    *(b"9" * 30, b"-1", b"1e309", b"nan", b"../../x", b"<script>", b"\xed\xa0\x80", b"\xc2\x85", b"\xe2\x80\xa8"),
)
_LENGTHS = (0, 1, 2, 65535, 65536, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


def mutated(target: str, seed: int, number: int, corpus: tuple[bytes, ...]) -> bytes:
    """Return input `number` of a target: something of its corpus, changed in one to twelve places."""
    rng = random.Random(f"{target} {seed} {number}")
    return mutate(rng, rng.choice(corpus), rng.choice(corpus))


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Return `data` changed in some places, here and there with pieces of `other`."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6, 12))):
        if not changed:
            changed = bytearray(b"\0")
        at = rng.randrange(len(changed))
        if rng.random() < 0.5:
            at = min(at, rng.randrange(900))  # headers
        rng.choice(_CHANGES)(rng, changed, at, other)
    return bytes(changed[:MAXIMUM_BYTES])


def _flip(rng: random.Random, data: bytearray, at: int, other: bytes) -> None:
    data[at] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, data: bytearray, at: int, other: bytes) -> None:
    data[at] = rng.randrange(256)


def _token(rng: random.Random, data: bytearray, at: int, other: bytes) -> None:
    token = rng.choice(_TOKENS)
    data[at : at + rng.choice((0, len(token)))] = token


def _cut(rng: random.Random, data: bytearray, at: int, other: bytes) -> None:
    del data[at : at + rng.choice((1, 2, 4, 8, 64, 1000))]


def _end(rng: random.Random, data: bytearray, at: int, other: bytes) -> None:
    if rng.random() < 0.3:
        del data[at:]


def _length(rng: random.Random, data: bytearray, at: int, other: bytes) -> None:
    length = rng.choice((*_LENGTHS, len(data), 2 * len(data), rng.getrandbits(32)))
    data[at : at + 4] = struct.pack(rng.choice("<>") + "I", length)


def _short_length(rng: random.Random, data: bytearray, at: int, other: bytes) -> None:
    data[at : at + 2] = struct.pack("<H", rng.choice((0, 1, 0x8000, 0xFFFF, rng.getrandbits(16))))


def _repeat(rng: random.Random, data: bytearray, at: int, other: bytes) -> None:
    data[at:at] = data[at : at + rng.choice((8, 64, 512))] * rng.choice((1, 3, 50))


def _splice(rng: random.Random, data: bytearray, at: int, other: bytes) -> None:
    begin, length = rng.randrange(max(1, len(other))), rng.choice((4, 16, 128, 1024))
    data[at : at + length] = other[begin : begin + length]


_CHANGES: tuple[Callable[[random.Random, bytearray, int, bytes], None], ...] = (
    _flip, _byte, _token, _token, _cut, _end, _length, _short_length, _repeat, _splice
)  # fmt: skip


def with_right_checksums(data: bytes) -> bytes:
    """Return a PNG whose checksums fit again, so that a mutation reaches the decoder; anything else as it is."""
    if not data.startswith(b"\x89PNG"):
        return data
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            break
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out)


# -- corpora ----------------------------------------------------------------------------------------------------------


def hl7_corpus() -> tuple[bytes, ...]:
    """Return messages of every kind that is taken, an answer, and a batch."""
    head = b"MSH|^~\\&|ADT|H|ECGGW|H|20260101||"
    orders = order("Z1", "Z1", "Z1"), order("Z2", "Z2", "Z2")
    return (
        orders[0],
        head
        + b"ADT^A08^ADT_A01|X1|P|2.5.1||||||UNICODE UTF-8\rEVN|A08|20260101\rPID|1||P1^^^H^MR~P2^^^X&1.2.3&ISO^PI||"
        b"M\xc3\x9cLLER^J\\T\\X^^^DR^^L~\xe4\xb8\xad^\xe6\x96\x87^^^^^L^I||19700101|F\rPV1|1|I\r",
        head + b"ADT^A40|X2|P|2.3.1\rPID|1||NEW^^^H^MR||A^B\rMRG|OLD^^^H^MR\r",
        b"MSH|^~\\&|RIS|H|E|H|20260101120000+0100||OMI^O23^OMI_O23|X3|P|2.5.1|||AL|AL||8859/1\rPID|1||P1\r"
        b"PV1||O||||||1234^DOC^TOR\rORC|NW|1^N^1.2^ISO|2||CM\rOBR|1|1|2|ECG^x\rIPC|Z9|RP|1.2.3.4|S\r",
        b"FHS|^~\\&|A|B\rBHS|^~\\&|A|B|C|D|20260101||||B1\r" + b"".join(orders) + b"BTS|2\rFTS|1\r",
        b"MSH|^~\\&|EHR|H|ECGGW|H|20260101||ACK^R01^ACK|1|P|2.5.1\rMSA|AE|M1\rERR|||204^Unknown key^HL70357|E\r",
    )


def sidecar_corpus() -> tuple[bytes, ...]:
    told = {
        "patient_id": "1",
        "patient_name": "A^B",
        "study_date": "20260101",
        "study_instance_uid": "1.2.3",
        "request_attributes_json": "[]",
    }
    return json.dumps(told).encode(), b'{"patient_id": "\\ud83d\\ude00", "study_time": "101010"}'


def name_corpus() -> tuple[bytes, ...]:
    return "MÜLLER_JÖRG".encode(), "MÜLLER".encode("latin-1"), b"abc\xff\xfe", b"123_20260101"


def picture_corpus() -> tuple[bytes, ...]:
    """Return small pictures in every format that is read, and a PDF."""
    pixels = page_pixels(seed=2)
    image = Image.fromarray(pixels)
    files = [cv2.imencode(suffix, pixels)[1].tobytes() for suffix in (".png", ".jpg", ".bmp", ".tiff")]
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "group4", "jpeg"):
        page = image.convert("1") if compression == "group4" else image
        files.append(_saved(page, "TIFF", save_all=True, append_images=[page, page], compression=compression))
    files += [_saved(image.convert("P"), "PNG"), _saved(image.convert("RGBA"), "PNG", dpi=(300, 300))]
    files += [_saved(image, "JPEG", progressive=True, dpi=(200, 200)), small_pdf()]
    return tuple(files)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def small_pdf() -> bytes:
    file = BytesIO()
    pdf = canvas.Canvas(file, pagesize=(200, 150))
    for _ in range(2):
        pdf.line(10, 10, 190, 140)
        pdf.drawString(20, 100, "ECG 25 mm/s 10 mm/mV")
        pdf.showPage()
    pdf.save()
    return file.getvalue() + b"\0" * (len(file.getvalue()) % 2)


def dicom_corpus() -> tuple[bytes, ...]:
    """Return DICOM files: transfer syntaxes, sequences, gray, palette, overlay, frames, an Encapsulated PDF."""
    makers = (
        _plain, _implicit, _with_requests, _gray, _palette, _with_overlay, _jpeg, _rle, _jpeg_2000, _frames, _document
    )  # fmt: skip
    return tuple(as_file(make()) for make in makers)


def as_file(dataset: Dataset) -> bytes:
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _plain() -> Dataset:
    return secondary_capture(
        page_pixels(seed=3),
        patient_id="Z1",
        patient_name="A^B",
        SOPInstanceUID="2.25.1",
        StudyInstanceUID="2.25.2",
        SeriesInstanceUID="2.25.3",
    )


def _implicit() -> Dataset:
    dataset = _plain()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return dataset


def _with_requests() -> Dataset:
    dataset, item, code = _plain(), Dataset(), Dataset()
    code.CodeValue = "1"
    item.AccessionNumber, item.ScheduledProcedureStepID = "Z1", "S"
    item.ScheduledProtocolCodeSequence = Sequence([code])
    dataset.RequestAttributesSequence = Sequence([item])
    return dataset


def _gray() -> Dataset:
    dataset = _plain()
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    del dataset.PlanarConfiguration
    dataset.WindowCenter, dataset.WindowWidth = "40", "80"
    dataset.PixelData = np.tile(np.arange(80, dtype=np.uint8), (60, 1)).tobytes()
    return dataset


def _palette() -> Dataset:
    dataset = _gray()
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", np.arange(256, dtype=np.uint16).tobytes())
    return dataset


def _with_overlay() -> Dataset:
    dataset = _plain()
    for tag, vr, value in (
        (0x60000010, "US", 60),
        (0x60000011, "US", 80),
        (0x60000040, "CS", "G"),
        (0x60000050, "SS", [1, 1]),
        (0x60000100, "US", 1),
        (0x60000102, "US", 0),
        (0x60003000, "OW", b"\x55" * 600),
    ):
        dataset[tag] = DataElement(tag, vr, value)
    return dataset


def _compressed(syntax: str, photometric: str, frame: bytes) -> Dataset:
    dataset = _plain()
    dataset.file_meta.TransferSyntaxUID, dataset.PhotometricInterpretation = syntax, photometric
    dataset.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    dataset["PixelData"].is_undefined_length = True
    return dataset


def _jpeg() -> Dataset:
    return _compressed(JPEGBaseline8Bit, "YBR_FULL_422", cv2.imencode(".jpg", page_pixels(seed=1))[1].tobytes())


def _jpeg_2000() -> Dataset:
    file = cv2.imencode(".jp2", page_pixels(seed=1))[1].tobytes()
    return _compressed(JPEG2000Lossless, "YBR_RCT", file[file.find(b"\xff\x4f\xff\x51") :])


def _rle() -> Dataset:
    dataset = _plain()
    dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


def _frames() -> Dataset:
    dataset = _plain()
    dataset.NumberOfFrames = 3
    dataset.PixelData = page_pixels(seed=1).tobytes() * 3
    return dataset


def _document() -> Dataset:
    dataset = _plain()
    dataset.SOPClassUID = EncapsulatedPDFStorage
    for keyword in ("PixelData", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"):
        delattr(dataset, keyword)
    dataset.EncapsulatedDocument = small_pdf()
    return dataset
