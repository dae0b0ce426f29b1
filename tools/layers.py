"""The rules of the house, as data: which room may import which, and how large its parts may be.

Run as a program it prints every breach and the medians of the sizes; ``tests/test_layers.py`` holds the
package to the same rules. ``docs/design.md`` says why the rooms stand as they do.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "joulescope"
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60


@dataclass(frozen=True)
class Room:
    """A top-level module or package of joulescope.

    ``rooms``: other rooms it may import; ``hook.wire`` opens one module of a room, ``hook`` all of it.
    ``packages``: what it may import beyond the standard library. ``inside_functions``: what it may
    import beyond that where the import stands in a function, so that it runs only when needed.
    """

    rooms: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()
    inside_functions: frozenset[str] = frozenset()


def _room(rooms: str = "", packages: str = "", inside_functions: str = "") -> Room:
    return Room(frozenset(rooms.split()), frozenset(packages.split()), frozenset(inside_functions.split()))


VALUES = (
    "model diagnosis_model host_model label_model ledger_model link_model minute_model surroundings_model "
    "serving_model units urls errors clock"
)

ROOMS: dict[str, Room] = {
    "__init__": _room(),
    "units": _room(),
    "errors": _room(),
    "clock": _room("units"),
    "diagnosis_model": _room(),
    "engine_model": _room(),
    "gpu_model": _room(),
    "host_model": _room(),
    "label_model": _room(),
    "ledger_model": _room(),
    "link_model": _room(),
    "surroundings_model": _room(),
    "serving_model": _room(),
    "minute_model": _room("engine_model"),
    "minutes": _room("engine_model minute_model errors clock"),
    "model": _room(
        "diagnosis_model engine_model gpu_model host_model label_model ledger_model link_model "
        "surroundings_model serving_model",
        packages="numpy",
    ),
    "hook": _room(packages="msgspec", inside_functions="vllm torch"),
    "hook_install": _room("errors"),
    "inject": _room("errors hook.environment", packages="ruamel"),
    "answer": _room("hook.environment"),
    "sdk": _room("hook.environment hook.link"),
    "gpu_records": _room("model errors hook.wire"),
    "host_records": _room("host_model errors hook.wire"),
    "urls": _room(),
    "web": _room("errors clock units urls"),
    "periodic": _room(),
    "factors": _room(f"{VALUES} web periodic"),
    "scraping": _room(f"{VALUES} web periodic", packages="prometheus_client"),
    "config": _room("errors label_model urls factors.intensity", packages="yaml"),
    "sensors": _room(VALUES, packages="amdsmi psutil pynvml"),
    "sampling": _room(f"{VALUES} sensors"),
    "inside": _room(
        f"{VALUES} hook.wire hook.link hook.environment hook.sampler sensors sampling gpu_records",
        packages="msgspec",
    ),
    "ingest": _room(f"{VALUES} hook.wire", packages="msgspec numpy", inside_functions="zstandard"),
    "link": _room(f"{VALUES} periodic hook.wire ingest.frames", packages="msgspec"),
    "attribution": _room(f"{VALUES} minutes", packages="numpy"),
    "ledger": _room(f"{VALUES} minutes periodic", inside_functions="fsspec pyarrow"),
    "baselines": _room(f"{VALUES} attribution.baseline", packages="msgspec"),
    "insight": _room(
        f"engine_model {VALUES} minutes ledger attribution",
        packages="numpy yaml",
        inside_functions="duckdb fsspec ibis matplotlib pyarrow",
    ),
    "export": _room(
        f"{VALUES} minutes",
        packages="bcrypt msgspec opentelemetry prometheus_client requests starlette uvicorn yaml",
    ),
    "simulation": _room(f"{VALUES} sensors gpu_records hook.wire hook.emitter", packages="msgspec numpy"),
    "pipeline": _room(
        f"{VALUES} gpu_records host_records hook.wire ingest sampling attribution", packages="msgspec numpy"
    ),
    "replay": _room(f"{VALUES} gpu_records host_records hook.wire ingest sampling attribution pipeline"),
    "daemon": _room(
        f"{VALUES} config periodic factors scraping gpu_records hook.wire sensors sampling ingest link "
        "attribution baselines insight.diagnosis export ledger minutes pipeline",
        packages="msgspec numpy",
    ),
    "doctor": _room(
        f"{VALUES} config hook.contract hook.environment sensors sampling "
        "export.web_config_file export.web_config_report export.web_config_rules"
    ),
    "terminal": _room(f"{VALUES} periodic export", packages="msgspec rich"),
    "cli": _room(
        f"{VALUES} minutes terminal doctor config hook.wire sensors sampling ingest attribution baselines "
        "insight export ledger.read ledger.compaction simulation pipeline replay daemon hook_install inject",
        packages="click msgspec rich zstandard",
        inside_functions="fsspec matplotlib pyarrow",
    ),
}
"""Every room, lowest first: a room may only open rooms that stand above it in this table."""


@dataclass(frozen=True)
class Import:
    """One imported module and where the import stands."""

    module: str
    line: int
    in_function: bool


def imports_of(tree: ast.Module, module: str, is_package: bool) -> Iterator[Import]:
    """Every import statement of a module, those inside functions and conditions too.

    ``from package import name`` counts as an import of ``package.name``: whether ``name`` is a module
    cannot be seen from the text, and :func:`room_of` looks at the first parts only.
    """
    for node, in_function in statements(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package)
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (Import(name, node.lineno, in_function) for name in names)


def statements(tree: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every statement, however deep, and whether it stands in a function. Expressions hold none and are
    passed over: they are most of a tree."""
    inside = in_function or isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
    for block in ("body", "handlers", "orelse", "finalbody", "cases"):
        for node in getattr(tree, block, ()):
            yield node, inside
            yield from statements(node, inside)


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*parts, node.module] if node.module else parts)


def room_of(module: str) -> str:
    """The room of a module of joulescope; the package itself is the room ``__init__``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "__init__"


def breach(importer: str, imported: Import) -> str | None:
    """What is wrong with one import, or nothing."""
    own = room_of(importer)
    room = ROOMS[own]
    top, _, rest = imported.module.partition(".")
    if top == PACKAGE:
        target = room_of(imported.module)
        opened = any(rest == entry or rest.startswith(entry + ".") for entry in room.rooms)
        if target in (own, "__init__") or opened:
            return None
        return f"room {own} may not import {imported.module}"
    if top in sys.stdlib_module_names or top in room.packages:
        return None
    if top in room.inside_functions:
        return None if imported.in_function else f"room {own} may import {top} inside functions only"
    return f"room {own} may not import the package {top}"


def check_imports(root: Path) -> list[str]:
    """Every import below ``root`` (the directory of the package) that breaks a rule."""
    problems = []
    for path in sorted(root.rglob("*.py")):
        is_package = path.name == "__init__.py"
        parts = path.relative_to(root.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if is_package else parts)
        if len(parts) > 1 and parts[1] not in ROOMS:
            problems.append(f"{path}:1: {parts[1]} is no room of tools/layers.py; give it its rules there")
            continue
        for imported in imports_of(ast.parse(path.read_text()), module, is_package):
            problem = breach(module, imported)
            if problem:
                problems.append(f"{path}:{imported.line}: {problem}")
    return problems


def check_order() -> list[str]:
    """Rooms that open a room below themselves: the table would then allow a circle."""
    order = list(ROOMS)
    return [
        f"room {name} opens {entry}, which stands below it"
        for name, room in ROOMS.items()
        for entry in room.rooms
        if order.index(entry.partition(".")[0]) >= order.index(name)
    ]


@dataclass(frozen=True)
class Size:
    """Lines of one module or function."""

    place: str
    lines: int


def sizes(paths: Iterable[Path]) -> tuple[list[Size], list[Size]]:
    """Sizes of the modules, and of their functions without those nested in others."""
    modules, functions = [], []
    for path in paths:
        text = path.read_text()
        modules.append(Size(str(path), text.count("\n")))
        for node, _ in statements(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                functions.append(Size(f"{path}:{node.lineno} {node.name}", lines))
    return modules, functions


def check_sizes(modules: list[Size], functions: list[Size]) -> list[str]:
    """Modules and functions that are longer than the rules allow."""
    limits = ((modules, MAX_MODULE_LINES), (functions, MAX_FUNCTION_LINES))
    return [
        f"{size.place}: {size.lines} lines, {limit} are the most"
        for found, limit in limits
        for size in found
        if size.lines > limit
    ]


def main() -> int:
    """Prints breaches and medians; 1 if there is a breach."""
    root = Path(__file__).resolve().parents[1] / PACKAGE
    modules, functions = sizes(path for path in sorted(root.rglob("*.py")) if path.stat().st_size)
    problems = check_order() + check_imports(root) + check_sizes(modules, functions)
    for problem in problems:
        print(problem, file=sys.stderr)
    for name, found in (("modules", modules), ("functions", functions)):
        lines = [size.lines for size in found]
        print(f"{len(found)} {name}: median {statistics.median(lines):g} lines, longest {max(lines)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
