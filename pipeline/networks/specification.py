"""The networks, one specification each: its name, its input scale, its class and the size of a training crop.

This is the only list of the networks.  What training adds to a specification (crops, loss, share of the time) is one
entry in `pipeline.training.tasks`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pipeline.networks.unet import BendNetwork, LabelNetwork, LayoutNetwork, PageNetwork, SpikeNetwork, TraceNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """What must be known of a network to run it and to train it."""

    name: str  # of its weights: weights/NAME.safetensors
    network: type[nn.Module]
    px_per_mm_x: float  # of its input, along the width of the picture
    px_per_mm_y: float  # along the height
    stride_px: int  # input pixels between neighbouring cells of the answer, in both directions
    crop_px: tuple[int, int]  # (height, width) of a training crop
    at_once: int = 1  # pictures a batch on a processor

    @property
    def px_per_mm(self) -> float:
        """Input pixels a millimetre, where it is the same in both directions.

        Raises
        ------
        ValueError
            If it is not.
        """
        if self.px_per_mm_x != self.px_per_mm_y:
            raise ValueError(f"{self.name}: {self.px_per_mm_x} px/mm across, {self.px_per_mm_y} px/mm down")
        return self.px_per_mm_x

    @property
    def cell_mm(self) -> float:
        """Height of a cell of the answer on the paper."""
        return self.stride_px / self.px_per_mm_y

    @property
    def height_mm(self) -> float:
        """Height of a crop on the paper."""
        return self.crop_px[0] / self.px_per_mm_y


# The page as it came, at about 5.5 px/mm (trained at 2.8 to 8) -> grid, trace, text, background.
PAGE = Specification(
    name="page", network=PageNetwork, px_per_mm_x=5.5, px_per_mm_y=5.5, stride_px=1, crop_px=(384, 384)
)
# The canvas -> how far its grid is from where it belongs; one answer a millimetre.
BEND = Specification(
    name="bend",
    network=BendNetwork,
    px_per_mm_x=BendNetwork.px_per_mm,
    px_per_mm_y=BendNetwork.px_per_mm,
    stride_px=8,
    crop_px=(384, 384),
)
# The canvas -> row bands, column starts, calibration pulses.
LAYOUT = Specification(
    name="layout", network=LayoutNetwork, px_per_mm_x=4.0, px_per_mm_y=4.0, stride_px=2, crop_px=(320, 320)
)
# The canvas -> lead names; a window of 12 x 6 mm holds the widest name, and little else.
LABEL = Specification(
    name="label", network=LabelNetwork, px_per_mm_x=8.0, px_per_mm_y=8.0, stride_px=8, crop_px=(48, 96)
)
# One row, 30 mm above and below its baseline -> the centre line and whether there is one.
TRACE = Specification(
    name="trace", network=TraceNetwork, px_per_mm_x=10.0, px_per_mm_y=8.0, stride_px=2, crop_px=(480, 320)
)
ROW_BINS = TRACE.crop_px[0] // TRACE.stride_px  # answers of 0.25 mm down a row
ROW_COLUMNS_PER_MM = TraceNetwork.columns_per_cell * TRACE.px_per_mm_x / TRACE.stride_px  # 20: 500 Hz at 25 mm/s
# An upright stroke on a row's line -> whether it is a pacing spike, and how tall; shown as `rows.spikes.pictures` does.
SPIKE = Specification(
    name="spike",
    network=SpikeNetwork,
    px_per_mm_x=ROW_COLUMNS_PER_MM,
    px_per_mm_y=8.0,
    stride_px=SpikeNetwork.height_px,
    crop_px=(SpikeNetwork.height_px, SpikeNetwork.near_px + SpikeNetwork.far_px + SpikeNetwork.numbers_px),
    at_once=64,
)

SPECIFICATIONS = (PAGE, BEND, LAYOUT, LABEL, TRACE, SPIKE)
