"""An endless stream of training batches: draw a page, cut several crops, mix crops of many pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.networks.unet import LAYOUT_STRIDE
from pipeline.training.augment import bend_sample, label_samples, layout_sample, page_samples, row_samples
from pipeline.training.records import load_records
from pipeline.training.synth import DrawnPage, random_page, system_fonts

Sample = tuple[Tensor, ...]
PAGE_CROP_PX = 384
BEND_CROP_PX = 384
LAYOUT_CROP_PX = 320
ROW_CROP_PX = 320


def _page(page: DrawnPage, rng: np.random.Generator) -> list[Sample]:
    return [(torch.from_numpy(s.pixels), torch.from_numpy(s.classes)) for s in page_samples(page, PAGE_CROP_PX, 3, rng)]


def _bends(page: DrawnPage, rng: np.random.Generator) -> list[Sample]:
    samples = (bend_sample(page, BEND_CROP_PX, rng) for _ in range(6))
    return [(torch.from_numpy(s.pixels), torch.from_numpy(s.shift_mm)) for s in samples]


def _layout(page: DrawnPage, rng: np.random.Generator) -> list[Sample]:
    samples: list[Sample] = []
    for _ in range(6):
        s = layout_sample(page, LAYOUT_CROP_PX, rng)
        half = LAYOUT_CROP_PX // LAYOUT_STRIDE
        bands = cv2.resize(s.bands, (half, half), interpolation=cv2.INTER_AREA)
        samples.append((torch.from_numpy(s.pixels), torch.from_numpy(bands)))
    return samples


def _rows(page: DrawnPage, rng: np.random.Generator) -> list[Sample]:
    return [(torch.from_numpy(s.pixels), torch.from_numpy(s.y_bin)) for s in row_samples(page, ROW_CROP_PX, 8, rng)]


def _labels(page: DrawnPage, rng: np.random.Generator) -> list[Sample]:
    samples = [s for _ in range(3) for s in label_samples(page, rng)]
    return [(torch.from_numpy(s.pixels), torch.tensor(s.lead)) for s in samples]


CROPS: dict[str, Callable[[DrawnPage, np.random.Generator], list[Sample]]] = {
    "page": _page,
    "bend": _bends,
    "layout": _layout,
    "label": _labels,
    "trace": _rows,
}


class CropStream(IterableDataset[Sample]):
    """Crops for one network; each worker draws its own pages from its own seed.

    Parameters
    ----------
    network : {"page", "bend", "layout", "label", "trace"}
    signals : Path
        Folder of recordings, see `records.load_records`.
    part : {"train", "validation"}
    seed : int or sequence of int
        The same seed and number of workers give the same crops.
    mix : int
        Crops held back to be mixed.
    """

    def __init__(self, network: str, signals: Path, part: str, seed: tuple[int, ...], mix: int = 96) -> None:
        self.network, self.signals, self.part, self.seed, self.mix = network, signals, part, seed, mix

    def __iter__(self) -> Iterator[Sample]:
        """Yield crops for ever."""
        info = get_worker_info()
        if info:  # the trainer wants the cores
            cv2.setNumThreads(1)
            torch.set_num_threads(1)
        records = load_records(self.signals, self.part)
        crops = CROPS[self.network]
        rng = np.random.default_rng([*self.seed, info.id if info else 0])
        fonts = system_fonts()
        held: list[Sample] = []
        while True:
            held += crops(random_page(records, rng, fonts), rng)
            while len(held) > self.mix:
                yield held.pop(int(rng.integers(len(held))))
