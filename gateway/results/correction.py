"""Correction: a new digitization replaces objects that were sent, and a note rejects those (IHE RAD TF, IOCM).

Each destination gets a note about the objects that arrived there, after the objects that replace them: the archive
always has a valid ECG.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from gateway.dicom.objects.documents import (
    REJECTED_FOR_QUALITY,
    REJECTED_FOR_SAFETY,
    REPLACED,
    encode_document,
    rejection_note,
)
from gateway.domain.artefact import Artefact, Role
from gateway.domain.context import StudyContext
from gateway.domain.status import has_arrived
from gateway.results.page import JobFacts, delivery_of
from gateway.spool.folder import Spool
from gateway.store.tables import Delivery

logger = logging.getLogger(__name__)


def rejections(
    facts: JobFacts,
    spool: Spool,
    earlier: Sequence[Delivery],
    new: Sequence[Delivery],
    at: datetime,
    words: str = REPLACED,
) -> tuple[list[Artefact], list[Delivery]]:
    """Return the notes that follow the deliveries of a job's new result.

    Parameters
    ----------
    earlier : Sequence[Delivery]
        All deliveries of the job so far.
    new : Sequence[Delivery]
        Those of the result at hand; where a page has none for a destination, what was sent there stays as it is.
    at : datetime
        When the note is made, aware.
    words : str
        Why, for a reader of the note.
    """
    notes: list[Artefact] = []
    deliveries: list[Delivery] = []
    for kind in facts.destinations:
        if not facts.revision or not kind.rejection_note:
            continue
        for page_number in sorted({d.page_number for d in new if d.destination == kind.name}):
            sent = _sent(earlier, kind.name, page_number, facts.revision)
            objects = [dataset for delivery in sent if (dataset := _read(spool, delivery)) is not None]
            if objects:
                title = _title(objects[0], facts.context)
                note = rejection_note(
                    objects, title, number=facts.revision, created_at=at, objects=facts.objects, words=words
                )
                artefact = Artefact(
                    page_number=page_number,
                    role=Role.REJECTION,
                    data=encode_document(note),
                    variant=kind.name,
                    revision=facts.revision,
                    identifier=str(note.SOPInstanceUID),
                )
                notes.append(artefact)
                deliveries.append(delivery_of(facts.job_id, kind, artefact))
    return notes, deliveries


def _sent(earlier: Sequence[Delivery], destination: str, page_number: int, revision: int) -> list[Delivery]:
    """Return what arrived there of earlier results and no note has rejected yet."""
    there = [
        each
        for each in earlier
        if has_arrived(each.status, each.asked)
        and (each.destination, each.page_number) == (destination, page_number)
        and each.role != Role.MESSAGE
    ]
    notes = [each.revision for each in there if each.role == Role.REJECTION]
    rejected_before = max(notes, default=0)
    return [each for each in there if each.role != Role.REJECTION and rejected_before <= each.revision < revision]


def _read(spool: Spool, delivery: Delivery) -> Dataset | None:
    """Return the object as it was sent; None where its file is gone."""
    data = spool.read(delivery.job_id, delivery.artefact)
    try:
        if data is not None:
            return dcmread(BytesIO(data), stop_before_pixels=True)
    except (EOFError, InvalidDicomError):
        pass
    logger.warning("Cannot reject an object that was sent: its file is gone", extra={"action": "reject"})
    return None


def _title(sent: Dataset, context: StudyContext) -> tuple[str, str]:
    """Return why: another patient's identity is a matter of safety, all else of quality."""
    same = sent.PatientID == context.patient_id
    return REJECTED_FOR_QUALITY if same else REJECTED_FOR_SAFETY
