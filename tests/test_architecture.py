"""Who may import whom, and who may do what: the rules of docs/architecture.md as one test each.

Every rule is a function from a parsed source tree to a list of breaches; the self-check at the end plants one breach of
each rule and expects it to be caught, so that no rule can rot into one that always passes.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]
# What digitize.py composes.
STAGES = {
    "source.page",
    "sheet.segment",
    "sheet.rectify",
    "sheet.bend",
    "rows.marks",
    "printing.labels",
    "rows.trace",
    "layout.identify",
    "signal.calibrate",
    "signal.quality",
    "printing.text",
    "signal.calibration",
}
COMPOSERS = {
    "gateway.service",
    "gateway.worker.process",
    "gateway.cli",
    "gateway.demo",
}  # they build the long-lived objects
LONG_LIVED = {"Store", "Spool", "Intake", "StorageScp", "Outbox", "FolderWatcher", "Service", "Worker"}
DRAWING = {"putText", "polylines", "circle", "arrowedLine", "drawMarker"}

Sources = dict[str, ast.Module]  # dotted module name -> its tree
Rule = Callable[[Sources], list[str]]


@cache
def read_once() -> Sources:
    sources: Sources = {}
    for package in ("gateway", "pipeline"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            sources[name] = ast.parse(path.read_text(encoding="utf-8"))
    return sources


def read_sources() -> Sources:
    return dict(read_once())


def imports(name: str, tree: ast.Module, modules: set[str]) -> Iterator[str]:
    """Every module that `name` imports, anywhere in its text; `from pipeline import grid` counts as pipeline.grid."""
    for node in nodes_of(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name if name + ".x" in modules else name.rpartition(".")[0]
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *base.split(".")])
            base = base.strip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in modules else base


@cache
def nodes_of(tree: ast.Module) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree))


def edges(sources: Sources) -> list[tuple[str, str]]:
    modules = set(sources)
    return [(name, target) for name, tree in sources.items() for target in imports(name, tree, modules)]


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def breaches_of(sources: Sources, forbidden: Callable[[str, str], bool]) -> list[str]:
    return [f"{name} imports {target}" for name, target in edges(sources) if forbidden(name, target)]


def pipeline_knows_no_gateway(sources: Sources) -> list[str]:
    """Only the reader that scores pages against DICOM waveforms may know pydicom."""
    foreign = ("gateway", "pydicom", "pynetdicom", "hl7apy", "sqlmodel", "sqlalchemy", "watchdog", "fastapi")

    def forbidden(name: str, target: str) -> bool:
        reader = name == "pipeline.evaluation.dicom" and within(target, "pydicom")
        return within(name, "pipeline") and within(target, *foreign) and not reader

    return breaches_of(sources, forbidden)


def pipeline_face_is_light(sources: Sources) -> list[str]:
    face = ("pipeline", "pipeline.datatypes", "pipeline.errors")
    light = (*face[1:], "__future__", "dataclasses", "enum", "numpy", "typing", "collections.abc")
    return breaches_of(sources, lambda name, target: name in face and not within(target, *light))


def gateway_uses_pipeline_types_only(sources: Sources) -> list[str]:
    def forbidden(name: str, target: str) -> bool:
        return within(name, "gateway") and not within(name, "gateway.worker") and target.startswith("pipeline.")

    return breaches_of(sources, forbidden)


def gateway_loads_no_heavy_library(sources: Sources) -> list[str]:
    return breaches_of(sources, lambda name, target: within(name, "gateway") and within(target, "torch", "cv2"))


def worker_is_imported_in_its_command_only(sources: Sources) -> list[str]:
    modules = set(sources)
    heavy = {"gateway.worker.worker", "gateway.worker.process", "gateway.worker.source"}  # they load the digitizer
    return [
        f"{name} imports {target} when it is imported itself"
        for name, tree in sources.items()
        if not within(name, "gateway.worker")
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for target in imports(name, ast.Module(body=[node], type_ignores=[]), modules)
        if target in heavy
    ]


def stages_do_not_import_stages(sources: Sources) -> list[str]:
    stages = {f"pipeline.{stage}" for stage in STAGES}
    composers = ("pipeline.digitize", "pipeline.__main__", "pipeline.output.overlay")
    return breaches_of(
        sources, lambda name, target: name in stages and (target in stages or target in composers) and name != target
    )


def training_stays_outside(sources: Sources) -> list[str]:
    outside = ("pipeline.training", "pipeline.evaluation")

    def forbidden(name: str, target: str) -> bool:
        return name != "pipeline.__main__" and not within(name, *outside) and within(target, *outside)

    return breaches_of(sources, forbidden)


def matplotlib_in_evaluation_only(sources: Sources) -> list[str]:
    return breaches_of(
        sources, lambda name, target: within(target, "matplotlib") and not within(name, "pipeline.evaluation")
    )


def drawing_in_overlay_only(sources: Sources) -> list[str]:
    allowed = ("pipeline.output.overlay", "pipeline.training", "pipeline.evaluation")
    return [
        f"{name} draws with cv2.{node.func.attr}"
        for name, tree in sources.items()
        if within(name, "pipeline") and not within(name, *allowed)
        for node in nodes_of(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "cv2"
        and node.func.attr in DRAWING
    ]


def sql_in_store_only(sources: Sources) -> list[str]:
    allowed = ("gateway.store",)
    breaches = breaches_of(
        sources,
        lambda name, target: within(target, "sqlalchemy", "sqlmodel", "sqlite3") and not within(name, *allowed),
    )
    session = [
        f"gateway.store.tables names {node.name if isinstance(node, ast.alias) else node}"
        for node in ast.walk(sources.get("gateway.store.tables", ast.Module(body=[], type_ignores=[])))
        if isinstance(node, ast.alias) and node.name in {"Session", "create_engine", "select", "text"}
    ]
    return breaches + session


def files_move_in_spool_only(sources: Sources) -> list[str]:
    allowed = {"gateway.spool.folder", "gateway.intake.folder", "gateway.demo"}
    movers = {"os.rename", "os.replace", "shutil.move"}
    return [
        f"{name} moves files with {ast.unparse(node.func)}"
        for name, tree in sources.items()
        if within(name, "gateway") and name not in allowed
        for node in nodes_of(tree)
        if isinstance(node, ast.Call)
        and (ast.unparse(node.func) in movers or ast.unparse(node.func).endswith(".rename"))
    ]


def settings_are_read_in_settings_only(sources: Sources) -> list[str]:
    """Only service.py may look at the environment besides: the service manager's NOTIFY_SOCKET is no setting."""
    breaches = breaches_of(
        sources,
        lambda name, target: within(name, "gateway") and name != "gateway.settings" and within(target, "tomllib"),
    )
    readers = {"os.environ", "os.getenv"}
    allowed = {"gateway.settings", "gateway.service"}
    return breaches + [
        f"{name} reads {ast.unparse(node)}"
        for name, tree in sources.items()
        if within(name, "gateway") and name not in allowed
        for node in nodes_of(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in readers
    ]


def no_global_settings(sources: Sources) -> list[str]:
    return [
        f"{name} makes settings when it is imported: {ast.unparse(node)}"
        for name, tree in sources.items()
        for statement in tree.body
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.Expr)
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"Settings", "load_settings"}
    ]


def built_by_composers_only(sources: Sources) -> list[str]:
    """A module may build what it defines itself."""
    own = {name: {node.name for node in tree.body if isinstance(node, ast.ClassDef)} for name, tree in sources.items()}
    return [
        f"{name} builds a {node.func.id}"
        for name, tree in sources.items()
        if within(name, "gateway") and name not in COMPOSERS
        for node in nodes_of(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LONG_LIVED - own[name]
    ]


def no_cycles(sources: Sources) -> list[str]:
    graph: dict[str, set[str]] = {name: set() for name in sources}
    for name, target in edges(sources):
        if target in graph and target != name and not name.startswith(target + "."):
            graph[name].add(target)
    while graph:  # peel off modules that import nothing left; what cannot be peeled holds a cycle
        leaves = {name for name, targets in graph.items() if not targets & graph.keys()}
        if not leaves:
            return [f"cycle among {sorted(graph)}"]
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    return []


RULES: tuple[Rule, ...] = (
    pipeline_knows_no_gateway,
    pipeline_face_is_light,
    gateway_uses_pipeline_types_only,
    gateway_loads_no_heavy_library,
    worker_is_imported_in_its_command_only,
    stages_do_not_import_stages,
    training_stays_outside,
    matplotlib_in_evaluation_only,
    drawing_in_overlay_only,
    sql_in_store_only,
    files_move_in_spool_only,
    settings_are_read_in_settings_only,
    no_global_settings,
    built_by_composers_only,
    no_cycles,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Rule) -> None:
    assert rule(read_sources()) == []


def test_broad_except_in_four_places_only() -> None:
    allowed = {
        "gateway/dicom/network/scp.py",
        "gateway/hl7/transport/mllp.py",
        "gateway/worker/worker.py",
        "gateway/delivery/outbox.py",
    }
    found = {
        str(path.relative_to(ROOT))
        for package in ("gateway", "pipeline")
        for path in (ROOT / package).rglob("*.py")
        if "BLE001" in path.read_text(encoding="utf-8")
    }
    assert found <= allowed


PLANTED: dict[Rule, tuple[tuple[str, str], ...]] = {
    pipeline_knows_no_gateway: (
        ("pipeline.rows.trace", "import pydicom.dataset"),
        ("pipeline.evaluation.truth", "import pydicom"),
        ("pipeline.evaluation.dicom", "import gateway.dicom.objects.content_checker"),
        ("pipeline.digitize", "from gateway.settings import Settings"),
    ),
    pipeline_face_is_light: (("pipeline", "import torch"), ("pipeline", "from pipeline import digitize")),
    gateway_uses_pipeline_types_only: (
        ("gateway.service", "def f():\n    from pipeline import digitize"),
        ("gateway.dicom.network.scp", "from pipeline.digitize import Digitizer"),
    ),
    gateway_loads_no_heavy_library: (("gateway.worker.worker", "def f():\n    import torch"),),
    worker_is_imported_in_its_command_only: (
        ("gateway.cli", "from gateway.worker import worker"),
        ("gateway.cli", "from gateway.worker.process import run_worker"),
    ),
    stages_do_not_import_stages: (
        ("pipeline.rows.trace", "from pipeline.layout import identify"),
        ("pipeline.rows.trace", "from ..layout.identify import identify_layout"),
        ("pipeline.layout.identify", "import pipeline.digitize"),
    ),
    training_stays_outside: (("pipeline.sheet.segment", "from pipeline.training import synth"),),
    matplotlib_in_evaluation_only: (("pipeline.output.overlay", "import matplotlib.pyplot"),),
    drawing_in_overlay_only: (("pipeline.rows.trace", "import cv2\ncv2.putText(1)"),),
    sql_in_store_only: (
        ("gateway.web.app", "from sqlmodel import Session"),
        ("gateway.store.tables", "from sqlmodel import Session"),
    ),
    files_move_in_spool_only: (
        ("gateway.worker.worker", "import os\nos.replace(a, b)"),
        ("gateway.dicom.network.scp", "path.rename(other)"),
    ),
    settings_are_read_in_settings_only: (
        ("gateway.cli", "import tomllib"),
        ("gateway.delivery.outbox", "import os\nname = os.environ['HOME']"),
    ),
    no_global_settings: (("gateway.delivery.outbox", "settings = load_settings(None)"),),
    built_by_composers_only: (("gateway.delivery.outbox", "def f():\n    return Store(path)"),),
    no_cycles: (("gateway.errors", "from gateway import settings"),),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_planted_breach_is_caught(rule: Rule) -> None:
    for module, text in PLANTED[rule]:
        sources = read_sources()
        sources.setdefault("pipeline.sheet.grid", ast.parse(""))
        sources.setdefault("pipeline.layout.identify", ast.parse(""))
        sources.setdefault("pipeline.digitize", ast.parse(""))
        sources.setdefault("pipeline.training.synth", ast.parse(""))
        sources.setdefault("gateway.worker.worker", ast.parse(""))
        before = rule(sources)
        tree = sources.get(module, ast.parse(""))
        sources[module] = ast.Module(body=[*tree.body, *ast.parse(text).body], type_ignores=[])
        assert len(rule(sources)) > len(before), f"{rule.__name__} overlooks {text!r} in {module}"


def test_service_loads_neither_torch_nor_opencv() -> None:
    code = (
        "import sys, gateway.service, gateway.cli\n"
        "heavy = {'torch', 'cv2', 'pipeline.digitize', 'gateway.worker.worker'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=4 * PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
