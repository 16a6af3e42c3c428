"""One file that a person, or a program, hands over: `submit`, the web page's upload, the API."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.dicom.images.pages import read_context
from gateway.domain.context import StudyContext
from gateway.domain.received import Accepted, Data, ReceivedObject
from gateway.errors import IntakeError
from gateway.identity.decide import combined
from gateway.identity.forms import check_context
from gateway.intake.accept import Intake, file_key, media_type_of

_LONGEST_NAME = 230  # characters of a file's name that are kept


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Upload:
    """A file, and what is stated about it.

    Parameters
    ----------
    data
        The bytes, until `take_in` returns.
    actor
        Who hands it over, for the audit trail.
    source
        As in `Job.source`.
    stated
        Whose ECG it is, as far as that is stated; a DICOM object names its own patient.
    destinations
        Names of the destinations the results go to; None for all of them.
    """

    data: Data
    file_name: str
    actor: str
    stated: StudyContext
    source: str = "submit"
    destinations: tuple[str, ...] | None = None


def take_in(intake: Intake, upload: Upload) -> Accepted:
    """Take a file; it is safe when this returns.

    Raises
    ------
    IntakeError
        It is no file that can be read, or what is stated about it has no valid form or contradicts it.
    StorageError
        Spool or database cannot take it now.
    """
    stated = check_context(upload.stated, "what is stated")
    media_type = media_type_of(upload.data)
    if media_type == "application/dicom":
        read = read_context(upload.data)
        stated = combined(read, stated)
        source_key = read.source_sop_instance_uid
        if not source_key:
            raise IntakeError("the DICOM file has no SOP Instance UID")
    else:
        source_key = file_key(upload.source, stated, upload.data)
    received = ReceivedObject(
        source=upload.source,
        source_key=source_key,
        media_type=media_type,
        data=upload.data,
        context=stated,
        actor=upload.actor,
        destinations=upload.destinations,
        file_name=upload.file_name[:_LONGEST_NAME],
    )
    return intake.accept(received)
