"""What each network is trained on: one entry a network, which completes its specification for training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.networks.specification import BEND, LABEL, LAYOUT, PAGE, SPIKE, TRACE, Specification
from pipeline.training import losses
from pipeline.training.drawing.augment import bend_sample, label_samples, layout_sample, page_samples, row_samples
from pipeline.training.drawing.strokes import stroke_samples
from pipeline.training.drawing.synth import DrawnPage

Sample = tuple[Tensor, ...]  # pixels, then the truth as the loss takes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """How a network is trained."""

    specification: Specification
    crops: Callable[[DrawnPage, np.random.Generator], list[Sample]]  # cuts a drawn page
    loss: Callable[..., Tensor]  # of the network's output and the truth
    figures: Callable[..., dict[str, float]]  # of the same, for a person to read
    share: float  # of the time when all networks are trained: how hard the task is; set by hand


def page_crops(page: DrawnPage, rng: np.random.Generator) -> list[Sample]:
    """Cut three crops in the page frame: pixels and class shares.

    Parameters
    ----------
    page : DrawnPage
    rng : Generator
        All chance comes from it.
    """
    return [
        (torch.from_numpy(s.pixels), torch.from_numpy(s.classes)) for s in page_samples(page, PAGE.crop_px[0], 3, rng)
    ]


def bend_crops(page: DrawnPage, rng: np.random.Generator) -> list[Sample]:
    """Cut six crops of the canvas: pixels and shift in mm.

    Parameters
    ----------
    page : DrawnPage
    rng : Generator
        All chance comes from it.
    """
    samples = (bend_sample(page, BEND.crop_px[0], rng) for _ in range(6))
    return [(torch.from_numpy(s.pixels), torch.from_numpy(s.shift_mm)) for s in samples]


def layout_crops(page: DrawnPage, rng: np.random.Generator) -> list[Sample]:
    """Cut six crops of the canvas: pixels and, at the network's stride, bands.

    Parameters
    ----------
    page : DrawnPage
    rng : Generator
        All chance comes from it.
    """
    samples: list[Sample] = []
    for _ in range(6):
        s = layout_sample(page, LAYOUT.crop_px[0], rng)
        half = LAYOUT.crop_px[0] // LAYOUT.stride_px
        bands = cv2.resize(s.bands, (half, half), interpolation=cv2.INTER_AREA)
        samples.append((torch.from_numpy(s.pixels), torch.from_numpy(bands)))
    return samples


def trace_crops(page: DrawnPage, rng: np.random.Generator) -> list[Sample]:
    """Cut eight crops of rows: pixels and the centre line in bins.

    Parameters
    ----------
    page : DrawnPage
    rng : Generator
        All chance comes from it.
    """
    return [
        (torch.from_numpy(s.pixels), torch.from_numpy(s.y_bin)) for s in row_samples(page, TRACE.crop_px[1], 8, rng)
    ]


def label_crops(page: DrawnPage, rng: np.random.Generator) -> list[Sample]:
    """Cut three windows of every lead name and as many of other ink: pixels and lead.

    Parameters
    ----------
    page : DrawnPage
    rng : Generator
        All chance comes from it.
    """
    samples = [s for _ in range(3) for s in label_samples(page, rng)]
    return [(torch.from_numpy(s.pixels), torch.tensor(s.lead)) for s in samples]


def spike_crops(page: DrawnPage, rng: np.random.Generator) -> list[Sample]:
    """Show up to 48 strokes of a page's rows: pixels and the spike's share of the stroke.

    Parameters
    ----------
    page : DrawnPage
    rng : Generator
        All chance comes from it.
    """
    return [(torch.from_numpy(s.pixels), torch.tensor(s.share)) for s in stroke_samples(page, 48, rng)]


TASKS = {
    task.specification.name: task
    for task in (
        Task(specification=PAGE, crops=page_crops, loss=losses.page_loss, figures=losses.page_figures, share=0.15),
        Task(specification=BEND, crops=bend_crops, loss=losses.bend_loss, figures=losses.bend_figures, share=0.2),
        Task(
            specification=LAYOUT, crops=layout_crops, loss=losses.layout_loss, figures=losses.layout_figures, share=0.15
        ),
        Task(specification=LABEL, crops=label_crops, loss=losses.label_loss, figures=losses.label_figures, share=0.1),
        Task(specification=TRACE, crops=trace_crops, loss=losses.trace_loss, figures=losses.trace_figures, share=0.35),
        Task(specification=SPIKE, crops=spike_crops, loss=losses.spike_loss, figures=losses.spike_figures, share=0.05),
    )
}
