"""The cores that this process may use, and independent parts of one page side by side on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2

A = TypeVar("A")
B = TypeVar("B")


def cores_of(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many cores this process may use: those of the machine, or of the limit that its container has.

    More threads than a container's limit (cgroup v2) would spend most of each period stopped.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        limit_us, period_us = quota.read_text(encoding="ascii").split()
    except OSError:  # no container, or one of cgroup v1
        return cores
    return cores if limit_us == "max" else max(1, min(cores, int(limit_us) // int(period_us)))


def side_by_side(function: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """Return what a function makes of each item, in their order, on as many threads as OpenCV has here.

    It pays where the work is done by NumPy, SciPy, OpenCV or onnxruntime on large arrays: they run without Python's
    lock.  Networks have threads of their own, and belong in none of these.

    Parameters
    ----------
    function : callable
        Reads what it shares with the others, and writes none of it.
    items : iterable
    """
    items = list(items)
    threads = min(cv2.getNumThreads(), len(items))
    if threads < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))
