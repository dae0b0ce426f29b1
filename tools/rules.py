"""Copies of the rules for special needs: with other windows, or with runbooks kept elsewhere.

``python -m tools.rules FOLDER --runbooks https://wiki.example.com/runbooks/`` writes both files with that
base in place of the repository's. ``--divide 60`` makes every window and pause so many times shorter, for a
test of the whole path that need not wait for hours.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "prometheus"

RUNBOOKS = "https://joulescope.invalid/docs/runbooks/"
"""Base of every ``runbook_url``; the name of the alert and ``.md`` follow."""

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_RANGE = re.compile(r"\[(\w+)\]")


def load(folder: Path = FOLDER) -> dict[str, Any]:
    """The groups of all files of a folder together, as one file of rules would have them."""
    paths = sorted(folder.glob("*.yaml"), reverse=True)  # the rules before the alerts that need them
    return {"groups": [group for path in paths for group in yaml.safe_load(path.read_text())["groups"]]}


def scaled(rules: dict[str, Any], factor: float) -> dict[str, Any]:
    """The rules with every window, pause and interval ``factor`` times shorter; names stay.

    Raises:
        ValueError: a duration becomes shorter than a millisecond.
    """

    def shorter(text: str) -> str:
        milliseconds = round(1000 * seconds_of(text) / factor)
        if milliseconds < 1:
            raise ValueError(
                f"{text} cannot be made {factor:g} times shorter: Prometheus counts milliseconds"
            )
        return f"{milliseconds}ms"

    def of_rule(rule: dict[str, Any]) -> dict[str, Any]:
        changed = {**rule, "expr": _RANGE.sub(lambda found: f"[{shorter(found[1])}]", rule["expr"])}
        return {**changed, "for": shorter(rule["for"])} if "for" in rule else changed

    return {
        "groups": [
            {
                **group,
                "interval": shorter(group["interval"]),
                "rules": [of_rule(each) for each in group["rules"]],
            }
            for group in rules["groups"]
        ]
    }


def seconds_of(duration: str) -> float:
    """Seconds of a duration as Prometheus writes it: ``90s``, ``1h30m``.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"(\d+(ms|[smhd]))+", duration):
        raise ValueError(f"{duration!r} is no duration of Prometheus; write 30s, 5m or 1h30m")
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhd])", duration))


def with_runbooks(text: str, base: str) -> str:
    """A file of alerts whose runbooks are below another base, which ends with ``/``."""
    return text.replace(RUNBOOKS, base if base.endswith("/") else f"{base}/")


def main(arguments: list[str]) -> int:
    """Writes the copies; 2 where the folder is that of the originals."""
    parser = argparse.ArgumentParser(prog="python -m tools.rules", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the copies go")
    parser.add_argument("--runbooks", default=RUNBOOKS, help="base of the runbooks' addresses")
    parser.add_argument("--divide", type=float, default=1.0, help="make windows so many times shorter")
    options = parser.parse_args(arguments)
    if options.folder.resolve() == FOLDER:
        print(f"{options.folder} holds the originals: name another folder", file=sys.stderr)
        return 2
    options.folder.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.glob("*.yaml"):
        text = with_runbooks(path.read_text(encoding="utf-8"), options.runbooks)
        if options.divide != 1:
            text = yaml.safe_dump(scaled(yaml.safe_load(text), options.divide), sort_keys=False, width=110)
        (options.folder / path.name).write_text(text, encoding="utf-8")
        print(f"wrote {options.folder / path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
