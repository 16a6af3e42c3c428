"""A digitizer that needs no network and does what the page's first pixel says: good, slow, deadly, ...

`python -m tests.fake_digitizer serve FILE` is the gateway with this digitizer in its workers, for tests that need real
processes but not real digitization.  It is a program of the tests; the product has no such option.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from dataclasses import replace
from datetime import date
from datetime import time as clock
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gateway.logs import configure_logging
from gateway.settings import load_settings
from gateway.spool.folder import Spool
from gateway.spool.owner import owned
from gateway.store.store import Store
from pipeline import (
    EXTRA_LEADS,
    LEADS,
    Act,
    BrokenRule,
    ByPerson,
    Calibration,
    CorrectionError,
    Corrections,
    Digitization,
    EcgRecord,
    GridScale,
    Layout,
    LayoutMatch,
    Lead,
    PageImage,
    PrintedValues,
    Quality,
    RectifiedPage,
    TraceSet,
)
from pipeline.errors import TraceNotFound

SLOW_S = 5.0
_MARK = (7, 77)  # green and blue of the first pixel; red is the behaviour
_LAYOUT = Layout(
    name="3x4",
    rows=(
        (Lead.I, Lead.AVR, Lead.V1, Lead.V4),
        (Lead.II, Lead.AVL, Lead.V2, Lead.V5),
        (Lead.III, Lead.AVF, Lead.V3, Lead.V6),
    ),
)


class Behaviour(IntEnum):
    """What happens when the page is digitized."""

    GOOD = 1
    DOUBTFUL = 2
    NO_ECG = 3
    SLOW = 4
    DEADLY = 5  # the process is killed
    HANGING = 6
    BROKEN = 7  # a fault in the code
    GREEDY = 8  # asks for 64 GiB
    EXTRA = 9  # the page shows more than the twelve leads


def page_pixels(behaviour: Behaviour = Behaviour.GOOD, seed: int = 0) -> np.ndarray:
    """Return a small page (60, 80, 3) that makes the fake digitizer behave so; `seed` makes it a page of its own."""
    pixels = np.full((60, 80, 3), 255, dtype=np.uint8)
    pixels[0, 0] = (behaviour, *_MARK)
    pixels[1, :4, 0] = np.frombuffer(seed.to_bytes(4, "big"), np.uint8)
    return pixels


def page_png(behaviour: Behaviour = Behaviour.GOOD, seed: int = 0) -> bytes:
    """Return such a page as a PNG file."""
    return cv2.imencode(".png", page_pixels(behaviour, seed)[..., ::-1])[1].tobytes()


class FakeDigitizer:
    """Digitizes any page as the same 3x4 recording, unless its first pixel says otherwise."""

    pages_at_once = 1

    def digitize(self, page: PageImage, *, default_calibration: Calibration, **more: Any) -> Digitization:
        red, *mark = (int(value) for value in page.pixels[0, 0])
        known = tuple(mark) == _MARK and red in Behaviour.__members__.values()
        behaviour = Behaviour(red) if known else Behaviour.GOOD
        if behaviour is Behaviour.NO_ECG:
            raise TraceNotFound("there is no ECG on the page")
        if behaviour is Behaviour.BROKEN:
            raise KeyError("DOE^JANE")  # what a careless exception may quote
        if behaviour is Behaviour.DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour is Behaviour.GREEDY:
            np.ones(64 << 30, dtype=np.uint8)
        if behaviour in (Behaviour.SLOW, Behaviour.HANGING):
            time.sleep(SLOW_S if behaviour is Behaviour.SLOW else 3600)
        plain = fake_digitization(page, default_calibration, doubtful=behaviour is Behaviour.DOUBTFUL)
        read = with_extra_leads(plain) if behaviour is Behaviour.EXTRA else plain
        return as_stated(read, more.get("corrections") or Corrections())


def fake_digitization(page: PageImage, calibration: Calibration, *, doubtful: bool = False) -> Digitization:
    """Return ten seconds of twelve leads, 2.5 s each, as a 3x4 page shows them."""
    n_samples, column = 5000, 1250
    signal_mv = np.full((12, n_samples), np.nan, dtype=np.float32)
    for number, lead in enumerate(LEADS):
        start = next(row.index(lead) for row in _LAYOUT.rows if lead in row) * column
        phase = np.arange(column, dtype=np.float32) * (2 * np.pi / 400)
        signal_mv[number, start : start + column] = np.sin(phase) * (0.2 + 0.1 * number)
    confidence = np.where(np.isnan(signal_mv), 0.0, 0.9).astype(np.float32)
    height, width = page.pixels.shape[:2]
    scale = GridScale(px_per_mm_x=2.0, px_per_mm_y=2.0, score=0.9, source="grid")
    nodes = np.stack(np.meshgrid(np.arange(0, width, 10), np.arange(0, height, 10)), axis=-1).astype(np.float32)
    rectified = RectifiedPage(
        node_xy=nodes,
        node_mm=5.0,
        pixels=page.pixels,
        px_per_mm=2.0,
        grid_scale=scale,
        homography=np.diag([2.0, 2.0, 1.0]),
    )
    traces = TraceSet(
        row_mm=np.full((3, 100), 10.0, dtype=np.float32),
        confidence=np.full((3, 100), 0.9, dtype=np.float32),
        baseline_mm=np.full(3, 10.0, dtype=np.float32),
        x0_mm=0.0,
        columns_per_mm=4.0,
    )
    return Digitization(
        page=page,
        rectified=rectified,
        layout_match=LayoutMatch(layout=_LAYOUT, cost=0.01, score=0.95, certain=True, labels=(), rhythm=()),
        traces=traces,
        record=EcgRecord(
            signal_mv=signal_mv,
            confidence=confidence,
            leads=LEADS,
            sampling_frequency_hz=500.0,
            calibration=calibration,
        ),
        quality=Quality(
            coverage=dict.fromkeys(LEADS, 0.5 if doubtful else 0.99),
            confidence=dict.fromkeys(LEADS, 0.9),
            einthoven_residual_mv=0.02,
            layout_score=0.95,
            estimated_snr_db=3.0 if doubtful else 20.0,
        ),
        weights_sha256={"fake": "0" * 64},
        printed=PrintedValues(recorded_on=date(2026, 3, 1), recorded_at=clock(10)),
    )


def as_stated(plain: Digitization, corrections: Corrections) -> Digitization:
    """Apply of corrections the speed and the leads left out; a layout that does not exist is refused."""
    if corrections.layout == "none":
        raise CorrectionError([BrokenRule("layout", "'none'", "does not fit the page")])
    signal_mv, parts = plain.record.signal_mv.copy(), []
    for lead in corrections.left_out:
        known = np.flatnonzero(np.isfinite(signal_mv[LEADS.index(lead)]))
        first, stop = int(known[0]), int(known[-1]) + 1
        parts.append(ByPerson(act=Act.LEFT_OUT, lead=lead, first_sample=first, stop_sample=stop))
        signal_mv[LEADS.index(lead)] = np.nan
    calibration = plain.record.calibration
    if corrections.paper_speed_mm_per_s is not None:
        speed = corrections.paper_speed_mm_per_s
        calibration = replace(calibration, paper_speed_mm_per_s=speed, speed_source="person")
    record = replace(plain.record, signal_mv=signal_mv, calibration=calibration, by_person=tuple(parts))
    return replace(plain, record=record, corrections=corrections)


def with_extra_leads(read: Digitization) -> Digitization:
    """Return a page that shows V7, V8 and V9, too, all the time."""
    leads, record, quality = EXTRA_LEADS[-3:], read.record, read.quality
    more = np.full((len(leads), record.signal_mv.shape[1]), 0.1, np.float32)
    record = replace(
        record,
        signal_mv=np.vstack([record.signal_mv, more]),
        confidence=np.vstack([record.confidence, np.ones_like(more)]),
        leads=(*record.leads, *leads),
    )
    full = dict.fromkeys(leads, 1.0)
    quality = replace(quality, coverage=quality.coverage | full, confidence=quality.confidence | full)
    return replace(read, record=record, quality=quality)


def main(program: str = "tests.fake_digitizer", digitizer: type[FakeDigitizer] = FakeDigitizer) -> None:
    """Be the gateway's `serve` or `worker`, built as gateway.cli does but with the fake digitizer.

    `program` is the module whose workers `serve` starts.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("serve", "worker"))
    parser.add_argument("config", type=Path)
    parser.add_argument("--name", default="worker-alone")
    parser.add_argument("--parent", type=int)
    parser.add_argument("--settings-fd", type=int)
    asked = parser.parse_args()
    if asked.settings_fd is not None:
        asked.config = Path(f"/proc/self/fd/{asked.settings_fd}")
    settings = load_settings(asked.config)
    configure_logging(settings.log)
    if asked.command == "serve":
        from gateway.service import Service

        command = [sys.executable, "-m", program, "worker", str(asked.config)]
        with owned(settings.storage.path, settings.storage.node):
            sys.exit(Service(settings, worker_command=command, config=asked.config).run())
    from gateway.worker.process import CurrentSettings, run_worker

    store, spool = Store.open(settings.storage), Spool.open(settings.storage)
    current = CurrentSettings(settings, partial(load_settings, asked.config))
    run_worker(current, store, spool, name=asked.name, parent_pid=asked.parent, digitizer=digitizer())


if __name__ == "__main__":
    main()
