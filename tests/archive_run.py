"""A run over an archive with a digitizer without networks: `python -m tests.archive_run SOURCE OUT ADDRESS ACTORS`.

It is a program of the tests; the product has no such option.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline import Digitization, PageImage
from pipeline.errors import TraceNotFound

SETTINGS = {"version": "test"}


class Behaviour(IntEnum):
    """What happens when a page is digitized; it is the red of its first pixel."""

    GOOD = 1
    NO_ECG = 2
    BROKEN = 3  # a fault in the code
    DEADLY = 4  # the process is killed
    HANGING = 5


def page_pixels(behaviour: Behaviour, seed: int = 0) -> np.ndarray:
    """Return a small page (60, 80, 3), RGB."""
    pixels = np.full((60, 80, 3), 255, dtype=np.uint8)
    pixels[0, 0] = (behaviour, 0, seed)
    return pixels


def page_png(behaviour: Behaviour, seed: int = 0) -> bytes:
    return cv2.imencode(".png", page_pixels(behaviour, seed)[..., ::-1])[1].tobytes()


class PlayedDigitizer:
    """Gives the same result for every page, as it behaves."""

    def __init__(self, result: Digitization, seconds: float = 0.0, lanes: int = 1) -> None:
        self.pages_at_once = lanes
        self._result = result
        self._seconds = seconds

    def digitize(self, page: PageImage, **_: Any) -> Digitization:
        time.sleep(self._seconds)
        behaviour = Behaviour(page.pixels[0, 0, 0])
        if behaviour is Behaviour.NO_ECG:
            raise TraceNotFound("there is no ECG on the page")
        if behaviour is Behaviour.BROKEN:
            raise KeyError("DOE^JANE")  # what a careless exception may quote
        if behaviour is Behaviour.DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour is Behaviour.HANGING:
            time.sleep(3600)
        return replace(self._result, page=page)


def main(source: str, out: str, address: str, actors: str, page_s: str = "60", seconds: str = "0") -> int:
    from pipeline import Calibration
    from pipeline.archive.flow import Crew
    from pipeline.archive.run import run
    from tests.pipeline.paper_samples import digitization

    crew = Crew(
        load=partial(PlayedDigitizer, digitization(), float(seconds)),
        calibration=Calibration(),
        page_s=float(page_s),
        actors=int(actors),
        address=address or None,
    )
    return run(Path(source), out, crew, SETTINGS)


if __name__ == "__main__":
    from tests.archive_run import main as imported  # the digitizer is found by this name in other processes

    sys.exit(imported(*sys.argv[1:]))
