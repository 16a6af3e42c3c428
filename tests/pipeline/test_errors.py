"""What the errors say about a retry: the worker acts on the type, the docstring explains it."""

from __future__ import annotations

from pipeline import errors
from pipeline.errors import DigitizationError, TransientError


def subclasses(kind: type) -> set[type]:
    return {kind, *(found for child in kind.__subclasses__() for found in subclasses(child))}


def test_only_a_lack_of_memory_is_worth_a_retry() -> None:
    worth = {kind.__name__ for kind in subclasses(TransientError)}
    assert worth == {"TransientError", "DeviceError"}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    tree = errors.__doc__ or ""
    named = {line.strip(" |-`").split()[0] for line in tree.splitlines() if "-- " in line}
    assert named == {kind.__name__ for kind in subclasses(DigitizationError)} - {"DigitizationError"}
