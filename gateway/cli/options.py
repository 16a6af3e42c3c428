"""Options that several commands share travel as one value: a frozen dataclass, each of its fields an option.

Typer reads a command's options from its signature.  `with_options` gives it a signature in which every parameter that
is such a dataclass is replaced by the dataclass's fields.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from gateway.dicom.network.find import StudyQuery
from gateway.domain.context import StudyContext


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityOptions:
    """Whose ECG it is and when it was recorded, as a person states it."""

    patient_id: Annotated[str, typer.Option(help="The patient (DICOM PatientID).")] = ""
    issuer: Annotated[str, typer.Option(help="Who assigned that ID (DICOM IssuerOfPatientID).")] = ""
    patient_name: Annotated[str, typer.Option(help="DICOM PatientName, e.g. DOE^JANE.")] = ""
    birth_date: Annotated[str, typer.Option(help="YYYYMMDD.")] = ""
    sex: Annotated[str, typer.Option(help="F, M or O.")] = ""
    accession_number: Annotated[str, typer.Option(help="The order's accession number.")] = ""
    study_date: Annotated[str, typer.Option(help="YYYYMMDD.")] = ""
    recorded_at: Annotated[
        str, typer.Option(help="When the ECG was recorded: YYYYMMDD, or YYYYMMDDHHMMSS by the cart's clock.")
    ] = ""

    def context(self) -> StudyContext:
        """Return the stated identity."""
        return StudyContext(
            patient_id=self.patient_id,
            issuer_of_patient_id=self.issuer,
            patient_name=self.patient_name,
            patient_birth_date=self.birth_date,
            patient_sex=self.sex,
            accession_number=self.accession_number,
            study_date=self.study_date,
            acquisition_date_time=self.recorded_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """Which studies of an archive are meant."""

    patient_id: Annotated[str, typer.Option(help="DICOM PatientID.")] = ""
    study_date: Annotated[str, typer.Option(help="YYYYMMDD or YYYYMMDD-YYYYMMDD.")] = ""
    accession_number: Annotated[str, typer.Option(help="The order's accession number.")] = ""
    modality: Annotated[str, typer.Option(help="E.g. ECG; `pull` accepts several, e.g. OT,SC,ECG. Not set: all.")] = ""
    description: Annotated[str, typer.Option(help="Of the study, with * and ? as wild cards.")] = ""

    def query(self, modalities: str = "") -> StudyQuery:
        """Return the query for these studies, of `modalities` at study level."""
        return StudyQuery(
            patient_id=self.patient_id,
            study_date=self.study_date,
            accession_number=self.accession_number,
            modalities=modalities,
            study_description=self.description,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions:
    """Where objects of an archive go, and how fast they are fetched."""

    into: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep the objects there for `ecg-gateway archive`; no jobs are made."),
    ] = None
    batch: Annotated[int, typer.Option(min=1, help="Objects in one retrieval.")] = 20
    pause: Annotated[float, typer.Option(min=0, help="Seconds between two retrievals.")] = 0.0
    queue: Annotated[int, typer.Option(min=1, help="While this many jobs are queued, nothing is fetched.")] = 200


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with an option for every field of its dataclass parameters."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type] = {}
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            groups[name] = hints[name]
            options = get_type_hints(hints[name], include_extras=True)
            parameters += [
                parameter.replace(name=field.name, annotation=options[field.name], default=field.default)
                for field in fields(hints[name])
            ]
        else:
            parameters.append(parameter.replace(annotation=hints[name]))

    @wraps(command)
    def grouped(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    grouped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    grouped.__annotations__ = {each.name: each.annotation for each in parameters}
    return grouped
