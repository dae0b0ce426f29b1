"""The README of each Helm chart, from its Chart.yaml and the comments in its values.yaml.

A comment that begins with ``# --`` describes the key below it, over as many lines as it has.

    python -m tools.chart_docs            write them
    python -m tools.chart_docs --check    only look; ends with 1 if one is not as it would be written
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.generated import ROOT, write_or_check

CHARTS = sorted(path.parent for path in (ROOT / "deploy" / "helm").glob("*/Chart.yaml"))


@dataclass(frozen=True)
class Value:
    """One key of a values file: its path, default and description."""

    path: str
    default: Any
    text: str


def described(text: str) -> Iterator[Value]:
    """The keys of a values file that are described or hold no others, in their order."""
    values = yaml.safe_load(text)
    above: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        words = line.strip()
        if words.startswith("# -- "):
            comment = [words.removeprefix("# -- ")]
        elif words.startswith("# ") and comment:
            comment.append(words.removeprefix("# "))
        elif words and not words.startswith(("#", "-")):
            indent = len(line) - len(line.lstrip())
            key = words.partition(":")[0]
            above = [each for each in above if each[0] < indent] + [(indent, key)]
            found = _found(values, [name for _, name in above])
            path = ".".join(name for _, name in above)
            if (
                found is not None
                and (comment or not isinstance(found[0], dict))
                and not _is_inside(above, values)
            ):
                yield Value(path, found[0], " ".join(comment))
            comment = []
        else:
            comment = []


def _found(values: Any, path: list[str]) -> tuple[Any] | None:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return None
        values = values[key]
    return (values,)


def _is_inside(above: list[tuple[int, str]], values: Any) -> bool:
    """Whether the key is part of a default that a key above it stands for: a selector, resources."""
    for key in [name for _, name in above][:-1]:
        if key in ("resources", "podSelector", "labels", "issuerRef"):
            return True
        values = values[key]
    return False


def values_of(chart: Path) -> Iterator[Value]:
    """Its values; where one stands for those of a chart that it depends on, these after it."""
    facts = yaml.safe_load((chart / "Chart.yaml").read_text())
    parts = {each.get("alias", each["name"]): each["name"] for each in facts.get("dependencies", ())}
    for value in described((chart / "values.yaml").read_text()):
        yield value
        if value.path in parts:
            for each in values_of(chart.parent / parts[value.path]):
                yield Value(f"{value.path}.{each.path}", each.default, each.text)


def page(chart: Path) -> str:
    """The README of one chart."""
    facts = yaml.safe_load((chart / "Chart.yaml").read_text())
    intro = (chart / "README.in.md").read_text().rstrip()
    rows = [
        f"| `{value.path}` | {value.text or '–'} | `{json.dumps(value.default)}` |".replace("||", "\\|\\|")
        for value in values_of(chart)
    ]
    sets = [
        f"- [{path.name}](ci/{path.name}): {_first_comment(path)}"
        for path in sorted(chart.glob("ci/*-values.yaml"))
    ]
    return "\n".join(
        [
            "<!-- Written by `make deploy` from README.in.md, Chart.yaml and values.yaml; edit those. -->",
            f"# {facts['name']}",
            "",
            intro,
            "",
            "## Values",
            "",
            "| value | what | default |",
            "|---|---|---|",
            *rows,
            *(
                ["", "## Examples", "", "Each is rendered and checked by the tests.", "", *sets]
                if sets
                else []
            ),
            "",
        ]
    )


def _first_comment(path: Path) -> str:
    lines = path.read_text().splitlines()
    comment = []
    for line in lines:
        if not line.startswith("# "):
            break
        comment.append(line.removeprefix("# "))
    return " ".join(comment)


if __name__ == "__main__":
    sys.exit(write_or_check({chart / "README.md": page(chart) for chart in CHARTS}, sys.argv[1:], "deploy"))
