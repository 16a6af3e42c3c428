"""The documentation is true: the example settings, the conformance statement, the README, links, paths, the site."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import typer
from pydantic import BaseModel
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from typer.main import get_command

import pipeline.command_line
from gateway.cli import commands
from gateway.dicom.images.pages import DOCUMENT_SOP_CLASSES, IMAGE_SOP_CLASSES
from gateway.domain.context import StudyContext
from gateway.settings import Settings, load_settings
from pipeline import BUDGET

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "config" / "gateway.example.toml"
SITE = ROOT / "config" / "mkdocs.yml"
OUTSIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
HISTORY = {"CHANGELOG.md", "training-log.md", "changelog.md"}  # they name files as they were called then
WRITTEN_BY_THE_SITE = {"docker/gateway.toml"}
_PATH = re.compile(r"`((?:gateway|pipeline|config|tests|systemd|docker|docs|\.ci)/[\w./@-]*)`")


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
        "fhir",
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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a broken link, anchor or navigation entry is an error."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(SITE), "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "default"}
    built = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert built.returncode == 0, built.stderr
    return out


def test_site_has_every_page(site: Path) -> None:
    built = {page.relative_to(site).with_suffix(".md").as_posix() for page in site.rglob("*.html")} - {"404.md"}
    assert built == {page.relative_to(ROOT / "docs").as_posix() for page in PAGES}


def test_site_loads_nothing_from_the_network(site: Path) -> None:
    """Scripts, styles, pictures and fonts lie in the site itself; a link that a person may click is allowed."""
    loads = re.compile(r'<(?:script|img|iframe|source)[^>]*\ssrc="?(?:https?:)?//|<link[^>]*\shref="?(?:https?:)?//')
    assert [page.name for page in site.rglob("*.html") if loads.search(page.read_text(encoding="utf-8"))] == []
    styles = re.compile(r"(?:url\(|@import )[\"']?(?:https?:)?//")
    assert [page.name for page in site.rglob("*.css") if styles.search(page.read_text(encoding="utf-8"))] == []


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as the site and the usual hosts make them."""
    headings = re.findall(r"^#+ +(.*?) *$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("document", [*OUTSIDE, *PAGES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link, also of the files outside the site: the file exists, and it has the heading."""
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), f"{link} in {document.name}"
        assert not anchor or anchor in anchors(target), f"{link} in {document.name}"


@pytest.mark.parametrize("document", [*OUTSIDE, *PAGES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_paths_that_are_named_exist(document: Path) -> None:
    if document.name in HISTORY:
        return
    named = set(_PATH.findall(document.read_text(encoding="utf-8"))) - WRITTEN_BY_THE_SITE
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_readme_names_every_key_of_a_sidecar() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("[start:sidecar]")[2].partition("[end:sidecar]")[0]
    rows = "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", rows)) == set(StudyContext.model_fields)


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "index.md").read_text(encoding="utf-8"))
    assert listed == sorted(path.name for path in folder.glob("0*.md"))


def test_every_room_is_in_the_architecture() -> None:
    """Every folder of the packages has a row in the tables of rooms, and every row has its folder or module."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for package in ("gateway", "pipeline"):
        table = text.partition(f"## Rooms of `{package}`")[2].partition("\n## ")[0]
        cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
        named = set(re.findall(r"`(\w+)`", "".join(cells)))
        rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert rooms <= named, f"{package}: {rooms - named}"
        assert all((ROOT / package / name).is_dir() or (ROOT / package / f"{name}.py").exists() for name in named)


@pytest.mark.parametrize(
    ("program", "app"), [("ecg-gateway", commands.app), ("ecg-digitize", pipeline.command_line.app)]
)
def test_readme_has_every_command_and_no_other(program: str, app: typer.Typer) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("### Commands")[2]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith(f"| `{program} ")]
    named = {code.removeprefix(f"{program} ").split()[0] for row in rows for code in re.findall(r"`([^`]+)`", row)}
    assert named == set(get_command(app).commands)  # type: ignore[attr-defined]


def test_budget_of_a_file_is_documented_with_its_values() -> None:
    page = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    for bound in dataclasses.fields(BUDGET):
        value = getattr(BUDGET, bound.name)
        forms = (f"| {value // 1_000_000:g} million |", f"| {value:,} ", f"| {value:g} ")
        assert any(form in page for form in forms), f"{bound.name} = {value}"
