"""Files that are made from others: written, or with ``--check`` only looked at."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def stale(wanted: Mapping[Path, str]) -> list[Path]:
    """Files that are missing or have another text than they should."""
    return [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]


def write_or_check(wanted: Mapping[Path, str], arguments: list[str], target: str) -> int:
    """Writes what is stale, and says so; with ``--check`` in the arguments returns 1 if something is.

    ``target`` of make is what a reader has to run; 2 is returned for arguments that make no sense.
    """
    if arguments not in ([], ["--check"]):
        print(f"usage: {Path(sys.argv[0]).name} [--check]", file=sys.stderr)
        return 2
    old = stale(wanted)
    for path in old:
        if arguments:
            print(f"{path.relative_to(ROOT)} is out of date: run make {target}", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if arguments and old else 0
