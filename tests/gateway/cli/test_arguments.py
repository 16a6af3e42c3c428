"""Job ids, states and folders, as a person types them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.store.store import Store
from gateway.store.tables import Job

Run = Callable[..., tuple[int, str, str]]


def test_a_job_is_found_by_the_first_characters_of_its_id(run: Run, reviewed: Job) -> None:
    for given in (reviewed.id, reviewed.id[:4], reviewed.id[:13], reviewed.id[:8].upper()):
        status, output, _ = run("show", given)
        assert status == 0 and f"job {reviewed.id}:" in output
    assert "1 deliveries are sent again" in run("resend", reviewed.id[:6])[1]
    assert f"job {reviewed.id} is queued again" in run("retry", reviewed.id[:6])[1]
    assert f"job {reviewed.id} is cancelled" in run("cancel", reviewed.id[:6])[1]


def test_too_short_or_ambiguous_is_refused(run: Run, store: Store) -> None:
    for end in "012":
        id_ = f"abcd{end}000-0000-4000-8000-000000000000"
        store.jobs.submit(Job(id=id_, source="submit", source_key=end, media_type="image/png"), "cli")
    status, output, errors = run("show", "abcd")
    assert (status, output) == (1, "") and "3 jobs have an id that begins with abcd" in errors
    status, output, errors = run("show", "abc")
    assert (status, output) == (1, "") and "at least 4 characters" in errors
    assert run("show", "abcd1")[0] == 0
    for wild in ("____", "%%%%", "abcd%"):
        status, _, errors = run("show", wild)
        assert status == 1 and f"no job {wild}" in errors


@pytest.mark.parametrize("state", ["needs_review", "Needs_Review", "NEEDS_REVIEW"])
def test_a_state_may_be_written_in_any_case(run: Run, reviewed: Job, state: str) -> None:
    assert reviewed.id in run("jobs", "--status", state)[1]


COMMANDS = (
    ("jobs",),
    ("show", "abcd"),
    ("retry", "abcd"),
    ("cancel", "abcd"),
    ("unmatched",),
    ("identify", "abcd", "--patient-id", "P1"),
    ("confirm", "abcd"),
    ("merges",),
    ("undelivered",),
    ("resend", "abcd"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_in_a_folder_without_a_gateway_nothing_is_created(
    gateway_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (tmp_path / "empty.toml").write_text("", encoding="utf-8")
    status, output, errors = gateway_command(tmp_path / "empty.toml", *command)
    assert (status, output) == (2, "")
    assert "no gateway has run here" in errors and str(folder / "var" / "gateway.db") in errors
    assert os.listdir(folder) == []
