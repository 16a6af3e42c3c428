"""Unique identifiers: who we are on the wire, and how results get theirs.

The UIDs of results are *derived*: a hash of what they were made from, under the root 2.25 (PS3.5 B.2).  Making the
same result again gives the same UID, so an archive recognises a repeat instead of storing a second ECG.
"""

from __future__ import annotations

import hashlib
import re
import uuid

IMPLEMENTATION_CLASS_UID = "2.25.219765651042211359791463303082178626134"
IMPLEMENTATION_VERSION_NAME = "ECG_GATEWAY_01"  # at most 16 characters, PS3.7 D.3.3.2

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


def is_uid(text: str) -> bool:
    """Return whether `text` is usable as a UID: dotted digits, at most 64 characters (PS3.5 section 9).

    Components with leading zeros break the Standard but exist, and are taken as they are.
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def derived_uid(*parts: str) -> str:
    """Return the UID that belongs to `parts`; the same parts always give the same UID."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"
