"""The C-STORE SCP over real sockets: what is kept, what is answered, who is let in."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
    TwelveLeadECGWaveformStorage,
)
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from gateway.dicom.images.pages import IMAGE_TRANSFER_SYNTAXES, read_context
from gateway.dicom.network.scp import StorageScp, is_allowed, is_from
from gateway.errors import IntakeError, StorageError
from gateway.settings import CallerSettings, DicomSettings
from tests.gateway.dicom.samples import compressed, secondary_capture
from tests.gateway.dicom.scp_peers import (
    FakeIntake,
    FakeRoom,
    associate,
    encoded,
    listen,
    listening,
    rejection,
    send_bytes,
    store,
)
from tests.waiting import PATIENCE_S, SOON_S, eventually


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[StorageScp, FakeIntake]]:
    intake = FakeIntake()
    scp = listen(intake)
    yield scp, intake
    scp.stop(grace_s=0.0)


@pytest.fixture
def intake(shared: tuple[StorageScp, FakeIntake]) -> FakeIntake:
    shared[1].error = None
    shared[1].taken.clear()
    return shared[1]


@pytest.fixture
def scp(shared: tuple[StorageScp, FakeIntake], intake: FakeIntake) -> StorageScp:
    return shared[0]


# ---- what is kept


def test_bytes_are_kept_as_received_and_answered_after_the_intake(scp: StorageScp, intake: FakeIntake) -> None:
    dataset = secondary_capture()
    dataset.add_new(0x00091001, "UN", b"private, odd order, kept")
    data = encoded(dataset)
    assert store(scp, data).Status == 0x0000
    (taken,) = intake.taken
    kept = taken["data"]
    assert isinstance(kept, bytes)
    assert kept[128:132] == b"DICM"
    assert kept.endswith(data)
    meta = dcmread(BytesIO(kept)).file_meta
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert meta.MediaStorageSOPInstanceUID == "2.25.1003"
    assert meta.SourceApplicationEntityTitle == "CART1"
    assert taken["source"] == "dicom:CART1"
    assert (taken["source_key"], taken["media_type"], taken["actor"]) == ("2.25.1003", "application/dicom", "scp")
    assert taken["context"] == read_context(kept)
    assert (taken["destinations"], taken["hold_reason"]) == (None, "")


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_bytes_are_kept_in_their_syntax(scp: StorageScp, intake: FakeIntake, syntax: str) -> None:
    dataset = dcmread(BytesIO(compressed(secondary_capture(), syntax)))
    association = associate(scp, syntaxes=(syntax,))
    assert association.send_c_store(dataset).Status == 0x0000
    association.release()
    kept = intake.taken[0]["data"]
    assert isinstance(kept, bytes)
    received = dcmread(BytesIO(kept))
    assert received.file_meta.TransferSyntaxUID == syntax
    assert received.PixelData == dataset.PixelData


def test_a_large_object_in_many_pdus_arrives_whole(scp: StorageScp, intake: FakeIntake) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    assert store(scp, encoded(secondary_capture(pixels))).Status == 0x0000
    kept = intake.taken[0]["data"]
    assert isinstance(kept, bytes)
    assert dcmread(BytesIO(kept)).PixelData == pixels.tobytes()


def test_an_object_without_patient_id_is_kept_and_held(scp: StorageScp, intake: FakeIntake) -> None:
    assert store(scp, encoded(secondary_capture(PatientID=""))).Status == 0x0000
    assert "no order" in str(intake.taken[0]["hold_reason"])
    assert store(scp, encoded(secondary_capture(PatientID="", AccessionNumber=""))).Status == 0x0000
    assert "no patient ID" in str(intake.taken[1]["hold_reason"])


def test_several_objects_on_one_association(scp: StorageScp, intake: FakeIntake) -> None:
    association = associate(scp)
    for number in range(3):
        uid = f"2.25.{number + 1}"
        assert send_bytes(association, encoded(secondary_capture(SOPInstanceUID=uid)), uid=uid).Status == 0
    association.release()
    assert [taken["source_key"] for taken in intake.taken] == ["2.25.1", "2.25.2", "2.25.3"]


# ---- what is answered


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StorageError("disk full"), 0xA700),
        (IntakeError("no"), 0xC000),
        (ZeroDivisionError("SECRET^NAME"), 0x0110),
    ],
)
def test_nothing_is_acknowledged_that_the_intake_did_not_take(
    scp: StorageScp, intake: FakeIntake, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    intake.error = error
    caplog.set_level(logging.CRITICAL, logger="pynetdicom")
    answer = store(scp, encoded(secondary_capture()))
    assert answer.Status == status
    assert "SECRET" not in answer.ErrorComment
    intake.error = None
    assert store(scp, encoded(secondary_capture())).Status == 0x0000  # and it still runs


@pytest.mark.parametrize(
    ("changes", "names", "status"),
    [
        ({"SOPInstanceUID": "2.25.999"}, {}, 0xA900),
        ({"SOPClassUID": EncapsulatedPDFStorage}, {}, 0xA900),
        ({"SOPInstanceUID": None}, {}, 0xA900),
        ({}, {"uid": "../../etc/passwd"}, 0x0117),
        ({}, {"uid": "2.25.12x"}, 0x0117),
        ({}, {"sop_class": EncapsulatedPDFStorage}, 0x0122),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pynetdicom's client warns of the UIDs that the test wants to send
def test_contradictions_are_refused_and_nothing_is_kept(
    scp: StorageScp, intake: FakeIntake, changes: dict[str, object], names: dict[str, str], status: int
) -> None:
    assert store(scp, encoded(secondary_capture(**changes)), **names).Status == status
    assert intake.taken == []


def test_metadata_bomb_is_refused_with_the_reason(scp: StorageScp, intake: FakeIntake) -> None:
    dataset = secondary_capture()
    dataset.ReferencedImageSequence = [Dataset()] * 20_000
    dataset["ReferencedImageSequence"].is_undefined_length = True
    answer = store(scp, encoded(dataset))
    assert (answer.Status, answer.ErrorComment) == (0xC000, "more than 10000 elements and items")
    assert intake.taken == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom says that the data end early
@pytest.mark.parametrize("data", [b"\0", b"not a data set at all", b"\x08\x00\x16\x00UI\xff\xff1.2"])
def test_bytes_that_are_no_data_set_are_refused(scp: StorageScp, intake: FakeIntake, data: bytes) -> None:
    assert store(scp, data).Status in (0xA900, 0xC000)
    assert intake.taken == []


def test_an_object_over_the_limit_is_refused_and_the_next_one_is_taken(intake: FakeIntake) -> None:
    scp = listen(intake, maximum_object_mib=1)
    try:
        association = associate(scp)
        answer = send_bytes(association, encoded(secondary_capture()) + b"\0" * (3 << 20))
        assert (answer.Status, answer.ErrorComment) == (0xC001, "larger than 1 MiB")
        assert send_bytes(association, encoded(secondary_capture())).Status == 0x0000
        association.release()
    finally:
        scp.stop()
    assert len(intake.taken) == 1


# ---- negotiation


def test_echo(scp: StorageScp) -> None:
    association = associate(scp, Verification)
    assert association.send_c_echo().Status == 0x0000
    association.release()


def test_every_accepted_syntax_is_offered_and_the_first_of_ours_is_chosen(scp: StorageScp) -> None:
    for syntax in IMAGE_TRANSFER_SYNTAXES:
        association = associate(scp, syntaxes=(syntax,))
        assert [context.transfer_syntax for context in association.accepted_contexts] == [[syntax]]
        association.release()
    association = associate(scp, syntaxes=(JPEGBaseline8Bit, RLELossless, ImplicitVRLittleEndian))
    assert association.accepted_contexts[0].transfer_syntax == [ImplicitVRLittleEndian]
    association.release()


@pytest.mark.parametrize(
    ("sop_class", "syntax"),
    [
        (SecondaryCaptureImageStorage, DeflatedExplicitVRLittleEndian),
        (SecondaryCaptureImageStorage, ExplicitVRBigEndian),
        (EncapsulatedPDFStorage, JPEGBaseline8Bit),
        (TwelveLeadECGWaveformStorage, ExplicitVRLittleEndian),  # signals already: refused, never dropped
        ("1.2.840.10008.5.1.4.1.1.2", ExplicitVRLittleEndian),
    ],
)
def test_other_contexts_are_not_accepted(scp: StorageScp, sop_class: str, syntax: str) -> None:
    association = associate(scp, sop_class, (syntax,))
    assert not association.is_established
    assert association.accepted_contexts == []


def test_another_called_ae_title_is_rejected(scp: StorageScp) -> None:
    assert rejection(associate(scp, called="OTHER")) == (0x01, 0x01, 0x07)


class Asked:
    """One peer that we ask to commit."""

    def __init__(self, host: str = "127.0.0.2") -> None:
        self.host = host

    def expects(self, calling_ae_title: str, called_ae_title: str, address: str) -> bool:
        return (calling_ae_title, called_ae_title) == ("PACS", "SCU") and is_from(address, self.host)


def test_a_peer_that_we_ask_to_commit_may_report_and_nothing_else(
    intake: FakeIntake, caplog: pytest.LogCaptureFixture
) -> None:
    settings = DicomSettings(port=0, timeout_s=PATIENCE_S, callers=(CallerSettings(ae_title="CART1"),))
    scp = StorageScp(settings, intake.accept, FakeRoom(), Asked())
    scp.start()
    try:
        names = {"called": "SCU", "calling": "PACS"}
        for sop_class, accepted in (
            (StorageCommitmentPushModel, True),
            (Verification, True),
            (SecondaryCaptureImageStorage, False),
        ):
            association = associate(scp, sop_class, source="127.0.0.2", **names)
            assert association.is_established is accepted, sop_class
            if accepted:
                association.release()
        assert rejection(associate(scp, StorageCommitmentPushModel, source="127.0.0.3", **names)) == (1, 1, 3)
        assert rejection(associate(scp, StorageCommitmentPushModel, called="SCU", source="127.0.0.2")) == (1, 1, 7)
    finally:
        scp.stop()
    assert [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "scp_reject"] == [
        "Rejected an association of PACS from 127.0.0.3: it is not among the callers",
        "Rejected an association of CART1 from 127.0.0.2: SCU is not our AE title",
    ]


@pytest.mark.parametrize(
    ("address", "host", "same"),
    [
        ("127.0.0.1", "localhost", True),
        ("::ffff:10.1.1.1", "10.1.1.1", True),
        ("10.1.1.2", "10.1.1.1", False),
        ("10.1.1.1", "no such name", False),
        ("10.1.1.1", "a..b", False),
    ],
)
def test_host_of_a_peer(address: str, host: str, same: bool) -> None:
    assert is_from(address, host) is same


def test_only_listed_callers_are_let_in(intake: FakeIntake) -> None:
    callers = (
        CallerSettings(ae_title="CART1", hosts=("127.0.0.0/8",)),
        CallerSettings(ae_title="CART2", hosts=("10.1.2.3",)),
    )
    scp = listen(intake, callers=callers)
    try:
        assert rejection(associate(scp, calling="STRANGER")) == (0x01, 0x01, 0x03)
        assert rejection(associate(scp, calling="CART2")) == (0x01, 0x01, 0x03)  # right title, wrong address
        association = associate(scp, calling="CART1")
        assert association.is_established
        association.release()
    finally:
        scp.stop()


@pytest.mark.parametrize(
    ("hosts", "address", "allowed"),
    [
        ((), "192.0.2.1", True),
        (("192.0.2.1",), "192.0.2.1", True),
        (("192.0.2.0/24",), "192.0.3.1", False),
        (("10.0.0.0/8", "2001:db8::/32"), "2001:db8::5", True),
        (("10.0.0.0/8",), "::ffff:10.1.1.1", True),
        (("10.0.0.0/8",), "2001:db8::5", False),
    ],
)
def test_addresses_and_networks(hosts: tuple[str, ...], address: str, allowed: bool) -> None:
    assert is_allowed((CallerSettings(ae_title="CART1", hosts=hosts),), "CART1 ", address) is allowed


def test_associations_over_the_maximum_are_told_to_come_back() -> None:
    with listening(maximum_associations=1) as scp:
        first = associate(scp)
        assert rejection(associate(scp)) == (0x02, 0x03, 0x02)
        first.release()


def test_stop_closes_the_port_and_aborts_what_stays_open() -> None:
    with listening() as scp:
        association, port = associate(scp), scp.port
        assert scp.is_alive
        started = time.monotonic()
        scp.stop(grace_s=0.2)
        assert time.monotonic() - started < SOON_S
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
        eventually(lambda: not association.is_established)
        assert association.is_aborted
        assert not scp.is_alive  # and a second stop is no harm
