import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from pipeline.threads import cores_of, side_by_side


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


@pytest.mark.usefixtures("two_threads")
def test_two_items_are_worked_on_at_once_and_stay_in_order() -> None:
    both = threading.Barrier(2)

    def meet(item: int) -> int:
        if item == 1:  # comes last: the results are in the order of the items nevertheless
            both.wait(timeout=30)
            return 10
        both.wait(timeout=30)
        return 20

    assert side_by_side(meet, (1, 2)) == [10, 20]


@pytest.mark.usefixtures("two_threads")
def test_an_error_of_one_item_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda item: 1 // item, (1, 0, 2))


@pytest.mark.usefixtures("two_threads")
def test_a_process_with_one_core_starts_no_thread() -> None:
    cv2.setNumThreads(1)
    assert side_by_side(lambda _: threading.current_thread(), range(3)) == [threading.current_thread()] * 3


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000\n", 16), ("350000 100000\n", 3), ("50000 100000\n", 1), ("9900000 100000\n", 16)]
)
def test_a_container_with_a_limit_gets_no_more_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    quota = tmp_path / "cpu.max"
    assert cores_of(quota) == 16
    quota.write_text(text)
    assert cores_of(quota) == cores
