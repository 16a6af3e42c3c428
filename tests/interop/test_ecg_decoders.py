"""Labels and amplitudes of our waveform objects as independent decoders read them, against the record itself.

OHIF's decoder (npm @cornerstonejs/metadata), PixelMed's (Debian libpixelmed-java), DCMTK's dump and GDCM's;
dicom-ecg-plot (PyPI) only draws, and its table of lead names is wrong, so of it the shape alone is looked at.  All read
the first multiplex group only.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from gateway.dicom.objects.documents import (
    REJECTED_FOR_QUALITY,
    encapsulated_report,
    encode_document,
    overlay_capture,
    rejection_note,
)
from gateway.dicom.objects.waveform import build_waveform, encode
from gateway.results.report import build_report
from gateway.settings import ObjectSettings
from pipeline import LEADS, EcgRecord, Lead
from tests.gateway.dicom.samples import COLUMNS, NOW, make_page, make_record, page_pixels
from tests.interop.peers import run
from tests.pipeline.signal.test_heart_rate import ecg
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.interop
HERE = Path(__file__).parent
JARS = ("/usr/share/java/pixelmed.jar", "/usr/share/java/commons-codec.jar")

Channels = dict[str, np.ndarray]  # lead -> (n_samples,) uV


def waveform(record: EcgRecord, sop_class: str = "12-lead") -> Dataset:
    page = make_page(record, layout_name="3x4+1R", columns=(*COLUMNS, (Lead.II,)))
    return build_waveform(page, sop_class, ObjectSettings())  # type: ignore[arg-type]


def spoken(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_ohif(path: Path) -> Channels:
    node = shutil.which("node")
    if node is None or not (HERE / "node" / "node_modules" / "@cornerstonejs" / "metadata").is_dir():
        pytest.skip(f"@cornerstonejs/metadata is not installed: npm install --prefix {HERE / 'node'}")
    said = spoken([node, str(HERE / "node" / "ecg_module.mjs"), str(path)])
    module = json.loads(said[said.index('{"labels"') :])
    assert module["samplingFrequency"] == 500
    labels = [label.removeprefix("Lead ") for label in module["labels"]]
    return {label: np.array(samples) for label, samples in zip(labels, module["samples"], strict=True)}  # 1 uV a count


def by_pixelmed(path: Path) -> Channels:
    java = shutil.which("java")
    if java is None or shutil.which("javac") is None or not all(Path(jar).exists() for jar in JARS):
        pytest.skip("libpixelmed-java and a JDK are not installed: apt-get install libpixelmed-java")
    interval, *lines = spoken([java, "-cp", ":".join(JARS), str(HERE / "EcgChannels.java"), str(path)]).splitlines()
    assert float(interval) == 2.0  # ms
    channels = {}
    for line in lines:
        name, scale_mv, *samples = line.split()
        channels[name.rpartition("_")[2]] = np.array(samples, float) * float(scale_mv) * 1000
    return channels


def by_dcmtk(path: Path) -> Channels:
    text = run("dcmdump", "+L", "-Un", path)
    labels = re.findall(r"\(003a,0203\) SH \[([^\]]*?) *\]", text)
    data = re.findall(r"\(5400,1010\) OW ([0-9a-f\\]+)", text)[0]
    counts = np.array([int(word, 16) for word in data.split("\\")], np.uint16).view(np.int16)
    first = int(re.findall(r"\(003a,0005\) US (\d+)", text)[0])
    return dict(zip(labels[:first], counts.reshape(-1, first).T, strict=True))


DECODERS = {"OHIF": by_ohif, "PixelMed": by_pixelmed, "DCMTK": by_dcmtk}


def agree(found: Channels, record: EcgRecord, leads: tuple[Lead, ...], window: slice) -> None:
    """Every lead, in order, within 1 uV; a gap is 0, and a measured 0 is 1 uV."""
    assert list(found) == [lead.value for lead in leads]
    for lead in leads:
        expected = 1000.0 * record.signal_mv[LEADS.index(lead), window]
        printed = ~np.isnan(expected)
        assert np.all(found[lead.value][~printed] == 0)
        difference = np.abs(found[lead.value] - expected)[printed]
        zero = np.abs(expected[printed]) <= 0.5
        assert difference[~zero].max() <= 1.0
        assert np.allclose(found[lead.value][printed][zero], 1.0)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("sop_class", ["12-lead", "general"])
@pytest.mark.parametrize("layout", ["3x4+II", "6x2", "12x1"])
def test_decoders_agree_with_the_record(tmp_path: Path, layout: str, sop_class: str, name: str) -> None:
    decode: Callable[[Path], Channels] = DECODERS[name]
    record = make_record(layout)
    record.signal_mv[0, 10] = 0.0
    record.signal_mv[0, 11:13] = (-3.2, 3.2)
    path = tmp_path / "w.dcm"
    path.write_bytes(encode(waveform(record, sop_class)))
    agree(decode(path), record, LEADS, slice(None))


@pytest.mark.parametrize("name", DECODERS)
def test_of_several_groups_the_first_column_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "w.dcm"
    path.write_bytes(encode(waveform(make_record("3x4+II"), "12-lead-groups")))
    agree(DECODERS[name](path), make_record("3x4+II"), COLUMNS[0], slice(0, 1250))


def test_gdcm_reads_the_labels_in_order(tmp_path: Path) -> None:
    path = tmp_path / "w.dcm"
    path.write_bytes(encode(waveform(make_record())))
    labels = re.findall(r"\(003a,0203\) \S* ?SH.*?(?:\[|')?(I{1,3}|aV[RLF]|V[1-6]) ?(?:\]|')?\s", run("gdcmdump", path))
    assert labels == [lead.value for lead in LEADS]


def test_dicom_ecg_plot_draws_all_rows(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("dicom-ecg-plot")
    if not program.exists():
        pytest.skip("dicom-ecg-plot is not installed: pip install dicom-ecg-plot")
    drawn = []
    record = ecg([0.8] * 12)
    for number, signal in enumerate((record.signal_mv, np.zeros_like(record.signal_mv))):
        path, picture = tmp_path / f"{number}.dcm", tmp_path / f"{number}.png"
        path.write_bytes(encode(waveform(replace(record, signal_mv=signal))))
        spoken([str(program), str(path), "-o", str(picture), "--layout", "12x1"])
        drawn.append(np.asarray(Image.open(picture).convert("L")) < 90)
    ours, flat = drawn
    assert ours.shape == flat.shape
    busy = np.flatnonzero((ours & ~flat).sum(axis=1))
    assert busy.max() - busy.min() > 0.6 * ours.shape[0]  # traces from the top to the bottom, none out of the page
    assert np.count_nonzero(ours) > 1.2 * np.count_nonzero(flat)


# ---- dciodvfy on every kind of object


def overlay_png() -> bytes:
    buffer = BytesIO()
    Image.fromarray(page_pixels()).save(buffer, "PNG")
    return buffer.getvalue()


def made_objects() -> dict[str, bytes]:
    record, objects = ecg([0.8] * 12), ObjectSettings()
    wave = waveform(record)
    page = make_page(
        record,
        layout_name="3x4+1R",
        waveform_sop_class_uid=str(wave.SOPClassUID),
        waveform_sop_instance_uid=str(wave.SOPInstanceUID),
        overlay_png=overlay_png(),
    )
    report = encapsulated_report(replace(page, report_pdf=build_report(replace(page, layout_name="12x1"))), objects)
    overlay = overlay_capture(page, objects)
    note = rejection_note([wave, report, overlay], REJECTED_FOR_QUALITY, number=1, created_at=NOW, objects=objects)
    return {
        "TwelveLeadECG": encode(wave),
        "EncapsulatedPDF": encode_document(report),
        "SCImage": encode_document(overlay),
        "KeyObjectSelectionDocument": encode_document(note),
    }


@pytest.mark.parametrize("kind", ["TwelveLeadECG", "EncapsulatedPDF", "SCImage", "KeyObjectSelectionDocument"])
def test_dciodvfy_finds_no_error_in_any_kind(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "o.dcm"
    path.write_bytes(made_objects()[kind])
    said = run("dciodvfy", "-new", path)
    assert kind in said
    assert "Error" not in said, said
    assert "Warning" not in said, said


def test_dciodvfy_knows_no_time_offset_of_groups_and_finds_nothing_else(tmp_path: Path) -> None:
    """The Standard says that the offset "may be present otherwise" (C.10.9.1.1); dciodvfy says that it may not."""
    path = tmp_path / "o.dcm"
    path.write_bytes(encode(waveform(make_record("3x4+II"), "12-lead-groups")))
    said = [
        line for line in run("dciodvfy", "-new", path, check=False).splitlines() if re.search("Error|Warning", line)
    ]
    assert len(said) == 5
    assert all("MultiplexGroupTimeOffset" in line for line in said)


def test_dcmtk_takes_the_pdf_out_again(tmp_path: Path) -> None:
    path, pdf = tmp_path / "o.dcm", tmp_path / "o.pdf"
    path.write_bytes(made_objects()["EncapsulatedPDF"])
    run("dcm2pdf", path, pdf)
    assert pdf.read_bytes() == dcmread(path).EncapsulatedDocument
