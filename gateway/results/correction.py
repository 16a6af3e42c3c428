"""A corrected digitization takes the place of objects that were sent: a note rejects those, as IHE IOCM has it.

Each destination gets a note about what arrived there, after the objects that take its place, so that no moment is
without an ECG.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from gateway.dicom.objects.documents import REJECTED_FOR_QUALITY, REJECTED_FOR_SAFETY, encode_document, rejection_note
from gateway.domain.artefact import Role
from gateway.domain.context import StudyContext
from gateway.domain.status import DeliveryStatus
from gateway.results.page import Artefact, JobFacts
from gateway.settings import FolderDestination, ObjectDestination
from gateway.spool.folder import Spool
from gateway.store.tables import Delivery

logger = logging.getLogger(__name__)


def rejections(
    facts: JobFacts, spool: Spool, earlier: Sequence[Delivery], new: Sequence[Delivery], at: datetime
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
    """
    made: dict[str, Artefact] = {}
    deliveries = []
    for destination in facts.destinations:
        if not isinstance(destination, ObjectDestination) or isinstance(destination, FolderDestination):
            continue
        if not facts.revision or not destination.rejection_note:
            continue
        for page_number in sorted({d.page_number for d in new if d.destination == destination.name}):
            name = f"page-{page_number}.r{facts.revision}.rejection.{destination.name}.dcm"
            sent = _sent(earlier, destination.name, page_number, facts.revision)
            objects = [dataset for delivery in sent if (dataset := _read(spool, delivery)) is not None]
            if not objects:
                continue
            note = rejection_note(
                objects,
                _title(objects[0], facts.context),
                number=facts.revision,
                created_at=at,
                objects=facts.objects,
            )
            made[name] = Artefact(name=name, data=encode_document(note))
            deliveries.append(
                Delivery(
                    job_id=facts.job_id,
                    page_number=page_number,
                    destination=destination.name,
                    kind=destination.kind,
                    artefact=name,
                    identifier=str(note.SOPInstanceUID),
                    role=Role.REJECTION,
                    revision=facts.revision,
                )
            )
    return list(made.values()), deliveries


def _sent(earlier: Sequence[Delivery], destination: str, page_number: int, revision: int) -> list[Delivery]:
    """Return what arrived there of earlier results and no note has rejected yet."""
    arrived = [
        each
        for each in earlier
        if (each.status in (DeliveryStatus.DELIVERED, DeliveryStatus.STORED) or each.asked)  # not committed: there yet
        and (each.destination, each.page_number) == (destination, page_number)
        and each.role != Role.MESSAGE
    ]
    notes = [each.revision for each in arrived if each.role == Role.REJECTION]
    rejected_before = max(notes, default=0)
    return [each for each in arrived if each.role != Role.REJECTION and rejected_before <= each.revision < revision]


def _read(spool: Spool, delivery: Delivery) -> Dataset | None:
    """Return the object as it was sent; None where its file is gone."""
    try:
        return dcmread(spool.artefact_path(delivery.job_id, delivery.artefact), stop_before_pixels=True)
    except (OSError, InvalidDicomError):
        logger.warning("An object that was sent cannot be rejected: its file is gone", extra={"action": "reject"})
        return None


def _title(sent: Dataset, context: StudyContext) -> tuple[str, str]:
    """Return why: another patient's identity is a matter of safety, all else of quality."""
    same = sent.PatientID == context.patient_id
    return REJECTED_FOR_QUALITY if same else REJECTED_FOR_SAFETY
