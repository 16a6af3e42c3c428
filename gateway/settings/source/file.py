"""One settings file: its tree, and where each setting stands in it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.errors import SettingsError
from gateway.settings.source.mistakes import Mistake, shown
from gateway.settings.source.positions import At, positions


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFile:
    """What a file says; without a file, nothing: every setting has its default."""

    path: Path | None = None
    tree: dict[str, Any] = field(default_factory=dict)
    lines: dict[At, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> SettingsFile:
        """Read a TOML file.

        Raises
        ------
        SettingsError
            The file cannot be read, or is no TOML: its line is named.
        """
        if path is None:
            return cls()
        try:
            text = path.read_bytes().decode("utf-8-sig")  # as some editors write it
            return cls(path=path, tree=tomllib.loads(text), lines=positions(text))
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise SettingsError(f"{path}:{line}: the file is not UTF-8") from error
        except tomllib.TOMLDecodeError as error:
            found = re.search(r" \(at line (\d+), column \d+\)$| \(at end of document\)$", str(error))
            line = int(found[1]) if found and found[1] else text.count("\n") + 1
            words = str(error)[: found.start()] if found else str(error)
            raise SettingsError(f"{path}:{line}: is no TOML: {words}") from error

    def line(self, at: At) -> int:
        """Return the line of a setting, or of the table that it would stand in; 0 where there is none."""
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines[at] if at else 0

    def place(self, at: At) -> str:
        """Return the file, and the line in it."""
        line = self.line(at)
        return f"{self.path or 'default settings'}{f':{line}' if line else ''}"

    def origin(self, at: At) -> str:
        """Return where the value of a setting comes from: the file and the line, or "default"."""
        return f"{self.path}:{self.lines[at]}" if at in self.lines else "default"

    def name(self, at: At) -> str:
        """Return the dotted name of a setting; an element of an array is called by its name, or by its number."""
        names: list[str] = []
        value: Any = self.tree
        for part in at:
            value = _below(value, part)
            label = next((value[key] for key in ("name", "ae_title") if isinstance(value, dict) and key in value), None)
            numbered = str(part + 1) if isinstance(part, int) else part
            names.append(label if isinstance(part, int) and isinstance(label, str) and label else numbered)
        return ".".join(names)

    def value(self, at: At) -> Any:
        """Return what the file says there; None where it says nothing."""
        value: Any = self.tree
        for part in at:
            value = _below(value, part)
        return value

    def words(self, mistake: Mistake) -> str:
        """Return a mistake as one line: file and line, setting, value, rule, and where else to look."""
        value = shown(mistake.at, self.value(mistake.at) if mistake.value is None else mistake.value)
        others = [f"line {self.line(other)}" for other in mistake.others if self.line(other)]
        see = f" ({', '.join(others)})" if others else ""
        name = self.name(mistake.at)
        setting = f"{name} = {value}" if value else name
        return ": ".join(part for part in (self.place(mistake.at), setting, f"{mistake.words}{see}") if part)

    def report(self, mistakes: Iterable[Mistake]) -> str:
        """Return mistakes in the order of the file, a line each."""
        return "\n".join(self.words(each) for each in sorted(mistakes, key=lambda mistake: self.line(mistake.at)))


def _below(value: Any, part: str | int) -> Any:
    if isinstance(part, int):
        return value[part] if isinstance(value, list) and part < len(value) else None
    return value.get(part) if isinstance(value, dict) else None
