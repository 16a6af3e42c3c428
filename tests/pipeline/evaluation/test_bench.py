"""What a measurement books on whom."""

from __future__ import annotations

import time
from dataclasses import fields
from mmap import mmap
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.digitizer import Digitizer
from pipeline.evaluation import bench
from pipeline.evaluation.bench import Cost, Recorder, draw_scan, recorded, report, total
from pipeline.networks.inference import Network
from pipeline.networks.specification import PAGE
from pipeline.stages import SHIPPED, Stages


def _burn(seconds: float) -> None:
    stop = time.process_time() + seconds
    while time.process_time() < stop:
        pass


def test_a_stage_is_not_charged_for_those_it_calls() -> None:
    recorder = Recorder()
    recorder.start()
    with recorder.stage("outer"):
        _burn(0.05)
        with recorder.stage("inner"):
            _burn(0.15)
        _burn(0.05)
    costs = recorder.stop()
    assert list(costs)[:2] == ["inner", "outer"]  # dearest first
    assert 0.14 < costs["inner"].cpu_s < 0.2
    assert 0.09 < costs["outer"].cpu_s < 0.15
    assert costs["inner"].wall_s >= 0.14


def test_memory_is_booked_on_the_stage_that_took_it() -> None:
    recorder = Recorder()
    recorder.start()
    with recorder.stage("large"), mmap(-1, 40_000_000) as fresh:  # NumPy may take memory that was kept
        fresh.write(bytes(40_000_000))
    with recorder.stage("small"):
        pass
    costs = recorder.stop()
    if costs["large"].peak_mib == 0:
        pytest.skip("this system does not tell the peak")
    assert costs["large"].peak_mib > costs["small"].peak_mib + 30


def test_a_start_forgets_what_was() -> None:
    recorder = Recorder()
    with recorder.stage("before"):
        pass
    recorder.start()
    assert set(recorder.stop()) == {"between the stages"}


def test_every_function_the_digitizer_composes_is_a_stage_and_is_given_back() -> None:
    network = Network(name="page", module=_Ones(), sha256="", device=torch.device("cpu"))
    parts: dict[str, Any] = dict.fromkeys((part.name for part in fields(Digitizer)), network)
    digitizer = Digitizer(**parts | {"networks": {PAGE: network}, "stages": SHIPPED})
    recorder = Recorder()
    recorder.start()
    timed = recorded(digitizer, recorder)
    timed.stages.read_marks(np.zeros((8, 8, 3), np.uint8), timed.networks[PAGE])
    assert {"read_marks", "page network"} <= set(recorder.stop())
    for part in fields(Stages):
        assert getattr(timed.stages, part.name) is not getattr(SHIPPED, part.name)
    assert digitizer.stages is SHIPPED


class _Ones(torch.nn.Module):
    multiple = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -torch.ones(1, 3, x.shape[2] // 2, x.shape[3] // 2)


def test_total_adds_times_and_keeps_the_highest_peak() -> None:
    sums = total([Cost(1.0, 2.0, 300.0, 7.0), Cost(0.5, 0.25, 400.0, 5.0)])
    assert (sums.wall_s, sums.cpu_s, sums.peak_mib, sums.device_mib) == (1.5, 2.25, 400.0, 7.0)


def test_the_page_has_the_size_that_was_asked_for() -> None:
    pixels = draw_scan(660).pixels
    assert pixels.shape == (510, 660, 3)
    assert pixels.std() > 5


def test_the_last_table_tells_the_pages_a_minute_of_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure_stages", lambda *_: {})
    monkeypatch.setattr(bench, "measure_batch", lambda *_: Cost(wall_s=2.5))
    network = Network(name="page", module=_Ones(), sha256="", device=torch.device("cpu"))
    digitizer = Digitizer(networks={PAGE: network}, recogniser=None, layouts=())  # type: ignore[arg-type]
    *_, last = report(digitizer, runs=1, widths=(), batches=(1, 4))
    assert {str(column.header): list(column.cells) for column in last.columns}["pages a minute"] == ["24.0", "24.0"]
