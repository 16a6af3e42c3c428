import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid

from pipeline import LEADS, Lead
from pipeline.datatypes import FloatArray
from pipeline.evaluation.metrics import score_lead
from pipeline.evaluation.truth import PageTruth, Truth, printed_as, read_truth, to_truth_rate
from pipeline.layout.file import load_layouts
from pipeline.training.recordings.simulate import simulate_ecg

ECG = simulate_ecg(np.random.default_rng(1), disease="none")
CODES = ("2:1", "2:2", "2:61", "2:62", "2:63", "2:64", "2:3", "2:4", "2:5", "2:6", "2:7", "2:8")


def page(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((20, 30), 255, np.uint8))
    return path


def at_rate(fs: float) -> FloatArray:
    """The same ten seconds recorded at another rate: a sum of sines has a value at every time."""
    t = np.arange(round(10 * fs)) / fs
    rows = [np.sin(2 * np.pi * (3 + k) * t + k) + 0.3 * np.sin(2 * np.pi * 37 * t) for k in range(12)]
    return np.array(rows, np.float32)


def test_an_archive_s_page_is_found_by_its_name_s_beginning(tmp_path: Path) -> None:
    counts = np.round(ECG * 1000).astype(np.int16)
    counts[0, 1250:] = -32768
    info = [{"id": "00017", "layout": "3x4", "paper_speed_mm_per_s": 25.0, "gain_mm_per_mv": 5.0}]
    np.savez(tmp_path / "truth.npz", r00017=counts, info=np.array(json.dumps(info)))
    shown = page(tmp_path / "scans" / "00017_hr-0.png")
    page(tmp_path / "99_hr.png")
    truth = read_truth(tmp_path / "truth.npz")
    found = truth.find(Path("photos/00017_hr-0.jpg"))
    assert np.isfinite(found.signal_mv[0]).sum() == 1250
    assert found.signal_mv[1] == pytest.approx(ECG[1], abs=6e-4)
    assert (found.layout, found.paper_speed_mm_per_s, found.gain_mm_per_mv) == ("3x4", 25.0, 5.0)
    assert truth.pages == (shown,) and truth.kind(shown) == "scans"
    with pytest.raises(KeyError, match="no truth for id 99"):
        truth.find(Path("99_hr.jpg"))


def test_an_archive_without_a_word_on_its_pages_will_do_and_one_without_signals_will_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", r1=np.zeros((12, 5000), np.int16), info=np.array("a note"))
    assert read_truth(tmp_path / "a.npz").find(Path("1.png")).layout == ""
    np.savez(tmp_path / "empty.npz", info=np.array("a note"))
    with pytest.raises(ValueError, match="no array"):
        read_truth(tmp_path / "empty.npz")
    np.savez(tmp_path / "odd.npz", r1=np.zeros((8, 5000), np.int16))
    with pytest.raises(ValueError, match=r"must be \(12, n\) int16"):
        read_truth(tmp_path / "odd.npz")


def test_further_pages_of_a_file_may_have_a_truth_of_their_own() -> None:
    records = {
        name: lambda k=k: PageTruth(signal_mv=np.full((12, 9), k, np.float32))
        for k, name in enumerate(("7", "7-p2", "8"))
    }
    truth = Truth(records=records)

    def found(path: str, page_number: int = 1) -> float:
        return float(truth.find(Path(path), page_number).signal_mv[0, 0])

    assert found("7_fax.tiff") == 0 and found("7_fax.tiff", 2) == 1 and found("7_fax.tiff", 3) == 0
    assert found("7_fax-p2.csv") == 1 and found("8_fax-p2.csv") == 2


def test_a_competition_folder_is_read(tmp_path: Path) -> None:
    signal = at_rate(250)
    signal[0, 625:] = np.nan
    (tmp_path / "train.csv").write_text("id,fs,sig_len\n1006427285,250,2500\n")
    folder = tmp_path / "1006427285"
    folder.mkdir()
    rows = [",".join("" if np.isnan(v) else f"{v:.6f}" for v in column) for column in signal.T]
    (folder / "1006427285.csv").write_text("\n".join([",".join(LEADS), *rows]) + "\n")
    pages = [page(folder / f"1006427285-{kind}.png") for kind in ("0001", "0005")]
    truth = read_truth(tmp_path)
    assert truth.pages == tuple(pages)
    assert [truth.kind(path) for path in pages] == ["0001 render", "0005 phone photo"]
    assert truth.kind(Path("out/1006427285-0005-p2.csv")) == "0005 phone photo"
    found = truth.find(pages[1]).signal_mv
    assert found.shape == (12, 5000)
    assert np.isfinite(found[0]).sum() == pytest.approx(1250, abs=1) and np.isnan(found[0, 1300:]).all()
    score = score_lead(at_rate(500)[3], found[3], 500.0)
    assert score is not None and score.snr_db > 40 and score.shift_ms == 0
    (folder / "1006427285.csv").write_text("I,II\n0,1\n")
    with pytest.raises(ValueError, match="no column for III"):
        truth.find(pages[0])


@pytest.mark.parametrize("fs", [250, 256, 512, 1000, 1025])
def test_rates_are_changed_without_loss_and_gaps_stay(fs: float) -> None:
    signal = at_rate(fs)
    signal[5, : round(2.5 * fs)] = np.nan
    signal[5, round(5 * fs) :] = np.nan
    out = to_truth_rate(signal, fs)
    assert out.shape == (12, 5000)
    assert np.nanmax(np.abs(out[4] - at_rate(500)[4])[50:-50]) < 0.01
    known = np.flatnonzero(np.isfinite(out[5]))
    assert abs(known[0] - 1250) <= 1 and abs(known[-1] - 2499) <= 1
    middle = slice(1300, 2450)
    assert np.abs(out[5] - at_rate(500)[5])[middle].max() < 0.01


def test_wfdb_records_beside_images_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "00000"
    shown = page(folder / "00001_hr-0.png")
    counts = np.round(at_rate(1000) * 1000).astype("<i2")
    (folder / "00001_hr.dat").write_bytes(counts.T.tobytes())
    lines = [f"00001_hr.dat 16 1000.0(0)/mV 16 0 0 0 0 {lead}" for lead in LEADS]
    head = ["00001_hr 12 1000 10000", *lines, "#Image: 00001_hr-0.png"]
    (folder / "00001_hr.hea").write_text("\n".join(head) + "\n")
    truth = read_truth(tmp_path)
    assert truth.pages == (shown,)
    found = truth.find(shown).signal_mv
    assert found.shape == (12, 5000)
    assert np.abs(found - at_rate(500))[:, 50:-50].max() < 0.01


def test_a_whole_recording_is_cut_to_what_a_layout_prints() -> None:
    layouts = {layout.name: layout for layout in load_layouts()}
    shown = printed_as(PageTruth(signal_mv=ECG), layouts["3x4+1R"])
    known = np.isfinite(shown.signal_mv)
    assert shown.layout == "3x4+1R"
    assert known[LEADS.index(Lead.II)].all() and known.sum() == 5000 + 11 * 1250
    assert np.flatnonzero(known[LEADS.index(Lead.V3)])[[0, -1]].tolist() == [2500, 3749]
    together = np.isfinite(printed_as(PageTruth(signal_mv=ECG), layouts["3x4 simultaneous"]).signal_mv)
    assert together[:, :1250].all() and not together[:, 1250:].any()


def channel(code: str, scheme: str) -> Dataset:
    source, units, item = Dataset(), Dataset(), Dataset()
    source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = code, scheme, "a lead"
    units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = "uV", "UCUM", "microvolt"
    item.ChannelSourceSequence, item.ChannelSensitivityUnitsSequence = Sequence([source]), Sequence([units])
    item.ChannelSensitivity, item.ChannelSensitivityCorrectionFactor, item.ChannelBaseline = 2.5, 1, 100
    item.ChannelSampleSkew, item.WaveformBitsStored = 0, 16
    return item


def group(signal_mv: FloatArray, codes: tuple[str, ...], scheme: str, offset_ms: float = 0.0) -> Dataset:
    item = Dataset()
    counts = np.round((signal_mv * 1000 - 100) / 2.5)
    counts = np.where(np.isfinite(counts), counts, -32768).astype("<i2")
    item.WaveformOriginality, item.SamplingFrequency, item.MultiplexGroupTimeOffset = "ORIGINAL", 500, offset_ms
    item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = counts.shape
    item.ChannelDefinitionSequence = Sequence([channel(code, scheme) for code in codes])
    item.WaveformBitsAllocated, item.WaveformSampleInterpretation = 16, "SS"
    item.add_new("WaveformPaddingValue", "OW", np.int16(-32768).tobytes())
    item.add_new("WaveformData", "OW", counts.T.tobytes())
    return item


def waveform(path: Path, *groups: Dataset) -> Path:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = TwelveLeadECGWaveformStorage, generate_uid(), "ECG"
    ds.WaveformSequence = Sequence(groups)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.save_as(path, enforce_file_format=True)
    return path


def test_dicom_waveforms_beside_images_are_read(tmp_path: Path) -> None:
    padded = ECG.copy()
    padded[0, 1250:] = np.nan
    waveform(tmp_path / "ecg1.dcm", group(padded, CODES, "MDC"))
    shown = page(tmp_path / "ecg1_scan.png")
    truth = read_truth(tmp_path)
    assert truth.pages == (shown,)
    found = truth.find(shown).signal_mv
    assert np.array_equal(np.isfinite(found), np.isfinite(padded))
    assert np.nanmax(np.abs(found - padded)) < 0.0013


def test_groups_are_laid_by_their_offset_and_median_beats_left_out(tmp_path: Path) -> None:
    beat = group(9 * ECG[:2, :600], ("5.6.3-9-1", "5.6.3-9-2"), "SCPECG")
    beat.WaveformOriginality = "DERIVED"
    limb = group(ECG[:2, :1250], ("5.6.3-9-1", "5.6.3-9-2"), "SCPECG")
    chest = group(ECG[6:7, 1250:2500], ("5.6.3-9-3",), "SCPECG", offset_ms=2500.0)
    waveform(tmp_path / "a.dcm", beat, limb, chest)
    found = read_truth(tmp_path).find(Path("a.png")).signal_mv
    assert found.shape == (12, 2500)
    assert np.abs(found[0, :1250] - ECG[0, :1250]).max() < 0.0013 and np.isnan(found[0, 1250:]).all()
    assert np.abs(found[6, 1250:] - ECG[6, 1250:2500]).max() < 0.0013 and np.isnan(found[6, :1250]).all()
    assert np.isnan(found[8]).all()


def test_a_folder_of_nothing_known_is_refused(tmp_path: Path) -> None:
    page(tmp_path / "1.png")
    with pytest.raises(ValueError, match="nor WFDB headers"):
        read_truth(tmp_path)
