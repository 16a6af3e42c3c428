from dataclasses import replace

import numpy as np

from gateway.results.page import doubts
from gateway.settings import ReviewSettings
from pipeline import Calibration, PageImage
from tests.fake_digitizer import fake_digitization


def test_a_reason_that_a_warning_states_is_stated_once() -> None:
    page = PageImage(pixels=np.full((60, 80, 3), 255, np.uint8))
    read = fake_digitization(page, Calibration())
    match = replace(read.layout_match, certain=False, reasons=("only 2 lead names found", "the columns differ"))
    stated = ("layout 3x4 is uncertain: only 2 lead names found", "ink 18 mm tall at 3.4 s in V3 is not in the record")
    read = replace(read, layout_match=match, quality=replace(read.quality, warnings=stated))
    assert doubts(read, ReviewSettings()) == ("the columns differ", *stated)
