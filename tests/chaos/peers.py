"""A PACS and an EHR that fail as such peers do, and remember everything that they took."""

from __future__ import annotations

import hashlib
import random
import re
import time

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import TwelveLeadECGWaveformStorage  # type: ignore[attr-defined]

from tests.acceptance.peers import CR, Ehr
from tests.chaos.account import Arrived

SEND_TIMEOUT_S = 5.0  # of the gateway's destinations
_WAVEFORM = re.compile(rb"\|WAVEFORM\^[^|]*\|[^|]*\|([0-9.]+)")


class FlakyPacs:
    """A Storage SCP; now and then it is out of resources, slow, or keeps an object and never answers.

    Parameters
    ----------
    rng : random.Random
        Chooses how it fails.
    flaky : float
        How often, from 0 to 1.
    """

    def __init__(self, rng: random.Random, flaky: float) -> None:
        self.objects: list[Arrived] = []
        self.delay_s = 0.0
        self._rng, self._flaky = rng, flaky
        self._ae = AE("PACS")
        self._ae.maximum_associations = 50
        self._ae.add_supported_context(TwelveLeadECGWaveformStorage, ExplicitVRLittleEndian)
        self.port = 0
        self.start()

    def start(self) -> None:
        handlers = [(evt.EVT_C_STORE, self._store)]
        self._server = self._ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])

    def stop(self) -> None:
        """Close the port: nobody answers there until `start`."""
        self._server.shutdown()
        self._server.server_close()
        for association in self._ae.active_associations:
            association.abort()

    def _store(self, event: evt.Event) -> int:
        time.sleep(self.delay_s)
        chance = self._rng.random()
        if chance < self._flaky / 2:
            return 0xA700
        data = event.request.DataSet.getvalue()
        dataset = dcmread(DicomBytesIO(event.encoded_dataset()), specific_tags=[
            "SOPInstanceUID", "PatientID", "ReferencedInstanceSequence"
        ])  # fmt: skip
        references = dataset.get("ReferencedInstanceSequence") or ()
        self.objects.append(
            Arrived(
                identifier=str(dataset.SOPInstanceUID),
                patient_id=str(dataset.PatientID),
                about=str(references[0].ReferencedSOPInstanceUID) if references else "",
                digest=hashlib.sha256(data).hexdigest(),
            )
        )
        if chance < self._flaky:
            event.assoc.abort()
        return 0x0000


class FlakyEhr(Ehr):
    """An MLLP listener; now and then it answers AE, or takes a message and never answers; mute while `mute` is set."""

    def __init__(self, rng: random.Random, flaky: float) -> None:
        self.messages: list[Arrived] = []
        self.mute = False
        self._rng, self._flaky = rng, flaky
        super().__init__()

    def answer(self, message: bytes) -> bytes:
        chance, control_id = self._rng.random(), self.control_id(message)
        code = b"AE" if chance < self._flaky / 2 else b"AA"
        if code == b"AA":
            waveform = _WAVEFORM.search(message)
            self.messages.append(
                Arrived(
                    identifier=control_id.decode(),
                    patient_id=message.partition(b"\rPID|")[2].split(b"|")[2].split(b"^")[0].decode(),
                    about=waveform[1].decode() if waveform else "",
                    digest=hashlib.sha256(message).hexdigest(),
                )
            )
            if chance < self._flaky:
                raise ConnectionAbortedError
        if self.mute:
            time.sleep(1.2 * SEND_TIMEOUT_S)
            raise ConnectionAbortedError
        return b"MSH|^~\\&|EHR|H|ECGGW|H|20260101||ACK|1|P|2.5.1\rMSA|" + code + b"|" + control_id + CR
