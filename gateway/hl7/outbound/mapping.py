"""A destination's own wishes, from its settings: fields set, emptied or removed, Z-segments added.

A path names a segment (`PV1`), a field (`PV1-2`) or a component (`PV1-3.1`); a template is HL7 text as it is to stand
in the message, with `{placeholders}` for values, which are escaped.  Every segment of that name is changed; one that
is not there is made, in its place among the standard ones or, a Z-segment, at the end.  A whole segment is removed by
an empty template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from gateway.hl7.outbound.fields import escape

_ORDER = ("MSH", "SFT", "EVN", "PID", "PD1", "NK1", "PV1", "PV2", "ORC", "OBR", "TXA", "NTE", "OBX")


def apply_mapping(segments: list[str], mapping: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
    """Return a message's segments with a destination's mapping applied, in its order."""
    for path, template in mapping.items():
        name, _, where = path.partition("-")
        if not where:
            segments = [segment for segment in segments if segment.split("|")[0] != name]
            continue
        text = fill_template(template, values)
        if text and not any(segment.split("|")[0] == name for segment in segments):
            segments = _with_new(segments, name)
        field, _, component = where.partition(".")
        segments = [
            set_field(segment, int(field), int(component or 0), text) if segment.split("|")[0] == name else segment
            for segment in segments
        ]
    return segments


def fill_template(template: str, values: Mapping[str, str], *, url: bool = False) -> str:
    """Return a template with its placeholders filled: values escaped for HL7, or quoted for a URL."""

    def fill(found: re.Match[str]) -> str:
        value = values[found[1]]
        return quote(value, safe="") if url else escape(value)

    return re.sub(r"\{([^{}]*)\}", fill, template)


def _with_new(segments: list[str], name: str) -> list[str]:
    if name not in _ORDER:
        return [*segments, name]
    before = _ORDER[: _ORDER.index(name)]
    place = max((i for i, segment in enumerate(segments) if segment.split("|")[0] in before), default=0) + 1
    return [*segments[:place], name, *segments[place:]]


def set_field(segment: str, field: int, component: int, text: str) -> str:
    """Return a segment with another text in a field, or in a component of it; component 0 is the whole field."""
    parts = segment.split("|")
    index = field - 1 if parts[0] in ("MSH", "FHS", "BHS") else field  # field 1 is the separator itself
    parts += [""] * (index + 1 - len(parts))
    if component:
        components = parts[index].split("^")
        components += [""] * (component - len(components))
        components[component - 1] = text
        text = "^".join(components).rstrip("^")
    parts[index] = text
    return "|".join(parts).rstrip("|")
