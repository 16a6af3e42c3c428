"""Every mistake of a tree of settings, not only those that are met first.

A rule about several settings can only be checked where each of them is right by itself.  So the tree is validated in
rounds: what is wrong is left out of the next one.  What is wrong only because something was left out is not reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.settings.source.mistakes import Mistake
from gateway.settings.source.positions import At

Tree = TypeVar("Tree", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined(Generic[Tree]):
    """A tree of settings: what is right in it (None where nothing is), and every mistake."""

    right: Tree | None
    mistakes: tuple[Mistake, ...]
    tree: dict[str, Any]
    left_out: frozenset[At]

    def further(self, mistakes: Iterable[Mistake]) -> Iterator[Mistake]:
        """Yield mistakes that were found in `right`, with their places in the tree; what follows from others is not."""
        for mistake in mistakes:
            at = _original(self.tree, self.left_out, mistake.at)
            others = tuple(_original(self.tree, self.left_out, other) for other in mistake.others)
            if not _follows(self.tree, self.left_out, at, (at, *others)):
                yield replace(mistake, at=at, others=others)


def examine(model: type[Tree], tree: dict[str, Any]) -> Examined[Tree]:
    """Return what is right in a tree, and every mistake in it."""
    left_out: set[At] = set()
    found: dict[At, Mistake] = {}
    while True:
        try:
            settings = model.model_validate(_without(tree, left_out))
        except ValidationError as error:
            before = frozenset(left_out)
            for each in error.errors():
                at = _place(tree, before, each)
                others = tuple(_original(tree, before, other) for other in each.get("ctx", {}).get("others", ()))
                if not _follows(tree, before, at, others):
                    found.setdefault(at, Mistake(at=at, words=_words(model, tree, at, each), others=others))
                left_out.add(_what_to_leave_out(tree, before, at))
            left_out.discard(())
            if left_out > before:
                continue
            settings = None
        return Examined(right=settings, mistakes=tuple(found.values()), tree=tree, left_out=frozenset(left_out))


def nearest(word: str, known: Sequence[str]) -> str:
    """Return a question after the known word that is most like this one; "" where none is."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f": is {close[0]} meant?" if close else ""


def _words(model: type[BaseModel], tree: dict[str, Any], at: At, error: ErrorDetails) -> str:
    match error["type"]:
        case "extra_forbidden":
            return _unknown(model, tree, at)
        case "missing" | "union_tag_not_found":
            return f"is missing in {_heading(tree, at[:-1])}"
        case "union_tag_invalid":
            kinds = error["ctx"]["expected_tags"]
            return f"must be one of {kinds}{nearest(str(_get(tree, at)), kinds.replace(chr(39), '').split(', '))}"
        case "tuple_type":
            return (
                f"must be a list: write [{_heading(tree, at)}]"
                if isinstance(_get(tree, at), dict)
                else "must be a list: [...]"
            )
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a table"
        case "path_type":
            return "must be a path, in quotation marks"
    return error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def _unknown(model: type[BaseModel], tree: dict[str, Any], at: At) -> str:
    key, table = str(at[-1]), at[:-1]
    heading = _heading(tree, table)
    known = list(_sections(model, tree, table)[0].model_fields)
    above = _sections(model, tree, table[:-1])[0].model_fields if table else {}
    if table and isinstance(table[-1], str) and key in above:
        outer = _heading(tree, table[:-1]) or "the top of the file"
        return f"is no setting of {heading}, but of {outer}: write it above the line {heading}"
    return f"is no setting of {heading or 'the file'}{nearest(key, known)}"


def _heading(tree: dict[str, Any], table: At) -> str:
    """Return a table as its heading in a file."""
    if not table:
        return ""
    name = ".".join(part for part in table if isinstance(part, str))
    return f"[[{name}]]" if isinstance(table[-1], int) else f"[{name}]"


def _sections(model: type[BaseModel], tree: dict[str, Any], table: At) -> list[type[BaseModel]]:
    """Return the models that a table of the tree can be, of a kind of destination the one that it names."""
    models: list[type[BaseModel]] = [model]
    value: Any = tree
    for part in table:
        value = value[part]
        if isinstance(part, str):
            models = [
                inner
                for each in models
                if part in each.model_fields
                for inner in _models(each.model_fields[part].annotation)
            ]
        elif isinstance(value, dict) and "kind" in value:
            models = [each for each in models if each.model_fields["kind"].default == value["kind"]]
    return models or [model]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


# -- rounds -----------------------------------------------------------------------------------------------------------


def _without(tree: Any, left_out: Set[At], at: At = ()) -> Any:
    if isinstance(tree, dict):
        return {key: _without(value, left_out, (*at, key)) for key, value in tree.items() if (*at, key) not in left_out}
    if isinstance(tree, list):
        return [_without(tree[number], left_out, (*at, number)) for number in _kept(tree, left_out, at)]
    return tree


def _kept(elements: list[Any], left_out: Set[At], at: At) -> list[int]:
    return [number for number in range(len(elements)) if (*at, number) not in left_out]


def _place(tree: Any, left_out: Set[At], error: ErrorDetails) -> At:
    """Return where an error of a round stands in the whole tree, without pydantic's own words in its path."""
    location = (*error["loc"], *error.get("ctx", {}).get("at", ()))
    return _original(tree, left_out, (*location, "kind") if error["type"].startswith("union_tag") else location)


def _original(tree: Any, left_out: Set[At], location: At) -> At:
    at: At = ()
    for part in location:
        if isinstance(part, int) and isinstance(tree, list):
            part = _kept(tree, left_out, at)[part]
            tree = tree[part]
        elif isinstance(tree, dict) and part in tree:
            tree = tree[part]
        elif (isinstance(tree, dict) and part == tree.get("kind")) or part == "[key]":
            continue
        else:
            tree = None
        at = (*at, part)
    return at


def _follows(tree: dict[str, Any], left_out: Set[At], at: At, others: tuple[At, ...]) -> bool:
    """Return whether a mistake is one only because something else was left out."""
    if at in left_out:
        return True
    if at[-2:-1] == ("destinations",) and len(at) > 2:  # a folder names one that was left out
        return _get(tree, at) in [_get(tree, (*each[:2], "name")) for each in left_out if each[0] == "destinations"]
    return any(other[: len(each)] == each or each[: len(other)] == other for other in others for each in left_out)


def _what_to_leave_out(tree: dict[str, Any], left_out: Set[At], at: At) -> At:
    """Return the setting itself, or the next table around it that is still there."""
    while at and (_get(tree, at) is None or at in left_out):
        at = at[:-1]
    if at[-1:] == ("kind",):
        return at[:-1]
    return at


def _get(tree: Any, at: At) -> Any:
    for part in at:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return None
    return tree
