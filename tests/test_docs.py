"""What is written down is true: the example settings, the conformance statement, the README."""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway.dicom.images.pages import DOCUMENT_SOP_CLASSES, IMAGE_SOP_CLASSES
from gateway.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "config" / "gateway.example.toml"


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings sections that a field's annotation mentions: itself, in a tuple, in a union, annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (tuple, Union, types.UnionType, Annotated):
        for argument in get_args(annotation):
            yield from sections(argument)


def settings_by_table(section: type[BaseModel] = Settings, table: str = "") -> Iterator[tuple[str, str]]:
    """Every (table, setting) there is; the three kinds of destination share the table `destinations`."""
    for name, field in section.model_fields.items():
        inner = list(sections(field.annotation))
        for kind in inner:
            yield from settings_by_table(kind, f"{table}.{name}".strip("."))
        if not inner:
            yield table, name


def documented_settings(text: str) -> set[tuple[str, str]]:
    """Every (table, setting) that the example shows, whether it is set or a comment."""
    shown: set[tuple[str, str]] = set()
    table = ""
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        if header := re.match(r"\[\[?([a-z0-9_.]+)\]\]?", bare):
            table = header[1]
        elif setting := re.match(r"([a-z0-9_]+) = ", bare):
            shown.add((table, setting[1]))
    return shown


def test_example_names_every_setting_and_no_other() -> None:
    assert documented_settings(EXAMPLE.read_text(encoding="utf-8")) == set(settings_by_table())


def test_example_is_the_defaults() -> None:
    assert load_settings(EXAMPLE) == Settings()


def test_example_sets_everything_that_has_a_default() -> None:
    """A default that changes must change in the example, too: so no default may hide behind a missing line."""
    tree = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    expected = Settings().model_dump(mode="json", exclude_none=True)
    del expected["destinations"], expected["dicom"]["callers"]
    assert tree == expected


def test_commented_examples_load(tmp_path: Path) -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    code = re.compile(r"# (\[|[a-z0-9_]+ = )")
    uncommented = [line[2:] if code.match(line) else line for line in lines]
    file = tmp_path / "gateway.toml"
    file.write_text("\n".join(uncommented), encoding="utf-8")
    settings = load_settings(file)
    assert [destination.kind for destination in settings.destinations] == [
        "dicom",
        "dicomweb",
        "dicomweb",
        "hl7",
        "folder",
    ]
    assert settings.dicom.callers[0].hosts == ("10.1.2.0/24",)


def test_every_sop_class_offered_is_in_the_conformance_statement() -> None:
    statement = (ROOT / "docs" / "conformance" / "dicom.md").read_text(encoding="utf-8")
    offered = {str(uid) for uid in (*IMAGE_SOP_CLASSES, *DOCUMENT_SOP_CLASSES, Verification)}
    assert len(offered) > 5
    assert sorted(uid for uid in offered if f"{uid} " not in statement.replace("`", " ").replace("|", " ")) == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_that_are_named_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:`|^\s*|\$ )make ([a-z][a-z-]*)", text, re.MULTILINE))
    assert named, f"{document} names no target"
    assert named <= targets
