r"""Reading an HL7 v2 message of any version: character set, segments, fields, components, escapes.

Tolerant of what senders do: segments end with CR, LF or CRLF; the last one may end with nothing; delimiters are the
message's own; a character set that is wrongly declared falls back to the configured one.  hl7apy stays out of it: it
knows only the versions and segments of its tables.  The work is linear in the size: segments that nobody reads are not
divided, and those that are read have a greatest length.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass

from gateway.hl7.inbound.acknowledgement import scan_header

logger = logging.getLogger(__name__)

CODECS = {  # HL7 table 0211 -> Python's codec
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "ISO IR14": "shift_jis",  # JIS X 0201
    "ISO IR87": "iso2022_jp",  # JIS X 0208
    "ISO IR159": "iso2022_jp_1",  # JIS X 0212
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
    "UNICODE": "utf-8",  # 2.3.1's only word for Unicode; UTF-16 cannot be framed by MLLP
    "UNICODE UTF-8": "utf-8",
}
MAXIMUM_SEGMENT_CHARACTERS = 65_536  # of one that is read: the longest field of version 2.5.1, and 50 times any PID
_READ = ("MSH", "EVN", "PID", "PV1", "MRG", "ORC", "OBR", "IPC", "ZDS")  # what `gateway.hl7.inbound.updates` reads
_UNESCAPED = {"F": 0, "S": 1, "R": 2, "E": 3, "T": 4}  # \F\ -> which delimiter


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment; `fields[n]` is field n as the standard counts (MSH-1 is the separator), still escaped."""

    name: str
    fields: tuple[str, ...]
    delimiters: str  # field, component, repetition, escape, sub-component
    ordinal: int = 1  # among the segments of its name

    def field(self, number: int) -> str:
        """Return a field as it stands, "" where the segment ends earlier."""
        return self.fields[number] if number < len(self.fields) else ""

    def repetitions(self, number: int) -> list[list[str]]:
        """Return a field's repetitions as lists of components, still escaped; empty ones are left out."""
        return [part.split(self.delimiters[1]) for part in self.field(number).split(self.delimiters[2]) if part]

    def text(self, number: int, component: int = 1) -> str:
        """Return the first sub-component of a component of a field's first repetition, unescaped."""
        repetitions = self.repetitions(number)
        return self.part(repetitions[0], component) if repetitions else ""

    def part(self, components: list[str], number: int, sub_component: int = 1) -> str:
        """Return a sub-component of a component, unescaped, "" where there is none."""
        if number > len(components):
            return ""
        parts = components[number - 1].split(self.delimiters[4])
        return self._unescape(parts[sub_component - 1]).strip() if sub_component <= len(parts) else ""

    def _unescape(self, text: str) -> str:
        escape = re.escape(self.delimiters[3])

        def replace(found: re.Match[str]) -> str:
            code = found[1]
            if code in _UNESCAPED:
                return self.delimiters[_UNESCAPED[code]]
            if code.startswith("X") and re.fullmatch("([0-9A-Fa-f]{2})+", code[1:]):
                return _hexadecimal(code[1:])
            return " "  # formatting, highlighting, other character sets: nothing that names a patient needs them

        return re.sub(f"{escape}([^{escape}]*){escape}", replace, text) if self.delimiters[3] in text else text


@dataclass(frozen=True, slots=True)
class Message:
    """A message's segments in order, MSH first."""

    segments: tuple[Segment, ...]

    @property
    def header(self) -> Segment:
        """The MSH."""
        return self.segments[0]

    @property
    def kind(self) -> tuple[str, str]:
        """MSH-9: message code and trigger event."""
        return self.header.text(9, 1), self.header.text(9, 2)

    def first(self, name: str) -> Segment | None:
        """Return the first segment of a name, None where there is none."""
        return next((segment for segment in self.segments if segment.name == name), None)


def parse(data: bytes, default_character_set: str) -> Message:
    """Return a message's segments; of those that nobody reads only the names.

    Parameters
    ----------
    default_character_set
        HL7 table 0211: tried where MSH-18 says nothing, or what it says does not fit.

    Raises
    ------
    ValueError
        It has no MSH, or a segment that is read is too long; the message holds nothing of the data.
    """
    header = scan_header(data)
    if header is None:
        raise ValueError("the message has no MSH")
    declared = header.field(18).decode("ascii", "replace").split("~" if b"~" in header.encoding_characters else "\0")
    lines = re.split(r"[\r\n]+", _decode(data, declared, default_character_set).lstrip("\ufeff\r\n\t \x00"))
    if not re.match("MSH.", lines[0]):
        raise ValueError("the MSH has no delimiters")
    encoding = lines[0][4:260].split(lines[0][3])[0]
    delimiters = (lines[0][3] + encoding + "^~\\&"[len(encoding) :])[:5]
    seen: Counter[str] = Counter()
    return Message(tuple(_segment(line, delimiters, seen) for line in lines if line.strip(" \x00")))


def count_lines(data: bytes) -> int:
    """Return how many lines end in a message, empty ones included: at least as many as it has segments, less one."""
    return data.count(b"\r") + data.count(b"\n") - data.count(b"\r\n")


def _segment(line: str, delimiters: str, seen: Counter[str]) -> Segment:
    name = line[:8].strip("\x00").partition(delimiters[0])[0].strip()
    if name not in _READ:
        return Segment(name, (name,), delimiters)
    if len(line) > MAXIMUM_SEGMENT_CHARACTERS:
        raise ValueError(f"the {name} segment has more than {MAXIMUM_SEGMENT_CHARACTERS} characters")
    parts = line.strip("\x00").split(delimiters[0])
    if parts[0] == "MSH":
        parts.insert(1, delimiters[0])
    seen[name] += 1
    return Segment(name, tuple(parts), delimiters, seen[name])


def _hexadecimal(digits: str) -> str:
    r"""Return the characters of \X..\, which says no character set: UTF-8 where it can be, else ISO 8859-1."""
    data = bytes.fromhex(digits)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _decode(data: bytes, declared: list[str], default: str) -> str:
    names = [name.strip() for name in declared if name.strip()]
    candidates = [CODECS[name] for name in reversed(names) if name in CODECS]  # with several, the last can do most
    for codec in dict.fromkeys([*candidates, CODECS[default], "utf-8"]):  # each once, however often it is named
        try:
            return data.decode(codec)
        except UnicodeDecodeError:
            continue
    logger.warning("A message is in none of the character sets it may be in", extra={"action": "hl7_character_set"})
    return data.decode("latin-1")
