"""What of changed settings a running process takes up; the rest needs a restart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from gateway.errors import SettingsError
from gateway.settings.load import Settings
from gateway.settings.source.positions import At

# Addresses, TLS files' names and processes belong to sockets and processes that stay as they are.
NEEDS_RESTART = frozenset(
    {
        ("dicom", "ae_title"),
        ("dicom", "host"),
        ("dicom", "port"),
        ("dicom", "plain"),
        ("dicom", "tls"),
        ("hl7", "enabled"),
        ("hl7", "host"),
        ("hl7", "port"),
        ("hl7", "tls"),
        ("digitizer", "device"),
        ("digitizer", "layouts"),
        ("worker", "processes"),
        ("worker", "memory_limit_mib"),
        ("storage", "path"),
        ("storage", "database"),
        ("storage", "database_password_file"),
        ("storage", "spool"),
        ("storage", "spool_endpoint"),
        ("storage", "spool_region"),
        ("storage", "spool_credentials_file"),
        ("storage", "spool_ca_file"),
        ("storage", "minimum_free_mib"),
        ("web", "enabled"),
        ("web", "host"),
        ("web", "port"),
        ("web", "tls"),
        ("web", "oidc"),
        ("web", "root_path"),
        ("web", "allowed_hosts"),
        ("web", "maximum_connections"),
        ("web", "maximum_connections_per_host"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The settings after a reload, the settings that it changed, and those that only a restart changes."""

    settings: Settings
    taken: tuple[str, ...]
    needs_restart: tuple[str, ...]


def take_up(running: Settings, new: Settings) -> Change:
    """Return what becomes of the settings of a running process.

    Raises
    ------
    SettingsError
        What can be taken up does not fit what stays until a restart.
    """
    taken: list[str] = []
    staying: list[At] = []
    for at, before, now in _differences(running, new):
        if at in NEEDS_RESTART:
            staying.append(at)
        else:
            taken += [f"{'.'.join(map(str, at))}{item}" for item in _items(before, now)]
    tree = new.model_dump()
    for section, name in staying:
        tree[str(section)][name] = running.model_dump()[str(section)][name]
    restart = tuple(f"{section}.{name}" for section, name in staying)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(each["msg"] for each in error.errors())
        raise SettingsError(f"without a restart for {', '.join(restart)}: {problems}") from None
    return Change(settings=settings, taken=tuple(taken), needs_restart=restart)


def _differences(before: BaseModel, now: BaseModel, at: At = ()) -> Iterator[tuple[At, Any, Any]]:
    """Yield the settings of sections that differ; a section in a section is one setting."""
    for name in type(now).model_fields:
        one, other = getattr(before, name), getattr(now, name)
        if one == other:
            continue
        if isinstance(other, BaseModel) and not at:
            yield from _differences(one, other, (name,))
        else:
            yield (*at, name), one, other


def _items(before: Any, now: Any) -> list[str]:
    """Return which elements of an array of tables differ, by their names; [""] for anything else."""
    if not all(
        isinstance(value, tuple) and all(isinstance(each, BaseModel) for each in value) for value in (before, now)
    ):
        return [""]
    changed = [each for each in (*before, *now) if (each in before) != (each in now)]
    names = [
        next(str(getattr(each, key)) for key in ("name", "ae_title", "path") if hasattr(each, key)) for each in changed
    ]
    return [f" {name}" for name in dict.fromkeys(names)] or [" in another order"]
