"""The receiving peers: a PACS that takes waveforms by C-STORE, and an HL7 listener; both keep what they receive."""

from __future__ import annotations

from pynetdicom import AE, evt
from pynetdicom.sop_class import GeneralECGWaveformStorage, TwelveLeadECGWaveformStorage, Verification

from gateway.hl7.inbound.acknowledgement import Problem, build_ack, scan_header
from gateway.hl7.transport.mllp import MllpListener


class Pacs:
    """A C-STORE SCP for ECG waveforms that keeps what it gets, by SOP Instance UID, as DICOM files."""

    ae_title = "DEMOPACS"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        ae = AE(self.ae_title)
        for sop_class in (TwelveLeadECGWaveformStorage, GeneralECGWaveformStorage, Verification):
            ae.add_supported_context(sop_class)
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._keep)])
        self.port = int(self._server.server_address[1])

    def _keep(self, event: evt.Event) -> int:
        self.files[str(event.request.AffectedSOPInstanceUID)] = event.encoded_dataset()
        return 0x0000

    def stop(self) -> None:
        """Close the port and every association."""
        self._server.shutdown()


class Ehr:
    """An HL7 listener that keeps what it gets, by MSH-10, and answers AA."""

    def __init__(self) -> None:
        self.messages: dict[str, bytes] = {}
        self._listener = MllpListener("127.0.0.1", 0, self._keep)
        self._listener.start()
        self.port = self._listener.port

    def _keep(self, message: bytes) -> tuple[bytes]:
        header = scan_header(message)
        if header is None:
            return (build_ack(message, "AR", problem=Problem(error_code="100")),)
        self.messages[header.field(10).decode("ascii", "replace")] = message
        return (build_ack(message, "AA"),)

    def stop(self) -> None:
        """Close the port and every connection."""
        self._listener.stop()
