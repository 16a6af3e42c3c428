"""The faults of `make chaos` are judged rightly: what is lost, twice or wrong is seen, and an input can be repeated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT
from tests.chaos.account import Account, Arrived, Ledger, account
from tests.chaos.mutate import hl7_corpus, mutated
from tests.chaos.report import Row, table
from tests.waiting import PATIENCE_S

LEDGER = Ledger(objects={"1.1": "A"}, files={"b.png": "B"}, orders={"L1": "B"}, mutated={"1.9"}, sent={"A", "B"})
JOBS, ORDERS = ("1.1", "hash of b.png", "1.9"), ("L1",)


def arrived(identifier: str, patient_id: str, about: str = "", digest: str = "d") -> Arrived:
    return Arrived(identifier=identifier, patient_id=patient_id, about=about, digest=digest)


OBJECTS = [arrived("2.1", "A", about="1.1"), arrived("2.2", "B"), arrived("2.1", "A", about="1.1")]
MESSAGES = [arrived("M1", "A", about="2.1"), arrived("M2", "B", about="2.2")]


def test_nothing_is_wrong_where_everything_arrived_and_a_repeat_is_the_same() -> None:
    assert account(LEDGER, OBJECTS, MESSAGES, JOBS, ORDERS) == Account()


@pytest.mark.parametrize(
    ("objects", "messages", "jobs", "orders", "lost"),
    [
        (OBJECTS[1:2], MESSAGES, JOBS, ORDERS, "object 1.1 is not at the PACS"),
        (OBJECTS, MESSAGES[:1], JOBS, ORDERS, "file b.png is not at the EHR"),
        (OBJECTS, MESSAGES, JOBS[1:], ORDERS, "object 1.1 has no job"),
        (OBJECTS, MESSAGES, JOBS[:2], ORDERS, "object 1.9 has no job"),
        (OBJECTS, MESSAGES, JOBS, (), "order L1 is not kept"),
    ],
)
def test_what_did_not_arrive_is_lost(
    objects: list[Arrived], messages: list[Arrived], jobs: tuple[str, ...], orders: tuple[str, ...], lost: str
) -> None:
    assert account(LEDGER, objects, messages, jobs, orders) == Account(lost=frozenset({lost}))


@pytest.mark.parametrize(
    ("second", "orders", "twice"),
    [
        (arrived("2.3", "B"), ORDERS, "a page of B has 2 SOP Instance UIDs"),
        (arrived("2.2", "B", digest="other"), ORDERS, "SOP Instance UID 2.2 has 2 contents"),
        (OBJECTS[0], ("L1", "L1"), "order L1 is kept twice"),
    ],
)
def test_another_identifier_or_other_bytes_under_one_are_twice(
    second: Arrived, orders: tuple[str, ...], twice: str
) -> None:
    assert account(LEDGER, [*OBJECTS, second], MESSAGES, JOBS, orders).twice == {twice}


def test_a_result_under_another_patient_is_wrong() -> None:
    swapped = [arrived("2.1", "B", about="1.1"), arrived("2.2", "A")]
    found = account(LEDGER, swapped, MESSAGES, JOBS, ORDERS)
    assert found.lost == frozenset() and len(found.wrong) == 3  # the object, and both messages about them
    assert found.since(found) == Account()


def test_input_number_of_a_seed_is_always_the_same() -> None:
    first = [mutated("hl7", 1, number, hl7_corpus()) for number in range(50)]
    assert first == [mutated("hl7", 1, number, hl7_corpus()) for number in range(50)]
    assert first != [mutated("hl7", 2, number, hl7_corpus()) for number in range(50)]


@pytest.mark.parametrize(
    ("act", "fault"),
    [("1 / 0", "UNDECLARED ZeroDivisionError"), ("os.kill(os.getpid(), signal.SIGSEGV)", "CRASH: signal 11")],
)
def test_a_parser_that_breaks_is_a_fault_and_its_input_is_kept(act: str, fault: str, tmp_path: Path) -> None:
    """In a process of its own: the fuzzer forks."""
    program = f"""
import json, os, pathlib, signal
from tests.chaos import parsers
broken = parsers.Target(parse=lambda data: {act}, declares=(), corpus=lambda: (b"abc",), weight=1)
parsers.TARGETS["broken"] = broken
print(json.dumps(parsers.fuzz("broken", 1, 1.0, pathlib.Path({str(tmp_path)!r}))))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=6 * PATIENCE_S, check=True)
    _, inputs, problems = json.loads(done.stdout)
    assert inputs == len(problems) > 0 and problems[0].startswith(fault) and "--seed 1 --number 0" in problems[0]
    assert (tmp_path / "broken-0.bin").exists()


def test_table_has_a_row_for_every_fault() -> None:
    rows = [Row(name="kill -9", done="3 kills", acknowledged=1234, lost=0, slowest_s=0.5), Row(name="hl7", inputs=9)]
    head, rule, *body = table(rows).splitlines()
    assert {line.count("|") for line in (head, rule, *body)} == {12}
    assert "| kill -9 | 3 kills |  | 1,234 | 0 |" in body[0] and body[1].startswith("| hl7 |  | 9 |")
