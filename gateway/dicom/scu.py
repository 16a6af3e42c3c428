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
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association

from gateway.dicom.pixels import DECODE_ERRORS
from gateway.dicom.transport import Requestor
from gateway.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
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
        A file `gateway.dicom.waveform.encode` made.
    destination : DicomDestination
        The peer; each of connecting, associating and answering may take its `timeout_s`.
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
    association = _associate(destination, calling_ae_title, UID(dataset.SOPClassUID))
    try:
        status = association.send_c_store(dataset).get("Status")
    except (ValueError, RuntimeError) as error:  # no context fits; the association ended meanwhile
        raise DeliveryDeferred(f"{destination.name}: the association ended before the object was sent") from error
    finally:
        if association.is_established:
            association.release()
    return _outcome(destination, status)


def _read(path: Path) -> Dataset:
    try:
        return dcmread(path)
    except OSError as error:
        raise DeliveryDeferred(f"{path.name} cannot be read ({type(error).__name__})") from error
    except DECODE_ERRORS as error:
        raise DeliveryRefused(f"{path.name} is no DICOM file ({type(error).__name__})") from error


def _associate(destination: DicomDestination, calling_ae_title: str, sop_class: UID) -> Association:
    """Return an established association that has a presentation context for `sop_class`."""
    ae = Requestor(ae_title=calling_ae_title)
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = destination.timeout_s
    contexts = [build_context(sop_class, syntax) for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)]
    try:
        association = ae.associate(destination.host, destination.port, contexts, ae_title=destination.ae_title)
    except OSError as error:
        raise DeliveryDeferred(f"{destination.name}: {destination.host} cannot be resolved") from error
    if association.is_established:
        return association
    answer = association.acceptor.primitive
    if answer is not None and answer.result == 0x00:
        raise DeliveryRefused(f"{destination.name}: the peer takes no {sop_class.name}")
    if association.is_rejected:
        raise DeliveryDeferred(f"{destination.name}: association rejected: {answer.reason_str}")
    raise DeliveryDeferred(f"{destination.name}: no association with {destination.host}:{destination.port}")


def _outcome(destination: DicomDestination, status: int | None) -> str:
    if status is None:
        raise DeliveryDeferred(f"{destination.name}: no answer")
    if status in _STORED:
        return f"0x{status:04X}"
    if status in _NEVER:
        raise DeliveryRefused(f"{destination.name}: status 0x{status:04X}")
    raise DeliveryDeferred(f"{destination.name}: status 0x{status:04X}")
