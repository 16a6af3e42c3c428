"""Pages side by side: in order, each with its own end."""

from __future__ import annotations

from dataclasses import dataclass, fields
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.datatypes import Calibration, PageImage
from pipeline.digitizer import Digitizer
from pipeline.errors import TraceNotFound
from pipeline.networks.inference import Network
from pipeline.networks.specification import PAGE
from tests.waiting import PATIENCE_S


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Echo(Digitizer):
    """Gives every page its number back; pages with an odd one hold no trace.  Three must meet before any goes on."""

    meeting: Barrier

    def digitize(self, page: PageImage, *, default_calibration: Calibration | None = None) -> Any:
        self.meeting.wait(PATIENCE_S)
        if page.page_number % 2:
            raise TraceNotFound(f"nothing on page {page.page_number}")
        return page.page_number, default_calibration


def _digitizer(at_once: int) -> _Echo:
    network = Network(name="page", module=torch.nn.Identity(), sha256="", device=torch.device("cpu"), at_once=at_once)
    parts: dict[str, Any] = dict.fromkeys(part.name for part in fields(Digitizer))
    return _Echo(**parts | {"networks": {PAGE: network}}, meeting=Barrier(at_once))


@pytest.mark.parametrize("at_once", [1, 3])
def test_outcomes_come_in_the_order_of_the_pages(at_once: int) -> None:
    pages = [PageImage(pixels=np.zeros((1, 1, 3), np.uint8), page_number=k) for k in range(6)]
    default = Calibration(gain_mm_per_mv=5.0)
    outcomes = _digitizer(at_once).digitize_batch(pages, default_calibration=default)
    assert outcomes[::2] == [(0, default), (2, default), (4, default)]
    assert [str(outcome) for outcome in outcomes[1::2]] == [f"nothing on page {k}" for k in (1, 3, 5)]


def test_a_processor_takes_one_page_at_a_time() -> None:
    assert _digitizer(1).pages_at_once == 1
