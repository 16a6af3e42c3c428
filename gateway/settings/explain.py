"""Settings for a person to read: those in effect, and the example that explains every one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway.settings.source.file import SettingsFile
from gateway.settings.source.mistakes import masked
from gateway.settings.source.positions import At


def to_toml(section: BaseModel) -> str:
    """Return a tree of settings as TOML that loads to the same tree; a setting without a value is a comment."""
    return "\n".join(_table(section, (), None)).strip()


def explained(section: BaseModel, file: SettingsFile) -> str:
    """Return a tree of settings as TOML, each with the line of the file that it comes from; secrets are masked."""
    return "\n".join(_table(section, (), file)).strip()


def example_text() -> str:
    """Return the file that names and explains every setting, each with its default.

    It lies beside this module where the package is installed, and in `config/` of a checkout.
    """
    installed = Path(__file__).with_name("gateway.example.toml")
    checkout = Path(__file__).resolve().parents[2] / "config" / "gateway.example.toml"
    return (installed if installed.is_file() else checkout).read_text(encoding="utf-8")


def _table(section: BaseModel, at: At, file: SettingsFile | None) -> list[str]:
    """Return the lines of one table: its plain values first, then its sub-tables and arrays of tables."""
    path = ".".join(part for part in at if isinstance(part, str))
    plain: list[str] = []
    tables: list[str] = []
    for name in type(section).model_fields:
        value = getattr(section, name)
        inner = f"{path}.{name}" if path else name
        if isinstance(value, BaseModel):
            tables += ["", f"[{inner}]", *_table(value, (*at, name), file)]
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for number, item in enumerate(value):
                tables += ["", f"[[{inner}]]", *_table(item, (*at, name, number), file)]
        else:
            line = f"# {name} is not set" if value is None else f"{name} = {_value(value)}"
            plain.append(line if file is None else f"{masked(line)}  # {file.origin((*at, name))}")
    return plain + tables


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(key)} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float):
        return str(value)  # inf, which JSON does not have
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
