"""Readers of recordings: what was written in each form comes back in millivolts, what cannot be drawn is left out."""

import json
import logging
import lzma
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.signal import resample

from pipeline.datatypes import LEADS
from pipeline.training.recordings.records import load_records
from pipeline.training.recordings.simulate import simulate_ecg
from pipeline.training.recordings.wfdb import RecordingUnusable, read_header, read_record

NAMES = [lead.value for lead in LEADS]


@pytest.fixture(scope="module")
def ecg() -> np.ndarray:
    return simulate_ecg(np.random.default_rng(4), disease="none")


def pack_212(counts: np.ndarray) -> bytes:
    """Format 212 as signal(5) states it: two samples of twelve bits in three bytes."""
    data = bytearray()
    for first, second in counts.reshape(-1, 2).tolist():
        first, second = first & 0xFFF, second & 0xFFF
        data += bytes([first & 0xFF, first >> 8 | second >> 8 << 4, second & 0xFF])
    return bytes(data)


def write_wfdb(
    folder: Path, name: str, signal_mv: np.ndarray, *, names: list[str] = NAMES, fs: str = "500", form: str = "16",
    gain: str = "1000(0)/mV", per_mv: float = 1000, baseline: int = 0,
) -> Path:  # fmt: skip
    counts = np.rint(signal_mv * per_mv + baseline).astype(np.int64).T
    data = pack_212(counts.ravel()) if form == "212" else counts.astype("<i2").tobytes()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.dat").write_bytes(data)
    lines = [f"{name} {len(names)} {fs} {len(counts)}"]
    lines += [f"{name}.dat {form} {gain} 16 0 0 0 0 {lead}" for lead in names]
    (folder / f"{name}.hea").write_text("# made for a test\n" + "\n".join(lines) + "\n#Age: 50\n")
    return folder / f"{name}.hea"


def test_format_16_with_leads_in_another_order(tmp_path: Path, ecg: np.ndarray) -> None:
    order = [11, 3, 4, 5, 0, 1, 2, 6, 7, 8, 9, 10]
    path = write_wfdb(tmp_path, "a", ecg[order], names=[NAMES[k].lower() for k in order], fs="500/1(0)")
    signal_mv, fs = read_record(path)
    assert fs == 500 and signal_mv.dtype == np.float32
    assert np.abs(signal_mv - ecg).max() < 0.00051


@pytest.mark.parametrize(
    ("gain", "per_mv"), [("200(-5)/mV", 200), ("0.2(-5)/uV", 200), ("200000(-5)/V", 200), ("0(-5)", 200)]
)
def test_gain_baseline_and_units(tmp_path: Path, ecg: np.ndarray, gain: str, per_mv: float) -> None:
    signal_mv, _ = read_record(write_wfdb(tmp_path, "a", ecg, gain=gain, per_mv=per_mv, baseline=-5))
    assert np.abs(signal_mv - ecg).max() < 0.0026


def test_format_212(tmp_path: Path, ecg: np.ndarray) -> None:
    path = write_wfdb(tmp_path, "a", ecg, form="212", gain="200", per_mv=200)
    assert np.abs(read_record(path)[0] - ecg).max() < 0.0026
    assert (tmp_path / "a.dat").stat().st_size == ecg.size * 3 // 2


def test_a_baseline_not_stated_is_the_adc_zero(tmp_path: Path) -> None:
    (tmp_path / "a.hea").write_text("a 1\na.dat 16 100/mV 12 1024 0 0 0 V1\n")
    header = read_header(tmp_path / "a.hea")
    assert header.signals[0].baseline == 1024 and header.sampling_frequency_hz == 250 and header.n_samples is None


def test_leads_in_two_files_behind_an_offset(tmp_path: Path, ecg: np.ndarray) -> None:
    lines = ["a 13 500 5000"]
    for file, part in (("limb", slice(0, 6)), ("chest", slice(6, 12))):
        data = np.rint(ecg[part] * 1000).astype("<i2").T
        if file == "chest":  # a thirteenth signal that is no lead
            data = np.hstack([data, np.ones((5000, 1), "<i2")])
        (tmp_path / f"{file}.dat").write_bytes(b"8 bytes " + data.tobytes())
        lines += [f"{file}.dat 16+8 1000/mV 16 0 0 0 0 {name}" for name in [*NAMES[part], "resp"][: data.shape[1]]]
    (tmp_path / "a.hea").write_text("\n".join(lines))
    assert np.abs(read_record(tmp_path / "a.hea")[0] - ecg).max() < 0.00051


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("", "no record line"),
        ("a/3 12 500 5000", "several segments"),
        ("a twelve 500", "header"),
        ("a 2 500 5000\na.dat 16 1000/mV 16 0 0 0 0 I", "promises 2 signals"),
        ("a 1 500 9\na.dat 310 1000/mV 16 0 0 0 0 I", "format 310"),
        ("a 1 500 9\na.dat 16x4 1000/mV 16 0 0 0 0 I", "several samples per frame"),
        ("a 1 500 9\na.dat 16 1000/mmHg 16 0 0 0 0 I", "mmHg"),
        ("a 1 500 9\na.dat 16 1000/mV 16 0 0 0 0 I", "leads II, III"),
        ("a 1 500 99\na.dat 16 1000/mV 16 0 0 0 0 I", "holds 9 of 99"),
        ("a 1 500 9\n../a.dat 16 1000/mV 16 0 0 0 0 I\n", "leads II, III"),
        ("a 1 500 9\nb.dat 16 1000/mV 16 0 0 0 0 I", "cannot be read"),
    ],
)
def test_what_is_not_read_says_why(tmp_path: Path, header: str, words: str) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(18))
    (tmp_path / "a.hea").write_text(header)
    with pytest.raises(RecordingUnusable, match=words):
        read_record(tmp_path / "a.hea")


def test_an_archive_of_wfdb_records(tmp_path: Path, ecg: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    """PTB-XL's form: folders of records at 100 Hz; what cannot be drawn is named with its reason."""
    write_wfdb(tmp_path / "records100" / "00000", "00001_lr", resample(ecg, 1000, axis=1), fs="100")
    write_wfdb(tmp_path / "records100" / "00000", "00002_lr", ecg[:11], names=NAMES[:11])
    write_wfdb(tmp_path / "records100" / "00000", "00003_lr", ecg[:, :400], fs="100")
    gap = ecg.copy()
    gap[3, 70:90] = -32.768
    write_wfdb(tmp_path / "records100" / "00000", "00004_lr", gap)
    flat = ecg.copy()
    flat[5] = 0
    write_wfdb(tmp_path / "records100" / "00000", "00005_lr", flat)
    with caplog.at_level(logging.WARNING):
        (signal_mv,) = load_records(tmp_path, "train", 0.0)
    assert signal_mv.shape == (12, 5000)
    inner = slice(200, 4800)  # resampling wraps around at the ends
    assert np.corrcoef(signal_mv[1, inner], ecg[1, inner])[0, 1] > 0.99
    for record, reason in (("2", "V6 are missing"), ("3", "4.0 s"), ("4", "samples are missing"), ("5", "flat")):
        assert any(f"0000{record}_lr.hea" in line and reason in line for line in caplog.messages), reason


def test_one_patient_of_ptbxl_is_in_one_part(tmp_path: Path, ecg: np.ndarray) -> None:
    rows = ["ecg_id,patient_id,filename_lr,filename_hr"]
    for patient in range(6):
        for visit in range(3):
            name = f"{patient * 3 + visit:05d}"
            write_wfdb(tmp_path / "records500", f"{name}_hr", ecg * (1 + patient))
            rows.append(f"{name},{15700 + patient}.0,records100/{name}_lr,records500/{name}_hr")
    (tmp_path / "ptbxl_database.csv").write_text("\n".join(rows))
    parts = [load_records(tmp_path, part, 0.5) for part in ("train", "validation")]
    heights = [[round(float(np.ptp(signal[1]) / np.ptp(ecg[1]))) for signal in part] for part in parts]
    assert len(parts[0]) + len(parts[1]) == 18
    assert not set(heights[0]) & set(heights[1])


class _Hdf5(dict[str, np.ndarray]):
    """Stands for h5py.File: a mapping that closes."""

    def __init__(self, path: Path, mode: str) -> None:
        assert mode == "r"
        with path.open("rb") as file:
            super().__init__(np.load(file))

    def __enter__(self) -> "_Hdf5":
        return self

    def __exit__(self, *exception: object) -> None:
        self.clear()


@pytest.fixture
def code15(tmp_path: Path, ecg: np.ndarray) -> Path:
    tracings = np.zeros((3, 4096, 12), np.float32)
    tracings[0, 48:4048] = resample(ecg, 4000, axis=1).T
    tracings[1, 648:3448] = resample(ecg, 4000, axis=1).T[:2800]
    with (tmp_path / "exams_part0.hdf5").open("wb") as file:
        np.savez(file, exam_id=np.array([1169160, 2873686, 0]), tracings=tracings)
    (tmp_path / "exams.csv").write_text("exam_id,age,patient_id\n1169160,38,523632\n2873686,73,1724173\n77,1,1\n")
    return tmp_path


def test_code15_loses_its_padding(code15: Path, ecg: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", SimpleNamespace(File=_Hdf5))
    long, short = load_records(code15, "train", 0.0)
    assert long.shape == (12, 5000) and short.shape == (12, 3500)
    assert np.corrcoef(long[1, 200:4800], ecg[1, 200:4800])[0, 1] > 0.98


def test_code15_without_h5py_names_the_package(code15: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="pip install h5py"):
        load_records(code15, "train")


def test_packed_archives_restore_the_limb_leads(tmp_path: Path, ecg: np.ndarray) -> None:
    counts = np.rint(ecg[[0, 1, *range(6, 12)]] * 1000).astype(np.int16)
    differences = np.diff(counts, axis=-1, prepend=np.int16(0))[None]
    packed = np.frombuffer(lzma.compress(differences.astype(np.int16).tobytes()), np.uint8)
    meta = json.dumps([{"record": "1", "fs": 500}])
    np.savez(tmp_path / "a.npz", meta=meta, packed=packed, shape=np.array(differences.shape))
    (signal_mv,) = load_records(tmp_path, "train", 0.0)
    assert np.abs(signal_mv - ecg).max() < 0.0021


def test_marked_recordings_are_kept_out_of_training(tmp_path: Path, ecg: np.ndarray) -> None:
    """One printed on a development page is trained on from no archive, one that another archive holds is read once."""

    def archive(name: str, *entries: dict[str, object]) -> None:
        counts = {f"x{k:04d}": np.rint(ecg * 1000 * (k + 1)).astype(np.int16) for k in range(len(entries))}
        np.savez(tmp_path / name, meta=json.dumps([{"fs": 500, **entry} for entry in entries]), **counts)

    archive("a.npz", {"record": "1"}, {"record": "2"})
    archive("b.npz", {"record": "1", "on_shared_dev_page": True}, {"record": "2", "also_filtered": True})
    (only,) = load_records(tmp_path, "train", 0.0)
    assert np.abs(only - 2 * ecg).max() < 0.0011
    assert len(load_records(tmp_path, "validation", 1.0)) == 3


def test_synthetic_hearts_are_split_by_preset_and_never_validated_on(tmp_path: Path, ecg: np.ndarray) -> None:
    presets = [f"preset {k}" for k in range(12)]
    entries = [
        {"record": f"{preset} {variant}", "fs": 500, "amplitude": "synthetic, true scale", "labels": [preset]}
        for preset in presets
        for variant in range(3)
    ]
    counts = {f"x{k:04d}": np.rint(ecg * 500 * (1 + k // 3)).astype(np.int16) for k in range(len(entries))}
    np.savez(tmp_path / "model.npz", meta=json.dumps(entries), **counts)
    trained = load_records(tmp_path, "train", 0.5)
    assert 0 < len(trained) < 36 and len(trained) % 3 == 0
    with pytest.raises(ValueError, match="no validation recordings"):
        load_records(tmp_path, "validation", 0.5)
