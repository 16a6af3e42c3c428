"""One sitting of a run: begins or continues it, follows it on standard error, and writes its report."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.archive.flow import Crew, Run, digitize, open_run
from pipeline.archive.manifest import PICTURES, read_source
from pipeline.archive.output import PROBLEMS, REPORT, Output, OutputError
from pipeline.archive.report import summarise, to_html
from pipeline.archive.rows import Outcome

_FAILED, _REFUSED, _STOPPED = 1, 2, 3
_NAMED = 10  # rows of a manifest that are named on the screen; all are in a file
_A_LINE_S = 60.0  # between the lines of a run whose output is no terminal


def run(source: Path, out: str, crew: Crew, settings: dict[str, str], endings: Sequence[str] = PICTURES) -> int:
    """Digitize an archive, and say on standard error how it goes; of a folder the files with these endings.

    Returns
    -------
    int
        The exit status.
    """
    from ray.exceptions import RayError

    output = Output(out if "://" in out else str(Path(out).absolute()))
    try:
        if Path(output.place).is_relative_to(source.absolute()):
            raise OutputError(f"{out} lies in the source {source}: choose another folder")
        with output.held():
            manifest = read_source(source, endings)
            for problem in manifest.problems[:_NAMED]:
                print(f"left out: {problem}", file=sys.stderr)
            if len(manifest.problems) > _NAMED:
                print(f"left out: {len(manifest.problems)} altogether, see {out}/{PROBLEMS}", file=sys.stderr)
            opened = open_run(output, manifest, settings)
            try:
                _follow(opened, crew)
            except RayError as error:
                print(f"the run stopped: {_last_line(error)}\nthe same command continues it", file=sys.stderr)
                return _STOPPED
            return _conclude(opened, out)
    except (OutputError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return _REFUSED


def _follow(opened: Run, crew: Crew) -> None:
    """Digitize what is left, with a progress bar, or with a line a minute where there is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("files"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    began = spoken = time.monotonic()
    pages: Counter[str] = Counter()
    done = opened.files - opened.files_of(opened.left())
    with Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=3600) as progress:
        bar = progress.add_task("files", total=opened.files, completed=done, words="")
        for part in digitize(opened, crew):
            pages += part.pages
            done += part.files
            now = time.monotonic()
            rate = pages.total() / (now - began)
            words = f"{rate:.2f} pages/s, {pages[Outcome.FAILED]} failed"
            progress.update(bar, completed=done, words=words)
            if not console.is_terminal and now - spoken > _A_LINE_S:
                spoken = now
                print(f"{done} of {opened.files} files, {words}", file=sys.stderr)


def _conclude(opened: Run, out: str) -> int:
    """Write the report; return the exit status."""
    summary = summarise(opened.output)
    facts = {"id": opened.manifest_id, "files": str(opened.files), "left out of the source": str(opened.left_out)}
    opened.output.write(REPORT, to_html(summary, facts).encode())
    counts = summary.outcomes
    print(
        f"{opened.files} files, {counts.total()} pages: {counts[Outcome.READ]} read, {counts[Outcome.REVIEW]} to be "
        f"looked at, {counts[Outcome.FAILED]} without a record; left out of the source: {opened.left_out}; "
        f"report: {out}/{REPORT}",
        file=sys.stderr,
    )
    return _FAILED if counts[Outcome.FAILED] or opened.left_out else 0


def _last_line(error: BaseException) -> str:
    """Return what an error of Ray says in the end, without the stack above it."""
    return str(error).strip().rpartition("\n")[2].strip() or type(error).__name__
