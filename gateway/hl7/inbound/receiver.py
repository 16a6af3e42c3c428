"""An inbound message is read, kept and acted on in one transaction, and then answered.

In original mode (MSH-15 and MSH-16 empty) every message gets AA, AE or AR.  In enhanced mode (HL7 2.5.1 section
2.9.3) the sender says which answers it wants: the commit acknowledgement CA, CE or CR by MSH-15, the application
acknowledgement, a message of its own, by MSH-16.  A repeat of a message that was taken gets the answer it got first.
Messages in a batch are taken one by one and answered in a batch.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol, cast

from gateway.domain.clock import utc_now
from gateway.domain.patients import PatientData
from gateway.domain.received import InboundMessage
from gateway.errors import StorageError
from gateway.hl7.inbound.acknowledgement import LEADING, AckCode, Header, Problem, build_ack, scan_header, split_batch
from gateway.hl7.inbound.parsing import Message, count_lines, parse
from gateway.hl7.inbound.updates import NOT_TAKEN, MessageRejected, check_kind, made_at, read_updates
from gateway.hl7.transport.frames import FS

logger = logging.getLogger(__name__)

MAXIMUM_SEGMENTS = 10_000  # lines of a message: a long order list has hundreds, and 10,000 are read in 0.1 s
MAXIMUM_BATCH_SEGMENTS = 100_000  # lines of a batch, whose messages are taken one by one: a night of a large hospital
_LONG_MESSAGE = f"more than {MAXIMUM_SEGMENTS} segments in one message"
_LONG_BATCH = f"more than {MAXIMUM_BATCH_SEGMENTS} segments in one batch"

_WANTED = {"AL": (True, True), "ER": (False, True), "SU": (True, False)}  # table 0155: on success, on failure


_OUTDATED = "older than what is known: what a newer message said stands"


class Records(Protocol):
    """Keeps messages and what they say; raises StorageError where it cannot now."""

    def answer_to(self, message: InboundMessage) -> bytes | None:
        """Return what a message was answered that was received before; None where it is new."""
        ...

    def is_outdated(self, updates: Sequence[PatientData], made_at: datetime) -> bool:
        """Return whether a newer message said otherwise: then that stands."""
        ...

    def receive(self, message: InboundMessage, updates: Sequence[PatientData], made_at: datetime) -> Sequence[str]:
        """Keep a message and do what it says, for good; return the jobs that changed."""
        ...


class Receiver:
    """The MLLP listener's handler.

    Parameters
    ----------
    records
        Keeps a message before it is acknowledged.
    character_set
        HL7 table 0211: of messages with an empty MSH-18.
    acknowledge_others
        Whether a message or event that is not taken gets AA all the same, for engines that send everything and stop at
        a no; nothing of it is kept.
    """

    def __init__(self, records: Records, character_set: str, *, acknowledge_others: bool = False) -> None:
        self._records = records
        self._character_set = character_set
        self._acknowledge_others = acknowledge_others

    def __call__(self, data: bytes) -> tuple[bytes, ...]:
        """Take an unframed message, or a batch of them, and return the unframed answers."""
        if count_lines(data) > MAXIMUM_BATCH_SEGMENTS and data.lstrip(LEADING).startswith((b"FHS", b"BHS")):
            logger.warning("HL7 batch answered AR: %s", _LONG_BATCH, extra={"action": "hl7_rejected"})
            return (_batch(data, [build_ack(b"", "AR", problem=Problem(words=_LONG_BATCH))]),)
        messages = split_batch(data)
        if messages is None:
            return self._take(data)
        answers = [answer for message in messages for answer in self._take(message)]
        return (_batch(data, answers),)

    def _take(self, data: bytes) -> tuple[bytes, ...]:
        header = scan_header(data)
        if header is None:
            logger.warning("HL7 message without MSH", extra={"action": "hl7_rejected"})
            return (build_ack(data, "AR", problem=Problem(error_code="100", words="no MSH segment")),)
        try:
            return self._keep(data, header)
        except MessageRejected as error:
            if self._acknowledge_others and error.problem.error_code in NOT_TAKEN:
                logger.info("HL7 message passed over: %s", error, extra={"action": "hl7_passed_over"})
                return answers(data, header, "AA")
            logger.warning("HL7 message answered %s: %s", error.code, error, extra={"action": "hl7_rejected"})
            return answers(data, header, cast(AckCode, error.code), error.problem)
        except StorageError as error:
            logger.error("HL7 message not kept: %s", error, extra={"action": "hl7_storage"})
            return answers(data, header, "AE", Problem(words="it cannot be kept now, send it again later"))

    def _keep(self, data: bytes, header: Header) -> tuple[bytes, ...]:
        if not header.field(10):
            raise MessageRejected("AR", "101", "no MSH-10", ("MSH", 10))
        try:
            check_kind(parse(_first_line(data), self._character_set))
            if count_lines(data) > MAXIMUM_SEGMENTS:
                raise MessageRejected("AR", "207", _LONG_MESSAGE)
            message = parse(data, self._character_set)
            _check_header(message)
        except ValueError as error:
            raise MessageRejected("AR", "102", str(error)) from error
        received = _received(data, message)
        known = self._records.answer_to(received)
        if known is not None:
            logger.info("A repeat of an HL7 message", extra={"action": "hl7_repeat"})
            return tuple(known.split(FS)) if known else ()
        updates = read_updates(message)
        code, event = message.kind
        made = made_at(message, received.received_at)
        outdated = self._records.is_outdated(updates, made)
        if outdated:
            logger.warning(
                "%s^%s is older than what is known, which stands",
                code,
                event,
                extra={"action": "hl7_old"},
            )
        given = answers(data, header, "AA", text=_OUTDATED if outdated else "")
        received = replace(received, answer=FS.join(given))
        changed = self._records.receive(received, updates, made)
        logger.info("Took %s^%s: %d jobs changed", code, event, len(changed), extra={"action": "hl7_received"})
        return given


def answers(
    data: bytes, header: Header, code: AckCode, problem: Problem | None = None, text: str = ""
) -> tuple[bytes, ...]:
    """Return the answers a message asks for; none where it wants none.

    Parameters
    ----------
    code
        AA, AE or AR: what became of it.
    problem
        Why, where the code is not AA.
    text
        MSA-3: what a person should know about it.
    """
    well = code == "AA"
    accept, application = (header.field(number).decode("ascii", "replace").strip() for number in (15, 16))
    given: list[AckCode] = []
    if not accept and not application:
        given = [code]
    else:
        if _WANTED.get(accept, (False, False))[0 if well else 1]:
            given.append(cast(AckCode, f"C{code[1]}"))
        if _WANTED.get(application, (False, False))[0 if well else 1] and (well or not given):
            given.append(code)
    return tuple(build_ack(data, answer, problem=problem, text=text) for answer in given)


def _check_header(message: Message) -> None:
    """Raise MessageRejected where a database cannot keep what tells messages apart."""
    for number in (3, 4, 10):
        value = message.header.field(number)
        if len(value) > 250 or re.search(r"[\x00-\x1f\x7f]", value):  # HL7's longest: an HD of 227
            words = f"MSH-{number} must be at most 250 characters without control characters"
            raise MessageRejected("AR", "102", words, ("MSH", number))


def _first_line(data: bytes) -> bytes:
    return re.split(rb"[\r\n]", data.lstrip(LEADING), maxsplit=1)[0]


def _received(data: bytes, message: Message) -> InboundMessage:
    body = re.split(rb"[\r\n]+", data.lstrip(LEADING), maxsplit=1)[1:]
    return InboundMessage(
        sending_application=message.header.field(3),
        sending_facility=message.header.field(4),
        control_id=message.header.field(10),
        digest=hashlib.sha256(b"".join(body).rstrip(b"\r\n")).hexdigest(),
        message_type="^".join(message.kind),
        data=data,
        answer=b"",
        received_at=utc_now(),
    )


def _batch(data: bytes, acknowledgements: list[bytes]) -> bytes:
    """Return the answers to a batch as a batch (HL7 2.5.1 section 2.10.3), which refers to it by BHS-12 / FHS-12."""
    head = data.lstrip(LEADING)
    first = re.split(rb"[\r\n]", head, maxsplit=1)[0]
    separator = first[3:4] or b"|"
    encoding = first[4:260].split(separator)[0] or b"^~\\&"
    lines: dict[bytes, list[bytes]] = {}  # FHS and BHS, which come first
    for line in re.split(rb"[\r\n]+", head, maxsplit=2)[:2]:
        if line[:3] in (b"FHS", b"BHS"):
            lines[line[:3]] = line.split(separator, 12)
    now = datetime.now().astimezone().strftime("%Y%m%d%H%M%S%z").encode()

    def opening(name: bytes) -> bytes:
        sent = lines[name] + [b""] * 12  # sent[n] is field n + 1
        fields = [name, encoding, sent[4], sent[5], sent[2], sent[3], now, b"", b"", b"", b"", sent[10]]
        return separator.join(fields).rstrip(separator)

    counted = separator + str(len(acknowledgements)).encode()
    parts = [opening(b"BHS") if b"BHS" in lines else b"BHS" + separator + encoding]
    parts += [answer.rstrip(b"\r") for answer in acknowledgements]
    parts.append(b"BTS" + counted)
    if b"FHS" in lines:
        parts = [opening(b"FHS"), *parts, b"FTS" + separator + b"1"]
    return b"\r".join(parts) + b"\r"
