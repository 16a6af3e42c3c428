"""What is digitized, and what is left out and named."""

from __future__ import annotations

import os
from datetime import date, datetime
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from pipeline.archive.manifest import Entry, entries_of, read_source


def test_a_folder_is_read_at_any_depth_and_what_is_no_picture_is_named(tmp_path: Path) -> None:
    for name in ("b/2.PDF", "a.png", "b/1.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    manifest = read_source(tmp_path)
    assert [os.path.relpath(entry.path, tmp_path) for entry in manifest.entries] == ["a.png", "b/1.jpg", "b/2.PDF"]
    assert [problem.where for problem in manifest.problems] == [str(tmp_path / "notes.txt")]


def test_every_row_of_a_csv_file_counts_or_is_named(tmp_path: Path) -> None:
    text = (
        b"\xef\xbb\xbfpath,patient,date\r\n"
        b"a.png,P1,2020-02-29\r\n"
        b"/scans/b.png,,20210131\r\n"
        b",P2,\r\n"
        b"c.png,P3,31.12.2020\r\n"
        b"./x/../a.png,P1,\r\n"
        b"d.png\r\n"
        b"J\xfcrgen.png,P4,\r\n"
        b's3://bucket/e.png,"Q ""5""",\r\n'
        b'"f.png,P6,\r\n'
        b"g.png,P7,\r\n"
    )
    (tmp_path / "list.csv").write_bytes(text)
    manifest = read_source(tmp_path / "list.csv")
    assert manifest.entries == (
        Entry(str(tmp_path / "a.png"), "P1", date(2020, 2, 29)),
        Entry("/scans/b.png", None, date(2021, 1, 31)),
        Entry("s3://bucket/e.png", 'Q "5"'),
    )
    assert [str(problem) for problem in manifest.problems] == [
        "line 4: has no path",
        "line 5: the date is '31.12.2020': must be YYYY-MM-DD or YYYYMMDD",
        f"row 5: {tmp_path / 'a.png'} is listed before; it is digitized once",
        "line 7: has 1 cells, the header has 3",
        "line 8: is not UTF-8",
        "lines 10 to 11: a quotation mark is not closed: a row must be one line",
    ]


def test_a_parquet_manifest_and_the_runs_own_list_are_read(tmp_path: Path) -> None:
    table = pyarrow.table(
        {"path": ["a.png", None, "b.png"], "date": [datetime(2020, 1, 2, 3), None, None], "patient": [7, 8, None]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "list.parquet")
    manifest = read_source(tmp_path / "list.parquet")
    assert manifest.entries == (
        Entry(str(tmp_path / "a.png"), "7", date(2020, 1, 2)),
        Entry(str(tmp_path / "b.png"), None, None),
    )
    assert [str(problem) for problem in manifest.problems] == ["row 2: has no path"]
    (tmp_path / "own.parquet").write_bytes(manifest.to_parquet(1))
    own = read_source(tmp_path / "own.parquet")
    assert own.id == manifest.id and own.problems == ()
    group = pyarrow.parquet.ParquetFile(tmp_path / "own.parquet").read_row_group(1)
    assert entries_of(group) == [manifest.entries[1]]


def test_the_id_depends_on_every_entry(tmp_path: Path) -> None:
    ids = set()
    for row in ("a.png,P,", "b.png,P,", "a.png,Q,", "a.png,P,20200101", "a.png,P,\nb.png,P,"):
        (tmp_path / "list.csv").write_text(f"path,patient,date\n{row}\n")
        ids.add(read_source(tmp_path / "list.csv").id)
    assert len(ids) == 5


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("list.csv", "file,patient\na.png,P\n", "one must be named path"),
        ("list.csv", "path,path\na.png,P\n", "path more than once"),
        ("list.csv", "", "one must be named path"),
        ("list.csv", "path\n\n", "holds no file to digitize: 1 left out, the first is line 2"),
        ("list.parquet", "no parquet", "Parquet"),
        ("list.txt", "a.png", "must be a folder or a manifest"),
    ],
)
def test_a_source_that_is_none_is_refused_with_the_rule(tmp_path: Path, name: str, text: str, rule: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rule):
        read_source(tmp_path / name)


def test_a_source_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder or manifest"):
        read_source(tmp_path / "none.csv")
