"""The rooms of the house: who imports whom, and how large they are; and that the check itself can fail."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import joulescope
from tools.layers import (
    MAX_FUNCTION_LINES,
    MAX_MODULE_LINES,
    ROOMS,
    breach,
    check_imports,
    check_order,
    check_sizes,
    imports_of,
    sizes,
)

ROOT = Path(joulescope.__file__).parent


def _breaches(source: str, module: str, is_package: bool = False) -> list[str]:
    found = (breach(module, imported) for imported in imports_of(ast.parse(source), module, is_package))
    return [problem for problem in found if problem]


def test_imports_run_one_way() -> None:
    """No module of the package imports what its room may not, at its top or inside a function."""
    assert check_imports(ROOT) == []


def test_the_table_itself_has_no_circle() -> None:
    """Every room opens only rooms above it in the table, so that no two can need each other."""
    assert check_order() == []


def test_every_room_exists_and_every_part_is_a_room() -> None:
    """The table names the modules and packages there are: none is forgotten, none is left over."""
    parts = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts == set(ROOMS)


def test_no_module_and_no_function_is_too_long() -> None:
    """Modules and functions keep within the limits."""
    assert check_sizes(*sizes(sorted(ROOT.rglob("*.py")))) == []


def test_the_package_itself_imports_nothing() -> None:
    """vLLM's processes execute joulescope/__init__.py: it may not even import the standard library."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    assert list(imports_of(tree, "joulescope", is_package=True)) == []


def test_importing_the_hook_loads_nothing_beyond_what_vllm_has() -> None:
    """In a fresh process the hook brings no other room of joulescope and no package but msgspec."""
    code = (
        "import sys; before = set(sys.modules); import joulescope.hook; "
        "print(*{m.partition('.')[0] for m in set(sys.modules) - before}, "
        "*(m for m in sys.modules if m.startswith('joulescope.')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = result.stdout.split()
    rooms = {name for name in loaded if name.startswith("joulescope.")}
    packages = set(loaded) - rooms - set(sys.stdlib_module_names)
    assert all(name.startswith("joulescope.hook") for name in rooms)
    assert packages <= {"joulescope", "msgspec"}


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("joulescope.hook.tap", "import joulescope.model", "room hook may not import joulescope.model"),
        ("joulescope.hook.tap", "def f():\n  import numpy", "may not import the package numpy"),
        ("joulescope.hook.tap", "import vllm.v1", "may import vllm inside functions only"),
        ("joulescope.hook", "from .. import model", "may not import joulescope.model"),
        ("joulescope.export.http", "from joulescope.hook.wire import Step", "may not import joulescope.hook"),
        ("joulescope.ingest.x", "from joulescope.hook import tap", "may not import joulescope.hook.tap"),
        ("joulescope.ingest.x", "from joulescope import hook", "may not import joulescope.hook"),
        ("joulescope.model", "if True:\n  from . import sensors", "may not import joulescope.sensors"),
        ("joulescope.daemon", "import joulescope.cli.main", "may not import joulescope.cli.main"),
        ("joulescope.attribution.x", "import prometheus_client", "the package prometheus_client"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, words: str) -> None:
    """Each way to write a forbidden import is seen."""
    (problem,) = _breaches(source, module, is_package=module == "joulescope.hook")
    assert words in problem


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("joulescope.hook.tap", "def f():\n  from vllm.v1.core import x"),
        (
            "joulescope.hook.tap",
            "from joulescope import __version__\nfrom . import wire\nimport msgspec",
        ),
        ("joulescope.ingest.x", "from joulescope.hook.wire import Step\nfrom joulescope.hook import wire"),
        ("joulescope.attribution.x", "import numpy as np\nfrom joulescope.model import Snapshot\nimport os"),
    ],
)
def test_an_allowed_import_is_left_alone(module: str, source: str) -> None:
    """What the table allows raises nothing."""
    assert _breaches(source, module) == []


def test_a_new_part_needs_rules(tmp_path: Path) -> None:
    """A module that no room of the table covers is a breach until it is given rules."""
    package = tmp_path / "joulescope"
    package.mkdir()
    (package / "annex.py").write_text("")
    (problem,) = check_imports(package)
    assert "annex is no room" in problem


def test_long_modules_and_functions_are_found(tmp_path: Path) -> None:
    """One line beyond a limit is a breach, at the limit it is not."""
    module = tmp_path / "module.py"
    for extra, breaches in ((0, 0), (1, 1)):
        module.write_text("#\n" * (MAX_MODULE_LINES + extra))
        assert len(check_sizes(*sizes([module]))) == breaches
        module.write_text("def f():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1 + extra))
        assert len(check_sizes(*sizes([module]))) == breaches
