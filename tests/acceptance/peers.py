"""What stands around the gateway in a hospital, as real network peers on loopback."""

from __future__ import annotations

import socket
import socketserver
import threading
from io import BytesIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import TwelveLeadECGWaveformStorage  # type: ignore[attr-defined]

from tests.waiting import PATIENCE_S

VT, FS, CR = b"\x0b", b"\x1c", b"\r"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Pacs:
    """A Storage SCP that keeps what it gets, in order; while `gate` is closed it has the object but does not answer."""

    def __init__(self) -> None:
        self.received: list[Dataset] = []
        self.arrived = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        ae = AE("PACS")
        ae.add_supported_context(TwelveLeadECGWaveformStorage, ExplicitVRLittleEndian)
        handlers = [(evt.EVT_C_STORE, self._store)]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])

    def stop(self) -> None:
        self.gate.set()
        self._server.shutdown()

    @property
    def uids(self) -> list[str]:
        return [str(dataset.SOPInstanceUID) for dataset in self.received]

    def _store(self, event: evt.Event) -> int:
        self.received.append(dcmread(BytesIO(event.encoded_dataset())))
        self.arrived.set()
        assert self.gate.wait(6 * PATIENCE_S)
        return 0x0000


class Ehr:
    """An MLLP listener that keeps every message and answers AA, while `gate` is open; else it says nothing."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.arrived = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        ehr = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                buffer = b""
                while data := self.connection.recv(65536):
                    buffer += data
                    while (end := buffer.find(FS + CR)) >= 0:
                        message, buffer = buffer[:end].lstrip(VT), buffer[end + 2 :]
                        self.connection.sendall(VT + ehr.answer(message) + FS + CR)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that was killed is part of the tests."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, message: bytes) -> bytes:
        self.received.append(message)
        self.arrived.set()
        assert self.gate.wait(6 * PATIENCE_S)
        return b"MSH|^~\\&|EHR|H|ECGGW|H|20260101||ACK|1|P|2.5.1\rMSA|AA|" + self.control_id(message) + b"\r"

    @staticmethod
    def control_id(message: bytes) -> bytes:
        return message.split(b"\r")[0].split(b"|")[9]


def secondary_capture(
    pixels: np.ndarray, *, patient_id: str = "P1", patient_name: str = "DOE^JANE", **attributes: object
) -> Dataset:
    """What a scanner sends: (H, W, 3) RGB pixels as a Secondary Capture instance with new UIDs."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, keyword, generate_uid(prefix=None))
    dataset.PatientID, dataset.PatientName = patient_id, patient_name
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
    dataset.StudyDate, dataset.StudyTime = "20260102", "101500"
    dataset.AccessionNumber = dataset.StudyID = dataset.ReferringPhysicianName = ""
    dataset.Modality, dataset.ConversionType = "OT", "SD"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def c_store(port: int, *datasets: Dataset, sop_class: str = SecondaryCaptureImageStorage) -> list[int | None]:
    """Send instances over one association; return the statuses, None where there was no answer."""
    ae = AE("SCANNER")
    ae.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="ECGGW")
    assert association.is_established
    try:
        return [getattr(association.send_c_store(dataset), "Status", None) for dataset in datasets]
    finally:
        association.release()
