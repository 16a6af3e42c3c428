"""Runs of a mask."""

import numpy as np
import pytest

from pipeline.runs import runs_of


@pytest.mark.parametrize(
    ("mask", "runs"),
    [
        ("", []),
        ("...", []),
        ("###", [(0, 3)]),
        ("#..##.#", [(0, 1), (3, 5), (6, 7)]),
        (".##.", [(1, 3)]),
    ],
)
def test_runs_are_listed_from_left_to_right(mask: str, runs: list[tuple[int, int]]) -> None:
    assert runs_of(np.array([flag == "#" for flag in mask], bool)) == runs
