"""The report of a run: counts, reasons, and pages to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.archive.manifest import Entry
from pipeline.archive.output import Output
from pipeline.archive.report import summarise, to_html
from pipeline.archive.rows import CRASHED, Outcome, failure, row_of, to_parquet
from tests.pipeline.paper_samples import digitization


def test_the_report_counts_and_names_pages_to_look_at(tmp_path: Path) -> None:
    read = digitization()
    good = replace(read, quality=replace(read.quality, warnings=()))
    doubtful = replace(read, quality=replace(read.quality, warnings=("ink 11 mm tall at 6.2 s in V1 is missing",)))
    rows = [row_of(Entry(f"/scans/good {k}.png"), "0", good) for k in range(30)]
    rows += [row_of(Entry(f"/scans/<{k}>.png"), "0", doubtful) for k in range(9)]
    rows += [failure(Entry("/scans/poison.png"), 2, CRASHED, "the page ended the process")]
    output = Output(str(tmp_path))
    output.write_part(0, to_parquet(rows[:10]))
    output.write_part(1, to_parquet(rows[10:]))
    summary = summarise(output)
    assert summary.outcomes == {Outcome.READ: 30, Outcome.REVIEW: 9, Outcome.FAILED: 1}
    assert summary.causes == {CRASHED: 1} and summary.layouts == {"3x4+1R": 39}
    assert summary.histogram.total() == 39 and len(summary.lowest) == 20
    html = to_html(summary, {"id": "abc"})
    assert "ink # mm tall at # s in V# is missing" in html and "/scans/poison.png page 2" in html
    assert "&lt;0&gt;" in html and "<0>" not in html
    assert 'read, to be looked at</td><td class="words">9 (22.5 %)' in html


def test_a_row_holds_the_record_and_how_it_was_read(tmp_path: Path) -> None:
    result = digitization()
    output = Output(str(tmp_path))
    output.write_part(0, to_parquet([row_of(Entry("/scans/1.png", "P1"), "ab", result)]))
    (row,) = output.pages().to_table().to_pylist()
    assert row["signal_mv"][1][:100] == result.record.signal_mv[1][:100].tolist()
    assert row["leads"] == [str(lead) for lead in result.record.leads] and row["patient"] == "P1"
    assert '"estimated_snr_db"' in row["details"] and row["cause"] is None
