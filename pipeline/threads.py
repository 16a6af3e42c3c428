"""Independent parts of one page, side by side on the cores that this process may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2

A = TypeVar("A")
B = TypeVar("B")


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
