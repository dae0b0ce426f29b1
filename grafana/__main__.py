"""Writes ``grafana/dashboards/*.json``; with ``--check`` only says which are out of date."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana.boards import BOARDS
from grafana.frame import written

DASHBOARDS = Path(__file__).parent / "dashboards"


def stale(folder: Path) -> list[str]:
    """Files that are not what the sources say: missing, changed, or of a dashboard that is gone."""
    wanted = {f"{board.uid}.json": written(board) for board in BOARDS}
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))


def write(folder: Path) -> None:
    """Makes the folder hold the dashboards and no other JSON."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for board in BOARDS:
        (folder / f"{board.uid}.json").write_text(written(board), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Writes the files; with ``--check`` returns 1 if one would change."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m grafana [--check]", file=sys.stderr)
        return 2
    old = stale(DASHBOARDS)
    for name in old:
        if arguments:
            print(f"grafana/dashboards/{name} is out of date: run make dashboards", file=sys.stderr)
        else:
            print(f"wrote grafana/dashboards/{name}")
    if not arguments:
        write(DASHBOARDS)
    return 1 if arguments and old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
