"""An endless stream of training batches: draw a page, cut several crops, mix crops of many pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.training.drawing.synth import random_page, system_fonts
from pipeline.training.recordings.records import load_records
from pipeline.training.tasks import Sample, Task


class CropStream(IterableDataset[Sample]):
    """Crops for one network; each worker draws its own pages from its own seed.

    Parameters
    ----------
    task : Task
        Cuts the crops.
    signals : Path
        Folder of recordings, see `records.load_records`.
    part : {"train", "validation"}
    seed : int or sequence of int
        The same seed and number of workers give the same crops.
    mix : int
        Crops held back to be mixed.
    """

    def __init__(self, task: Task, signals: Path, part: str, seed: tuple[int, ...], mix: int = 96) -> None:
        self.task, self.signals, self.part, self.seed, self.mix = task, signals, part, seed, mix

    def __iter__(self) -> Iterator[Sample]:
        """Yield crops for ever."""
        info = get_worker_info()
        if info:  # the trainer wants the cores
            cv2.setNumThreads(1)
            torch.set_num_threads(1)
        records = load_records(self.signals, self.part)
        rng = np.random.default_rng([*self.seed, info.id if info else 0])
        fonts = system_fonts()
        held: list[Sample] = []
        while True:
            held += self.task.crops(random_page(records, rng, fonts), rng)
            while len(held) > self.mix:
                yield held.pop(int(rng.integers(len(held))))
