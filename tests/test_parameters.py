"""No function of the gateway takes more than six parameters: what travels together is one value."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("results", "delivery", "domain", "dicom", "hl7/outbound")
MAXIMUM = 6

Sources = dict[str, ast.Module]  # dotted module name -> its tree


def read_rooms() -> Sources:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for room in ROOMS
        for path in sorted((ROOT / "gateway" / room).rglob("*.py"))
    }


def at_most_six_parameters(sources: Sources) -> list[str]:
    """Self and class are not counted."""
    breaches = []
    for name, tree in sources.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                arguments = node.args
                names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
                count = len([each for each in names if each not in ("self", "cls")])
                if count > MAXIMUM:
                    breaches.append(f"{name}.{getattr(node, 'name', 'lambda')} takes {count} parameters")
    return breaches


def test_no_function_takes_more_than_six_parameters() -> None:
    assert at_most_six_parameters(read_rooms()) == []


def test_the_rule_catches_a_breach() -> None:
    planted = ast.parse("def f(self, a, b, c, /, d, e, f, *, g): ...\ndef fine(self, a, b, c, d, e, f): ...")
    assert at_most_six_parameters({"x": planted}) == ["x.f takes 7 parameters"]
