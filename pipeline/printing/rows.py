"""Lines of print that stand beside each other -> rows: a statement may be printed with wide gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.datatypes import TextLine
from pipeline.printing.weights import VALUES


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PrintedRow:
    """What stands at one height, left to right; two spaces part its lines, a space and a tab where they are far apart.

    It may hold the patient's name: never to be logged.
    """

    text: str
    sure: tuple[float, ...]  # probability of each character

    def is_sure(self, start: int, stop: int) -> bool:
        """Tell whether a part of the text was read with certainty; of spaces, commas and dashes nothing depends."""
        part = zip(self.text[start:stop], self.sure[start:stop], strict=True)
        return min((sure for character, sure in part if character not in " ,-\t"), default=0.0) >= VALUES.sure


def in_rows(lines: Sequence[TextLine]) -> list[PrintedRow]:
    """Join the lines that stand beside each other, top to bottom."""
    rows: list[list[TextLine]] = []
    for line in sorted(lines, key=lambda line: (line.y0_mm + line.y1_mm) / 2):
        middle = (line.y0_mm + line.y1_mm) / 2
        if rows and rows[-1][0].y0_mm < middle < rows[-1][0].y1_mm:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [_joined(sorted(row, key=lambda line: line.x0_mm)) for row in rows]


def _joined(row: Sequence[TextLine]) -> PrintedRow:
    text, sure = "", []
    for k, line in enumerate(row):
        gap = "" if k == 0 else "  " if line.x0_mm - row[k - 1].x1_mm <= VALUES.beside_mm else " \t"
        text += gap + line.text
        sure += [1.0] * len(gap) + list(line.sure or [line.score] * len(line.text))
    return PrintedRow(text=text, sure=tuple(sure))
