import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from pipeline import Calibration, Digitization, PageImage
from pipeline.command_line import app
from pipeline.datatypes import ByteArray, GridScale, RectifiedPage, SegmentationMap
from pipeline.digitizer import Digitizer
from pipeline.errors import TraceNotFound
from pipeline.evaluation import ablation
from pipeline.evaluation.ablation import (
    VARIANTS,
    bent_sheet,
    flat_sheet,
    paper_traces,
    read_every_way,
    rows_by_best_bin,
    rows_by_ink,
)
from pipeline.networks.inference import Network
from pipeline.networks.specification import PAGE, ROW_BINS, SPECIFICATIONS
from pipeline.sheet.paper import Sheet
from tests.pipeline.paper_samples import digitization

PX_PER_MM = 6.0


def rectified(bend_px: float = 0.0) -> RectifiedPage:
    """The flat sheet of a page of 200 x 60 mm seen straight, the middle of its lattice bent by some pixels."""
    i, j = np.mgrid[0:13, 0:41]
    nodes = np.stack([j * 5 * PX_PER_MM - 0.5, i * 5 * PX_PER_MM - 0.5], -1).astype(np.float32)
    nodes[..., 1] += bend_px * np.sin(np.pi * j / 40).astype(np.float32)
    return RectifiedPage(
        node_xy=nodes,
        node_mm=5.0,
        pixels=np.full((240, 800, 3), 255, np.uint8),
        px_per_mm=4.0,
        grid_scale=GridScale(px_per_mm_x=PX_PER_MM, px_per_mm_y=PX_PER_MM, score=1.0, source="grid"),
        homography=np.array([[PX_PER_MM, 0, -0.5], [0, PX_PER_MM, -0.5], [0, 0, 1.0]]),
    )


def sheet(segmentation: SegmentationMap, bend_px: float = 0.0) -> Sheet:
    page = PageImage(pixels=np.full((360, 1200, 3), 200, np.uint8))
    return Sheet(page=page, segmentation=segmentation, rectified=rectified(bend_px))


def wave(x_mm: Any) -> Any:
    return 2.0 * np.sin(x_mm / 6)


def trace_map(baselines_mm: tuple[float, ...]) -> SegmentationMap:
    """Ink of a wave along each baseline, as the page network would show it at PX_PER_MM."""
    ink = np.zeros((360, 1200), np.uint8)
    x_mm = np.arange(5, 195, 0.1)
    for baseline in baselines_mm:
        points = np.stack([x_mm, baseline + wave(x_mm)], -1) * PX_PER_MM - 0.5
        cv2.polylines(ink, [np.round(points * 16).astype(np.int32)], False, 255, 3, cv2.LINE_AA, shift=4)
    share = ink.astype(np.float32) / 255
    empty = np.zeros_like(share)
    return SegmentationMap(grid=empty, trace=share, text=empty, scale=1.0)


def test_the_papers_extractor_follows_the_ink() -> None:
    traces = paper_traces(sheet(trace_map((15.0, 40.0))))
    assert traces.row_mm.shape[0] == 2
    x_mm = traces.x0_mm + np.arange(traces.row_mm.shape[1]) / traces.columns_per_mm
    for row, baseline in zip(traces.row_mm, (15.0, 40.0), strict=True):
        known = np.isfinite(row)
        assert known.mean() == pytest.approx(190 / 200, abs=0.02)
        assert np.abs(row - baseline - wave(x_mm))[known].max() < 0.15
    with pytest.raises(TraceNotFound):
        paper_traces(sheet(trace_map(())))


def test_a_flat_sheet_forgets_what_the_lattice_found(monkeypatch: pytest.MonkeyPatch) -> None:
    bent, straight = sheet(trace_map(()), bend_px=9.0), rectified()
    monkeypatch.setattr(ablation, "rectify", lambda *_, **__: bent)
    flat = bent_sheet(flat_sheet(bent.page, bent.segmentation), spy().networks[PAGE]).rectified
    assert np.abs(flat.node_xy - straight.node_xy).max() < 0.01
    assert flat.pixels.shape == straight.pixels.shape and np.median(flat.pixels) == 200


class PeakNetwork(Network):
    """Sees every column's trace in the bin that holds its middle."""

    def run(self, pixels: ByteArray) -> tuple[Tensor, ...]:
        dark = 255.0 - torch.from_numpy(pixels).float().mean(-1)
        rows = torch.arange(dark.shape[1], dtype=torch.float32)[None, :, None]
        middle = (dark * rows).sum(1) / dark.sum(1).clamp(min=1)
        bins = ((middle - 0.5) / 2).round().repeat_interleave(2, -1)
        logits = -((torch.arange(ROW_BINS)[None, :, None] - bins[:, None]) ** 2).float() * 3
        return logits, torch.full((len(pixels), bins.shape[-1]), 9.0)


def test_values_come_from_the_ink_or_from_the_best_bin() -> None:
    height = 2 * ROW_BINS
    strip = np.full((1, height, 64, 3), 255, np.uint8)
    strip[:, 201:204] = 0  # its middle is pixel 202: bin 100.75, for bin k holds pixels 2 k and 2 k + 1
    network = PeakNetwork(name="trace", module=nn.Identity(), sha256="", device=torch.device("cpu"))
    assert rows_by_ink(strip, network).y_bin == pytest.approx(100.75, abs=0.01)
    assert set(rows_by_best_bin(strip, network).y_bin.ravel().tolist()) == {101.0}
    assert rows_by_ink(np.full_like(strip, 255), network).y_bin.shape == (1, 128)


class CountingModule(nn.Module):
    multiple = 1

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


def stages_of(digitizer: Digitizer) -> tuple[Any, ...]:
    stages = digitizer.stages
    return stages.rectify, stages.unbend, stages.trace_rows, stages.read_rows


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SpyDigitizer(Digitizer):
    """Notes which functions stand for the stages while it is asked to digitize."""

    seen: list[tuple[Any, ...]] = field(default_factory=list)
    drawn: list[bool] = field(default_factory=list)

    def digitize(self, page: PageImage, *, default_calibration: Calibration | None = None) -> Digitization:
        self.seen.append(stages_of(self))
        self.drawn.append(bool(page.strokes))
        self.networks[PAGE].run(page.pixels[None])
        if self.stages.rectify is flat_sheet:
            raise TraceNotFound("nothing")
        return digitization()


def spy() -> SpyDigitizer:
    def network(name: str) -> Network:
        return Network(name=name, module=CountingModule(), sha256="", device=torch.device("cpu"))

    return SpyDigitizer(
        networks={specification: network(specification.name) for specification in SPECIFICATIONS},
        recogniser=None,  # type: ignore[arg-type]
        layouts=(),
    )


def test_one_stage_at_a_time_is_changed_and_put_back_and_networks_answer_once() -> None:
    digitizer = spy()
    usual = stages_of(digitizer)
    page = PageImage(pixels=np.full((8, 8, 3), 255, np.uint8), strokes=(np.zeros((20, 2)),))
    results = dict(read_every_way(page, digitizer, Calibration()))
    assert list(results) == list(VARIANTS)
    assert [name for name, result in results.items() if result is None] == ["homography only"]
    changed = [sum(now is not then for now, then in zip(seen, usual, strict=True)) for seen in digitizer.seen]
    assert changed == [0, 0, 1, 1, 2, 1, 1] and len(set(digitizer.seen)) == 6
    assert digitizer.drawn == [True] + 6 * [False]
    assert stages_of(digitizer) == usual == stages_of(spy())
    assert digitizer.networks[PAGE].module.calls == 1


def test_the_command_compares_the_readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Digitizer, "load", lambda **_: spy())
    counts = np.nan_to_num(1000 * digitization().record.signal_mv, nan=-32768).round().astype(np.int16)
    np.savez(tmp_path / "truth.npz", r1=counts, r2=counts, info=json.dumps([{"id": "1", "family": "tall"}]))
    for name in ("1", "2"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((100, 200), 255, np.uint8))
    none = CliRunner().invoke(app, ["ablate", str(tmp_path / "truth.npz"), "--family", "paced"])
    assert none.exit_code == 2 and "no page of family 'paced'" in none.stderr
    result = CliRunner().invoke(app, ["ablate", str(tmp_path / "truth.npz"), "--family", "tall"])
    assert result.exit_code == 0, result.output
    rows = Counter(name for name in VARIANTS for line in result.stdout.splitlines() if f"{name} (1)" in line)
    assert rows == Counter(VARIANTS.keys())
    lost = next(line for line in result.stdout.splitlines() if "homography only (1)" in line)
    assert " 0.00 " in lost
