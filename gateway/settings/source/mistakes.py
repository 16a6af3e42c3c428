"""A mistake in the settings, and how values are shown: no secret is repeated, and no table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError

from gateway.settings.source.positions import At

_SECRET = re.compile(r"pass|pw|secret|token|credential|api_?key", re.IGNORECASE)
_USER = re.compile(r"(?<=//)[^/\s@]*@|(?<=[?&])(?:[^=&]*(?:pass|token|secret)[^=&]*)=[^&\s\"']*", re.IGNORECASE)
_LONGEST = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """What is wrong with one setting.

    Attributes
    ----------
    at
        The path of the setting.
    words
        The rule that it breaks.
    value
        What is wrong; None: what the file says.
    others
        Other settings that the rule is about.
    fatal
        False: it may be meant so.
    """

    at: At
    words: str
    value: Any = None
    others: tuple[At, ...] = ()
    fatal: bool = True


def rule(words: str, *at: str | int, others: tuple[At, ...] = ()) -> PydanticCustomError:
    """Return the error of a validator: the rule, and the setting that breaks it, as a path below the section.

    `others` are the other settings that the rule is about, as paths from the root.
    """
    return PydanticCustomError("rule", "{words}", {"words": words, "at": at, "others": others})


def masked(text: str) -> str:
    """Return a text without the users, passwords and tokens of the addresses in it."""
    return _USER.sub("***", text)


def shown(at: At, value: Any) -> str:
    """Return a value as TOML would have it; "" for none or a table, "***" for a secret."""
    key = next((part for part in reversed(at) if isinstance(part, str)), "")
    if (
        value is None
        or isinstance(value, dict)
        or (isinstance(value, list | tuple) and any(isinstance(each, dict) for each in value))
    ):
        return ""
    if _SECRET.search(key) and not key.endswith("_file"):
        return "***"
    text = f"'{value}'" if isinstance(value, str) and value.isprintable() and "'" not in value else repr(value)
    text = masked(str(value).lower() if isinstance(value, bool) else text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
