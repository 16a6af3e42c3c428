"""A message's MSH, MSA and ERR read as bytes, and its acknowledgement.

A message in a version or character set nobody here knows still gets its answer, in its own delimiters and version.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

AckCode = Literal["AA", "AE", "AR", "CA", "CE", "CR"]

_ERRORS = {  # HL7 table 0357
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "204": "Unknown key identifier",
    "205": "Duplicate key identifier",
    "206": "Application record locked",
    "207": "Application internal error",
}
LEADING = b"\xef\xbb\xbf\r\n\t \x00"  # bytes that may stand before a message
_ANSWER_BYTES = 65_536  # of an answer, looked at: MSH, MSA and ERR come first, and millions of lines may follow
_MSH_FIELDS = 25  # of version 2.8, the longest


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The parts of an MSH segment that decide how to answer, as the bytes received."""

    field_separator: bytes
    encoding_characters: bytes  # MSH-2
    fields: tuple[bytes, ...]  # fields[n] is MSH-n; MSH-1 is the separator itself

    def field(self, number: int) -> bytes:
        """Return MSH-`number`, b"" where the segment ends earlier."""
        return self.fields[number] if number < len(self.fields) else b""

    @property
    def component_separator(self) -> bytes:
        """First of the encoding characters, b"^" where there is none."""
        return self.encoding_characters[:1] or b"^"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a message is refused, and where in it the reason is; no patient data."""

    error_code: str = "207"  # HL7 table 0357
    words: str = ""
    segment: str = ""  # its name; "": the whole message
    sequence: int = 1  # which of the segments with this name, from 1
    field: int = 0  # 0: the whole segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """What a peer answered: MSA-1, MSA-2 and the error code of ERR, if it is a number (table 0357)."""

    code: str
    message_control_id: bytes
    error_code: str


def timestamp(at: datetime) -> str:
    """Return a TS to the second with its zone (HL7 2.5.1 2.A.77), in this machine's time zone."""
    return at.astimezone().strftime("%Y%m%d%H%M%S%z")


def scan_header(message: bytes) -> Header | None:
    """Return the MSH of a message in any version, None where there is none (HL7 2.5.1 section 2.14.9)."""
    line = re.split(rb"[\r\n]", message.lstrip(LEADING), maxsplit=1)[0]
    if not line.startswith(b"MSH") or len(line) < 8:
        return None
    separator = line[3:4]
    parts = line.split(separator, _MSH_FIELDS)
    return Header(field_separator=separator, encoding_characters=parts[1], fields=(parts[0], separator, *parts[1:]))


def scan_acknowledgement(message: bytes) -> Acknowledgement | None:
    """Return the MSA and ERR of an answer in any version, None where it is no acknowledgement."""
    message = message[:_ANSWER_BYTES]
    message = (split_batch(message) or [message])[0]
    header = scan_header(message)
    if header is None:
        return None
    segments = [line.split(header.field_separator) for line in re.split(rb"[\r\n]+", message)]
    msa = next((fields for fields in segments if fields[0] == b"MSA" and len(fields) > 2), None)
    if msa is None:
        return None
    err = next((fields for fields in segments if fields[0] == b"ERR"), [])
    found = re.search(rb"\b\d{3}\b", err[3] if len(err) > 3 else b"".join(err[1:2]))
    return Acknowledgement(
        code=msa[1].decode("ascii", "replace"),
        message_control_id=msa[2],
        error_code=found.group().decode("ascii") if found else "",
    )


def build_ack(
    message: bytes,
    code: AckCode,
    *,
    problem: Problem | None = None,
    text: str = "",
    created_at: datetime | None = None,
) -> bytes:
    """Return the ACK to any message in its own delimiters and version; codes other than AA and CA add an ERR.

    Parameters
    ----------
    message
        As received, unframed; where it has no MSH the answer has the default delimiters, version 2.5.1 and an
        empty MSA-2.
    code
        MSA-1 (HL7 table 0008).
    problem
        What ERR says: the code, the place and the words; None: an internal error.  Not written for AA and CA.
    text
        MSA-3, in ASCII.
    created_at
        MSH-7; None: now.

    Notes
    -----
    HL7 2.5.1 sections 2.9.2 and 2.14.8 (2.15.5 of ERR).  Before version 2.5 ERR has another shape, and the words are in
    MSA-3.
    """
    header = scan_header(message) or Header(field_separator=b"|", encoding_characters=b"^~\\&", fields=())
    component = header.component_separator
    version = header.field(12) or b"2.5.1"
    trigger = header.field(9).split(component)[1:2]
    fields = [
        b"MSH",
        header.encoding_characters,
        *(header.field(number) for number in (5, 6, 3, 4)),
        timestamp(created_at or datetime.now(UTC)).encode("ascii"),
        b"",
        component.join([b"ACK", *trigger, b"ACK"] if trigger else [b"ACK"]),
        b"A" + uuid.uuid4().hex[:19].encode("ascii"),
        header.field(11) or b"P",
        version,
    ]
    if header.field(18):
        fields += [b""] * 5 + [header.field(18)]
    segments = [fields, [b"MSA", code.encode("ascii"), header.field(10)]]
    if text:
        segments[-1].append(text.encode("ascii"))
    if code not in ("AA", "CA"):
        _add_error(segments, problem or Problem(), header)
    return b"".join(header.field_separator.join(segment) + b"\r" for segment in segments)


def _add_error(segments: list[list[bytes]], problem: Problem, header: Header) -> None:
    """Add the ERR, with its words where the version has a place for them."""
    component = header.component_separator
    coded = [problem.error_code.encode("ascii"), _ERRORS[problem.error_code].encode("ascii"), b"HL70357"]
    place = [problem.segment, str(problem.sequence), str(problem.field) if problem.field else ""]
    where = [part.encode("ascii") for part in place] if problem.segment else []
    delimiters = re.escape(header.field_separator + header.encoding_characters)
    words = re.sub(b"[%b\r\n]" % delimiters, b" ", problem.words.encode("ascii", "replace"))
    if (header.field(12) or b"2.5.1").split(component)[0] < b"2.5":
        sub_component = header.encoding_characters[3:4] or b"&"
        segments.append([b"ERR", component.join([*(where or [b""] * 3), sub_component.join(coded)])])
        segments[-2] += [words] if words else []
    else:
        error = [b"ERR", b"", component.join(where).rstrip(component), component.join(coded), b"E"]
        segments.append([*error, b"", b"", b"", words] if words else error)


def split_batch(data: bytes) -> list[bytes] | None:
    """Return the messages of a batch or file (BHS, FHS; HL7 2.5.1 section 2.10.3), None where it is neither."""
    text = data.lstrip(LEADING)
    if not text.startswith((b"FHS", b"BHS")):
        return None
    messages: list[list[bytes]] = []
    for line in re.split(rb"[\r\n]+", text):
        if line.startswith(b"MSH"):
            messages.append([line])
        elif messages and line and not line.startswith((b"BHS", b"BTS", b"FHS", b"FTS")):
            messages[-1].append(line)
    return [b"\r".join(lines) + b"\r" for lines in messages]
