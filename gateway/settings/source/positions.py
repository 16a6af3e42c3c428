"""Where each key and each element of a TOML text stands: `tomllib` gives values without their lines.

The text must be TOML that `tomllib` has read; here it is only cut into tokens (TOML 1.0).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

At = tuple[str | int, ...]  # a path in the tree: keys, and numbers of elements

_TOKEN = re.compile(
    r'''(?P<text>"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|'[^']*')'''
    r"|(?P<end>\n)|(?P<mark>[\[\]{}=,.])|(?P<bare>[^\s\[\]{}=,.#\"']+)|#[^\n]*|[^\S\n]+",
    re.DOTALL,
)
_END = ("\n", 0)


def positions(text: str) -> dict[At, int]:
    """Return the line of every table, key and element, counted from 1."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = [*_tokens(text.replace("\r\n", "\n")), _END]
        self._next = 0
        self._found: dict[At, int] = {}
        self._elements: dict[At, int] = {}  # arrays of tables: the number of their latest element

    def read(self) -> dict[At, int]:
        table: At = ()
        while self._next < len(self._tokens) - 1:
            if self._peek() == "[":
                table = self._header()
            elif self._peek() == "\n":
                self._take()
            else:
                self._pair(table)
        return self._found

    def _header(self) -> At:
        """Read `[a.b]` or `[[a.b]]`; return the path of the table that begins."""
        line = self._take()[1]
        is_array = self._peek() == "["
        if is_array:
            self._take()
        keys = self._key()
        path: At = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            self._found.setdefault(path, line)
            if is_array and number == len(keys) - 1:
                self._elements[path] = self._elements.get(path, -1) + 1
            if path in self._elements:
                path = (*path, self._elements[path])
                self._found.setdefault(path, line)
        for _ in range(1 + is_array):
            self._take()
        return path

    def _pair(self, table: At) -> None:
        """Read `key = value`."""
        line = self._tokens[self._next][1]
        path = table
        for key in self._key():
            path = (*path, key)
            self._found.setdefault(path, line)
        self._take()
        self._value(path)

    def _key(self) -> list[str]:
        """Read a key with its dots."""
        keys = [_bare(self._take()[0])]
        while self._peek() == ".":
            self._take()
            keys.append(_bare(self._take()[0]))
        return keys

    def _value(self, path: At) -> None:
        if self._peek() == "{":
            self._inside("}", path)
        elif self._peek() == "[":
            self._inside("]", path)
        else:
            while self._peek() not in ("\n", ",", "]", "}"):
                self._take()

    def _inside(self, end: str, path: At) -> None:
        """Read an array or an inline table."""
        self._take()
        number = 0
        while self._peek() != end:
            if self._peek() in ("\n", ","):
                self._take()
            elif end == "}":
                self._pair(path)
            else:
                self._found[(*path, number)] = self._tokens[self._next][1]
                self._value((*path, number))
                number += 1
        self._take()

    def _peek(self) -> str:
        return self._tokens[self._next][0]

    def _take(self) -> tuple[str, int]:
        self._next += 1
        return self._tokens[self._next - 1]


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Yield what is neither blank nor comment, with its line."""
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup:
            yield match[0], line
        line += match[0].count("\n")


def _bare(key: str) -> str:
    """Return a key without its quotes."""
    if key.startswith("'"):
        return key[1:-1]
    if not key.startswith('"'):
        return key
    return re.sub(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", _character, key[1:-1])


def _character(escape: re.Match[str]) -> str:
    code = escape[1]
    return (
        chr(int(code[1:], 16))
        if code[0] in "uU"
        else {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}.get(code, code)
    )
