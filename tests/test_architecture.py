"""Who may import whom, and who may do what: the rules of docs/architecture.md as one test each.

Every rule is a function from parsed sources to a list of breaches.  The folders are walked, so a new module or room is
under the rules from its first line.  A self-check plants at least one breach of each rule and expects that it is found.
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
PACKAGES = ("gateway", "pipeline")

# The rooms of the gateway, highest first: a room imports itself and rooms of lower layers, and no cycle within a layer.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"__main__"}),
    frozenset({"cli"}),
    frozenset({"service", "demo"}),
    frozenset({"web"}),
    frozenset({"audit", "intake", "identity", "results", "delivery", "worker", "operations"}),
    frozenset({"store", "spool", "dicom", "hl7", "fhir"}),
    frozenset({"settings", "security", "domain", "logs", "threads"}),
    frozenset({"errors"}),
)
PROTOCOLS = ("dicom", "hl7", "fhir")
# What the rooms of the digitizer may import besides themselves.
PIPELINE_WORDS = ("datatypes", "errors", "pacing", "runs", "threads", "corrections", "networks", "sheet.paper")
PIPELINE_OUTSIDE = ("archive", "training", "evaluation")  # use the core; the core never uses them
PIPELINE_COMPOSERS = ("", "stages", "digitizer", "command_line", "__main__", *PIPELINE_OUTSIDE)
FACE = ("corrections", "datatypes", "errors", "runs")
MOST_MODULES_IN_A_ROOM = 12
MOST_PARAMETERS = 6
EMPTY_NAMES = {"utils", "util", "common", "base", "helpers", "misc"}

COMPOSERS = (
    "gateway.service",
    "gateway.worker.process",
    "gateway.cli",
    "gateway.demo",
)  # they build the long-lived objects
LONG_LIVED = {"Store", "Database", "Spool", "Intake", "StorageScp", "Outbox", "FolderWatcher", "Service", "Worker"}
BROAD_EXCEPT = {
    "gateway.dicom.network.scp",
    "gateway.hl7.transport.mllp",
    "gateway.worker.worker",
    "gateway.delivery.outbox",
}
DRAWING = {"putText", "polylines", "circle", "arrowedLine", "drawMarker"}

Sources = dict[str, ast.Module]  # dotted module name -> its tree
Rule = Callable[[Sources], list[str]]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def read_once() -> Sources:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


@cache
def nodes_of(tree: ast.Module) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree))


def imports(name: str, tree: ast.Module, modules: set[str]) -> Iterator[str]:
    """Every module that `name` imports, anywhere in its text; a module imported from its room counts as itself."""
    for node in nodes_of(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name if any(module.startswith(name + ".") for module in modules) else name.rpartition(".")[0]
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *base.split(".")])
            base = base.strip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in modules else base


def edges(sources: Sources) -> list[tuple[str, str]]:
    modules = set(sources)
    return [(name, target) for name, tree in sources.items() for target in imports(name, tree, modules)]


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def breaches_of(sources: Sources, forbidden: Callable[[str, str], bool]) -> list[str]:
    return [f"{name} imports {target}" for name, target in edges(sources) if forbidden(name, target)]


def room_of(module: str) -> str:
    """Return the room of a module: the first name below its package, "" for the package itself."""
    return [*module.split("."), ""][1]


def layer_of(room: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if room in rooms)


# -- both packages ----------------------------------------------------------------------------------------------------


def pipeline_knows_no_gateway(sources: Sources) -> list[str]:
    """Only the reader that scores pages against DICOM waveforms may know pydicom."""
    foreign = ("gateway", "pydicom", "pynetdicom", "hl7apy", "sqlmodel", "sqlalchemy", "watchdog", "fastapi")

    def forbidden(name: str, target: str) -> bool:
        reader = name == "pipeline.evaluation.dicom" and within(target, "pydicom")
        return within(name, "pipeline") and within(target, *foreign) and not reader

    return breaches_of(sources, forbidden)


def packages_meet_in_the_worker(sources: Sources) -> list[str]:
    """Elsewhere the gateway knows the face of the digitizer only: its types."""

    def forbidden(name: str, target: str) -> bool:
        return within(name, "gateway") and not within(name, "gateway.worker") and target.startswith("pipeline.")

    return breaches_of(sources, forbidden)


def no_cycles(sources: Sources) -> list[str]:
    graph: dict[str, set[str]] = {name: set() for name in sources}
    for name, target in edges(sources):
        if target in graph and target != name and not name.startswith(target + "."):
            graph[name].add(target)
    return cycles(graph)


def no_cycles_between_rooms(sources: Sources) -> list[str]:
    graph: dict[str, set[str]] = {}
    for name, target in edges(sources):
        room, other = (".".join(module.split(".")[:2]) for module in (name, target))
        if within(target, *PACKAGES) and other != room and other not in PACKAGES and room not in PACKAGES:
            graph.setdefault(room, set()).add(other)
            graph.setdefault(other, set())
    return cycles(graph)


def cycles(graph: dict[str, set[str]]) -> list[str]:
    while graph:  # peel off what imports nothing that is left; what cannot be peeled holds a cycle
        leaves = {name for name, targets in graph.items() if not targets & graph.keys()}
        if not leaves:
            return [f"cycle among {sorted(graph)}"]
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    return []


def rooms_say_what_they_are(sources: Sources) -> list[str]:
    packages = {name for name in sources if any(other.startswith(name + ".") for other in sources)}
    return [
        f"{name} has no docstring" for name in sorted(packages) if not ast.get_docstring(sources[name]) and
        "migrations" not in name
    ]  # fmt: skip


def rooms_are_small(sources: Sources) -> list[str]:
    modules: dict[str, int] = {}
    for name in sources:
        if "migrations" not in name:
            modules[name.rpartition(".")[0]] = modules.get(name.rpartition(".")[0], 0) + 1
    return [
        f"{room} has {count} modules"
        for room, count in modules.items()
        if room not in ("", *PACKAGES) and count > MOST_MODULES_IN_A_ROOM
    ]


def names_mean_something(sources: Sources) -> list[str]:
    return [f"{name} is no name" for name in sources if name.rpartition(".")[2] in EMPTY_NAMES]


def product_replaces_nothing(sources: Sources) -> list[str]:
    """What is swapped is a value that is passed, not an attribute that is patched."""
    return breaches_of(sources, lambda _, target: within(target, "unittest", "pytest"))


def broad_except_in_four_places(sources: Sources) -> list[str]:
    broad = {"Exception", "BaseException"}
    found = []
    for name, tree in sources.items():
        for node in nodes_of(tree):
            if not isinstance(node, ast.ExceptHandler) or name in BROAD_EXCEPT:
                continue
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(each is None or ast.unparse(each).split(".")[-1] in broad for each in caught):
                found.append(f"{name} catches everything in line {node.lineno}")
    return found


# -- the digitizer ----------------------------------------------------------------------------------------------------


def pipeline_face_is_light(sources: Sources) -> list[str]:
    """Importing the types loads numpy and nothing heavier; what a function imports is loaded when it is called."""
    face = ("pipeline", *(f"pipeline.{word}" for word in FACE))
    light = (
        *face[1:],
        "__future__",
        "collections.abc",
        "dataclasses",
        "datetime",
        "enum",
        "importlib",
        "numpy",
        "os",
        "typing",
    )
    found = []
    for name in face:
        statements = list(sources[name].body)
        while statements:
            node = statements.pop()
            if isinstance(node, ast.ClassDef | ast.Try):
                statements += node.body
            elif isinstance(node, ast.Import | ast.ImportFrom):
                targets = imports(name, ast.Module(body=[node], type_ignores=[]), set(sources))
                found += [f"{name} imports {target}" for target in targets if not within(target, *light)]
    return found


def pipeline_rooms_know_words_only(sources: Sources) -> list[str]:
    """A stage is a function of types: its room imports itself, the words, the networks and the map of the paper."""
    words = tuple(f"pipeline.{word}" for word in PIPELINE_WORDS)

    def forbidden(name: str, target: str) -> bool:
        room = room_of(name)
        if not within(name, "pipeline") or not within(target, "pipeline") or room in (*PIPELINE_COMPOSERS, *FACE):
            return False
        return not within(target, f"pipeline.{room}", *words) and target != "pipeline"

    return breaches_of(sources, forbidden)


def training_stays_outside(sources: Sources) -> list[str]:
    outside = tuple(f"pipeline.{room}" for room in PIPELINE_OUTSIDE)

    def forbidden(name: str, target: str) -> bool:
        if name == "gateway.worker.archive":  # hands what it has read over
            return within(target, *outside) and not within(target, "pipeline.archive")
        return name != "pipeline.command_line" and not within(name, *outside) and within(target, *outside)

    return breaches_of(sources, forbidden)


def matplotlib_in_evaluation_only(sources: Sources) -> list[str]:
    allowed = ("pipeline.evaluation", "pipeline.training.progress")
    return breaches_of(sources, lambda name, target: within(target, "matplotlib") and not within(name, *allowed))


def ray_is_loaded_by_its_command_only(sources: Sources) -> list[str]:
    """Ray and pyarrow are an extra: the command `archive` imports its room, and them, when it is called."""
    libraries, light = ("ray", "pyarrow"), ("pipeline.archive", "pipeline.archive.cli")
    found = breaches_of(
        sources, lambda name, target: within(target, *libraries) and not within(name, "pipeline.archive")
    )
    for name in (*light, "pipeline.command_line"):
        for node in sources[name].body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                targets = imports(name, ast.Module(body=[node], type_ignores=[]), set(sources))
                found += [
                    f"{name} imports {target} when it is imported itself"
                    for target in targets
                    if within(target, *libraries, "pipeline.archive") and target not in light
                ]
    return found


def drawing_in_output_only(sources: Sources) -> list[str]:
    allowed = ("pipeline.output", "pipeline.training", "pipeline.evaluation", "pipeline.rows.pen")
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


# -- the gateway ------------------------------------------------------------------------------------------------------


def gateway_rooms_are_known(sources: Sources) -> list[str]:
    known = frozenset().union(*LAYERS)
    rooms = {room_of(name) for name in sources if name.startswith("gateway.")}
    return [f"gateway.{room} stands in no layer" for room in sorted(rooms - known)]


def layers_import_downward(sources: Sources) -> list[str]:
    def forbidden(name: str, target: str) -> bool:
        if not name.startswith("gateway.") or not target.startswith("gateway."):
            return False
        room, other = room_of(name), room_of(target)
        return room != other and layer_of(other) < layer_of(room)

    return breaches_of(sources, forbidden)


def protocols_get_callbacks(sources: Sources) -> list[str]:
    """What comes in by a protocol is handed to a callback; its room knows neither database nor files."""
    rooms = tuple(f"gateway.{room}" for room in PROTOCOLS)
    return breaches_of(
        sources, lambda name, target: within(name, *rooms) and within(target, "gateway.store", "gateway.spool")
    )


def store_knows_words_only(sources: Sources) -> list[str]:
    allowed = ("gateway.store", "gateway.domain", "gateway.settings", "gateway.errors")

    def forbidden(name: str, target: str) -> bool:
        return within(name, "gateway.store") and within(target, "gateway") and not within(target, *allowed)

    return breaches_of(sources, forbidden)


def domain_knows_errors_only(sources: Sources) -> list[str]:
    def forbidden(name: str, target: str) -> bool:
        ours = within(target, "gateway") and not within(target, "gateway.domain", "gateway.errors")
        return within(name, "gateway.domain") and (ours or within(target, "sqlmodel", "pydicom", "hl7apy", "pathlib"))

    return breaches_of(sources, forbidden)


def gateway_loads_no_heavy_library(sources: Sources) -> list[str]:
    return breaches_of(sources, lambda name, target: within(name, "gateway") and within(target, "torch", "cv2"))


def digitizing_is_imported_in_its_command_only(sources: Sources) -> list[str]:
    modules = set(sources)
    light = ("gateway.worker.supervisor", "gateway.worker.lanes")
    return [
        f"{name} imports {target} when it is imported itself"
        for name, tree in sources.items()
        if not within(name, "gateway.worker")
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for target in imports(name, ast.Module(body=[node], type_ignores=[]), modules)
        if within(target, "gateway.worker") and target not in light
    ]


def sql_in_store_only(sources: Sources) -> list[str]:
    breaches = breaches_of(
        sources,
        lambda name, target: (
            within(target, "sqlalchemy", "sqlmodel", "sqlite3", "psycopg", "alembic")
            and not within(name, "gateway.store")
        ),
    )
    tables = sources.get("gateway.store.tables", ast.Module(body=[], type_ignores=[]))
    return breaches + [
        f"gateway.store.tables names {node.name}"
        for node in ast.walk(tables)
        if isinstance(node, ast.alias) and node.name in {"Session", "create_engine", "select", "text"}
    ]


def files_move_in_spool_only(sources: Sources) -> list[str]:
    """Watched folders and folder destinations move files that are not the spool's."""
    allowed = ("gateway.spool", "gateway.intake.folder", "gateway.delivery.folder", "gateway.demo")
    movers = {"os.rename", "os.replace", "shutil.move"}
    return [
        f"{name} moves files with {ast.unparse(node.func)}"
        for name, tree in sources.items()
        if within(name, "gateway") and not within(name, *allowed)
        for node in nodes_of(tree)
        if isinstance(node, ast.Call)
        and (ast.unparse(node.func) in movers or ast.unparse(node.func).endswith(".rename"))
    ]


def settings_are_read_in_settings_only(sources: Sources) -> list[str]:
    """Only service.py may look at the environment besides: the service manager's NOTIFY_SOCKET is no setting.

    The package itself sets a variable for NumPy.
    """
    breaches = breaches_of(
        sources,
        lambda name, target: (
            within(name, "gateway") and not within(name, "gateway.settings") and within(target, "tomllib")
        ),
    )
    readers = {"os.environ", "os.getenv"}
    return breaches + [
        f"{name} reads {ast.unparse(node)}"
        for name, tree in sources.items()
        if within(name, "gateway") and name != "gateway" and not within(name, "gateway.settings", "gateway.service")
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
    """A module may build what it defines itself, and `Store` and the worker process are composed in their rooms."""
    own = {name: {node.name for node in tree.body if isinstance(node, ast.ClassDef)} for name, tree in sources.items()}
    own["gateway.store.store"] = own.get("gateway.store.store", set()) | {"Database"}
    own["gateway.worker.process"] = {"Worker"}
    return [
        f"{name} builds a {node.func.id}"
        for name, tree in sources.items()
        if within(name, "gateway") and not within(name, *COMPOSERS)
        for node in nodes_of(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LONG_LIVED - own[name]
    ]


def few_parameters(sources: Sources) -> list[str]:
    """What travels together is one thing; a command's parameters are its options."""
    found = []
    for name, tree in sources.items():
        if not within(name, "gateway") or within(name, "gateway.cli"):
            continue
        for node in nodes_of(tree):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len([each for each in arguments if each.arg not in ("self", "cls")])
                if count > MOST_PARAMETERS:
                    found.append(f"{name}.{node.name} takes {count} parameters")
    return found


RULES: tuple[Rule, ...] = (
    pipeline_knows_no_gateway,
    packages_meet_in_the_worker,
    no_cycles,
    no_cycles_between_rooms,
    rooms_say_what_they_are,
    rooms_are_small,
    names_mean_something,
    product_replaces_nothing,
    broad_except_in_four_places,
    pipeline_face_is_light,
    pipeline_rooms_know_words_only,
    training_stays_outside,
    matplotlib_in_evaluation_only,
    ray_is_loaded_by_its_command_only,
    drawing_in_output_only,
    gateway_rooms_are_known,
    layers_import_downward,
    protocols_get_callbacks,
    store_knows_words_only,
    domain_knows_errors_only,
    gateway_loads_no_heavy_library,
    digitizing_is_imported_in_its_command_only,
    sql_in_store_only,
    files_move_in_spool_only,
    settings_are_read_in_settings_only,
    no_global_settings,
    built_by_composers_only,
    few_parameters,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Rule) -> None:
    assert rule(dict(read_once())) == []


PLANTED: dict[Rule, tuple[tuple[str, str], ...]] = {
    pipeline_knows_no_gateway: (
        ("pipeline.rows.trace", "import pydicom.dataset"),
        ("pipeline.evaluation.truth", "import pydicom"),
        ("pipeline.evaluation.dicom", "import gateway.dicom.objects.waveform"),
        ("pipeline.sheet.grid", "from gateway.settings import Settings"),
    ),
    packages_meet_in_the_worker: (
        ("gateway.service", "def f():\n    from pipeline.sheet import grid"),
        ("gateway.dicom.network.scp", "from pipeline.sheet.grid import measure_grid"),
    ),
    no_cycles: (("gateway.errors", "from gateway.settings import Settings"),),
    no_cycles_between_rooms: (
        ("pipeline.networks.unet", "import pipeline.rows.marks"),
        ("gateway.identity.planted", "import gateway.intake.folder\nimport gateway.intake.accept"),
    ),
    rooms_say_what_they_are: (("gateway.planted.module", ""),),
    rooms_are_small: tuple((f"gateway.spool.planted_{n}", "") for n in range(MOST_MODULES_IN_A_ROOM + 1)),
    names_mean_something: (("gateway.store.utils", ""),),
    product_replaces_nothing: (("pipeline.evaluation.bench", "from unittest.mock import patch"),),
    broad_except_in_four_places: (
        ("gateway.spool.folder", "try:\n    f()\nexcept Exception:\n    pass"),
        ("gateway.spool.folder", "try:\n    f()\nexcept (OSError, BaseException):\n    pass"),
        ("pipeline.sheet.grid", "try:\n    f()\nexcept:\n    pass"),
    ),
    pipeline_face_is_light: (
        ("pipeline", "import torch"),
        ("pipeline", "from pipeline.sheet import grid"),
        ("pipeline.errors", "import cv2"),
    ),
    pipeline_rooms_know_words_only: (
        ("pipeline.rows.trace", "from pipeline.layout import identify"),
        ("pipeline.rows.trace", "from ..layout.identify import identify_layout"),
        ("pipeline.layout.identify", "import pipeline.stages"),
        ("pipeline.signal.calibrate", "from pipeline.sheet.grid import measure_grid"),
    ),
    training_stays_outside: (
        ("pipeline.sheet.segment", "from pipeline.training.drawing import synth"),
        ("pipeline.digitizer", "from pipeline.archive import guard"),
        ("gateway.worker.worker", "from pipeline.archive import results"),
        ("gateway.worker.archive", "from pipeline.evaluation import dicom"),
    ),
    matplotlib_in_evaluation_only: (("pipeline.output.overlay", "import matplotlib.pyplot"),),
    ray_is_loaded_by_its_command_only: (
        ("pipeline.digitizer", "def f():\n    import pyarrow.fs"),
        ("pipeline.archive.cli", "from pipeline.archive.flow import Crew"),
        ("pipeline.command_line", "from pipeline.archive import run"),
    ),
    drawing_in_output_only: (("pipeline.rows.trace", "import cv2\ncv2.putText(1)"),),
    gateway_rooms_are_known: (("gateway.attic", ""),),
    layers_import_downward: (
        ("gateway.store.jobs", "from gateway.intake import accept"),
        ("gateway.results.page", "import gateway.web.app"),
        ("gateway.web.app", "from gateway import service"),
        ("gateway.errors", "from gateway import logs"),
    ),
    protocols_get_callbacks: (("gateway.hl7.inbound.receiver", "from gateway.store.store import Store"),),
    store_knows_words_only: (("gateway.store.jobs", "from gateway.security import tls"),),
    domain_knows_errors_only: (
        ("gateway.domain.status", "from gateway.settings import Settings"),
        ("gateway.domain.status", "from pathlib import Path"),
    ),
    gateway_loads_no_heavy_library: (("gateway.worker.worker", "def f():\n    import torch"),),
    digitizing_is_imported_in_its_command_only: (
        ("gateway.cli", "from gateway.worker import worker"),
        ("gateway.service", "from gateway.worker.worker import Worker"),
    ),
    sql_in_store_only: (
        ("gateway.web.app", "from sqlmodel import Session"),
        ("gateway.store.tables", "from sqlmodel import Session"),
        ("gateway.service", "import psycopg"),
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
    few_parameters: (("gateway.spool.folder", "def f(a, b, c, d, *, e, f, g): pass"),),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_planted_breach_is_found(rule: Rule) -> None:
    together = rule is rooms_are_small
    sources = dict(read_once())
    before = len(rule(sources))
    for module, text in PLANTED[rule]:
        sources = sources if together else dict(read_once())
        for room in (module.rpartition(".")[0], module):
            sources.setdefault(room, ast.parse(""))
        sources[module] = ast.Module(body=[*sources[module].body, *ast.parse(text).body], type_ignores=[])
        if not together:
            assert len(rule(sources)) > before, f"{rule.__name__} overlooks {text!r} in {module}"
    assert len(rule(sources)) > before


def test_service_loads_neither_torch_nor_opencv() -> None:
    code = (
        "import sys, gateway.service, gateway.cli\n"
        "heavy = {'torch', 'cv2', 'pipeline.stages', 'gateway.worker.worker'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=4 * PATIENCE_S
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_mirror_the_rooms(package: str) -> None:
    tested = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests" / package).rglob("test_*.py")}
    rooms = {path.parent.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")}
    assert tested <= rooms
