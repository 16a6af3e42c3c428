"""C-STORE SCU: one file -> one peer -> its answer, and whether to try again.

The file was written by us in Explicit VR Little Endian; a peer that takes only Implicit VR Little Endian gets that
(PS3.5 section 10).  What an answer means for the delivery:

* success or a warning (the object is stored): the status is returned;
* no connection, association rejected or lost, no answer in time, out of resources, processing failure, any failure we
  do not know: `DeliveryDeferred`;
* the peer does not take the class, or says that it will never take this object: `DeliveryRefused`.
"""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context

from gateway.dicom.images.pixels import DECODE_ERRORS
from gateway.dicom.network.association import associate
from gateway.errors import DeliveryDeferred, DeliveryRefused
from gateway.settings import DicomDestination

# PS3.7 annex C and PS3.4 table B.2-1.
_STORED = {0x0000, 0x0111, 0xB000, 0xB006, 0xB007}  # 0x0111: a peer that says it has this SOP Instance already
_NEVER = {
    0x0105,  # no such attribute
    0x0106,  # invalid attribute value
    0x0117,  # invalid SOP instance
    0x0122,  # SOP class not supported
    0x0124,  # not authorized
    *range(0xA900, 0xAA00),  # data set does not match SOP class
    *range(0xC000, 0xD000),  # cannot understand
}


def send(path: Path, destination: DicomDestination, calling_ae_title: str) -> str:
    """Send a DICOM file to a peer and return the status it answered, "0x0000" or a warning such as "0xB000".

    Parameters
    ----------
    path : Path
        A DICOM file that the gateway made.
    destination : DicomDestination
        The peer; each of connecting, shaking hands, associating and answering may take its `timeout_s`.
    calling_ae_title : str
        Our AE title.

    Raises
    ------
    DeliveryDeferred
        The object is not known to be stored; a later try may succeed.  Sending again is safe: same SOP Instance UID.
    DeliveryRefused
        The peer will not take it as it stands, or the file cannot be read.
    """
    dataset = _read(path)
    contexts = [
        build_context(dataset.SOPClassUID, syntax) for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    ]
    association = associate(destination, calling_ae_title, contexts)
    try:
        status = association.send_c_store(dataset).get("Status")
    except (ValueError, RuntimeError) as error:  # no context fits; the association ended meanwhile
        raise DeliveryDeferred(f"{destination.name}: the association ended before the object was sent") from error
    finally:
        if association.is_established:
            association.release()
    return outcome(destination.name, status)


def _read(path: Path) -> Dataset:
    try:
        return dcmread(path)
    except OSError as error:
        raise DeliveryDeferred(f"the file cannot be read ({type(error).__name__})") from error
    except DECODE_ERRORS as error:
        raise DeliveryRefused(f"the file is no DICOM file ({type(error).__name__})") from error


def outcome(peer: str, status: int | None) -> str:
    """Return a status that says the object is stored, e.g. "0x0000"; raise as `send` does for any other."""
    if status is None:
        raise DeliveryDeferred(f"{peer}: no answer")
    if status in _STORED:
        return f"0x{status:04X}"
    kind = DeliveryRefused if status in _NEVER else DeliveryDeferred
    raise kind(f"{peer}: status 0x{status:04X}", response=f"0x{status:04X}")
