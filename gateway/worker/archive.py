"""Archive runs and the gateway: a run that reads DICOM objects, too, and the output of a run for the intake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.errors import IntakeError, SettingsError
from gateway.intake.accept import media_type_of
from gateway.worker.decode import decode_object
from pipeline import PageImage
from pipeline.errors import DigitizationError, PageUnreadable
from pipeline.source.bounded import read_bounded
from pipeline.source.page import load_pages

if TYPE_CHECKING:
    from pipeline.archive.results import FinishedRun


def open_run(place: str) -> FinishedRun:
    """Open the output folder of an archive run, or `s3://BUCKET/PREFIX`.

    Raises
    ------
    SettingsError
        The library that reads it is not installed.
    IntakeError
        There is no run.
    """
    try:
        from pipeline.archive.output import OutputError
        from pipeline.archive.results import read_run
    except ImportError as error:
        raise SettingsError(f"{error.name} is missing: pip install 'ecg-gateway[archive]'") from error
    try:
        return read_run(place if "://" in place else str(Path(place).absolute()))
    except (OutputError, OSError) as error:
        raise IntakeError(str(error)) from error


def run_archive(arguments: Sequence[str], program: str) -> None:
    """Be the command `ecg-digitize archive`, for DICOM objects as well."""
    from pipeline.archive.cli import Decoder
    from pipeline.command_line import app

    app(["archive", *arguments], prog_name=program, obj=Decoder(read_pages, (".dcm", ".dicom")))


def read_pages(data: bytes) -> list[PageImage]:
    """Return the pages of a file or of a DICOM object.

    Raises
    ------
    DigitizationError
        It cannot be read.
    """
    try:
        if media_type_of(data) != "application/dicom":
            return load_pages(data)
        parts = read_bounded(decode_object, data, errors=(IntakeError, DigitizationError))
    except IntakeError as error:
        raise PageUnreadable(str(error)) from error
    return [part for part in parts if isinstance(part, PageImage)]
