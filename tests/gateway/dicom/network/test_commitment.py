"""Storage commitment: what a message may hold."""

from __future__ import annotations

import struct
import time
from types import SimpleNamespace

import pytest
from pynetdicom.dsutils import decode
from pynetdicom.sop_class import StorageCommitmentPushModelInstance

from gateway.dicom.network.commitment import INVALID_ARGUMENT_VALUE, Reference, answer_request
from gateway.dicom.network.transport import MAXIMUM_INFORMATION_BYTES, BoundedBuffer

ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0)


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def asked(items: bytes) -> tuple[int, list[tuple[Reference, ...]]]:
    """The answer to an N-ACTION whose sequence has a length, and what was kept."""
    buffer = BoundedBuffer(MAXIMUM_INFORMATION_BYTES)
    buffer.write(element(0x00081195, b"2.25.9") + element(0x00081199, items))
    assert not buffer.overflowed
    kept: list[tuple[Reference, ...]] = []
    event = SimpleNamespace(
        action_type=1,
        request=SimpleNamespace(RequestedSOPInstanceUID=StorageCommitmentPushModelInstance),
        action_information=decode(buffer, is_implicit_vr=True, is_little_endian=True),
        assoc=SimpleNamespace(requestor=SimpleNamespace(ae_title="CART1", address="127.0.0.1")),
    )
    return answer_request(event, lambda ae_title, host, uid, references: kept.append(references) or 0), kept


def test_a_sequence_that_says_its_length_is_read() -> None:
    one = element(0x00081150, b"1.2\0") + element(0x00081155, b"2.25")
    status, kept = asked(struct.pack("<HHL", 0xFFFE, 0xE000, len(one)) + one)
    assert (status, kept) == (0, [(Reference(sop_class_uid="1.2", sop_instance_uid="2.25"),)])


@pytest.mark.parametrize("items", [ITEM * 500_000, struct.pack("<HHL", 0xFFFE, 0xE000, 4 << 20 >> 3) + ITEM * 65_536])
def test_a_sequence_that_says_its_length_is_read_within_bounds(items: bytes) -> None:
    begun = time.thread_time()
    assert asked(items) == (INVALID_ARGUMENT_VALUE, [])
    assert time.thread_time() - begun < 2
