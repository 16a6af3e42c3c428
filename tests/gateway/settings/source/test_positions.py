"""The lines of keys: every path that `tomllib` reads is found, on the line where a person sees it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.settings.source.positions import At, positions

ROOT = Path(__file__).resolve().parents[4]

ODD = r'''# c [x]
top = 1
"quoted \"k\u0041" = 'a # b'
[dicom] # x
port = 104
a.b.c = """
x = 3
[no]
""""
after = [1, # one
  "two,]", {x = 1, y.z = [3]},
]
[[d]]
n = 1979-05-27T07:32:00.5Z
[d.retry]
x = -1.5e3
[[d]]
f = { "PV1-2" = "O", 'q"' = "\\" }
[[d.inner]]
q = true
[e]
l = """a\
   b \""" c"""
m = \'\'\'it's
\'\'\'
z = ""
'''.replace("\\'", "'")
LINES = {
    ("top",): 2,
    ('quoted "kA',): 3,
    ("dicom", "a", "b", "c"): 6,
    ("dicom", "after", 1): 11,
    ("dicom", "after", 2, "y", "z", 0): 11,
    ("d", 0, "retry", "x"): 16,
    ("d", 1, "f", "PV1-2"): 18,
    ("d", 1, "inner", 0, "q"): 20,
    ("e", "z"): 26,
}


def paths(value: Any, at: At = ()) -> Iterator[At]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*at, key)
        yield from paths(each, (*at, key))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_key_and_element_is_found_on_its_line(ending: str) -> None:
    text = ODD.replace("\n", ending)
    found = positions(text)
    assert set(found) == set(paths(tomllib.loads(text)))
    assert {at: found[at] for at in LINES} == LINES


def test_every_setting_of_the_example_is_found() -> None:
    text = (ROOT / "config" / "gateway.example.toml").read_text(encoding="utf-8")
    found = positions(text)
    assert set(found) == set(paths(tomllib.loads(text)))
    lines = text.splitlines()
    assert all(str(at[-1]) in lines[line - 1] for at, line in found.items() if isinstance(at[-1], str))
