"""Draws docs/pictures/top-*.svg: the real ``joulescope top`` in a terminal, beside a running demo.

    .venv/bin/python tools/top_pictures.py [--seconds 90]

Figures are those of the run, so the pictures differ from run to run; look at them before they are committed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from pyte.screens import Char
from rich.console import Console
from rich.style import Style
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.terminal.emulator import Emulator  # noqa: E402

JOULESCOPE = (sys.executable, "-m", "joulescope.cli.main")
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Fonts from elsewhere, which rich names: a page shows its own."""

_NAMES = {"brown": "yellow", "brightblack": "bright_black"}


@contextmanager
def demo() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A demo and the address of its pages."""
    command = [*JOULESCOPE, "demo", "--listen", "127.0.0.1:0", "--rate", "12"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        found = next(
            found for line in process.stdout if (found := re.search(r"http://\S+(?=/metrics)", line))
        )
        try:
            yield found.group(), process
        finally:
            process.kill()


def text_of(terminal: Emulator) -> Text:
    """What the terminal shows, with its colours."""
    text = Text()
    for row in terminal.cells():
        for style, cells in groupby(row, key=style_of):
            text.append("".join(cell.data for cell in cells), style)
        text.append("\n")
    return text


def style_of(cell: Char) -> Style:
    return Style(
        color=None if cell.fg == "default" else _NAMES.get(cell.fg, cell.fg),
        bold=cell.bold,
        reverse=cell.reverse,
        dim=cell.italics,  # see tests.terminal.emulator
    )


def save(terminal: Emulator, path: Path, title: str) -> None:
    while terminal.settle(0.3):
        pass  # between two frames, not within one
    columns = len(terminal.cells()[0])
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=columns, file=nowhere, force_terminal=True)
        console.print(text_of(terminal), end="", no_wrap=True)
        svg = FONTS.sub("", console.export_svg(title=title, unique_id=path.stem))
    path.write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90.0, help="how much past the sparklines show")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "pictures")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    environ = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "HOME": tempfile.gettempdir()}
    with demo() as (url, process):
        command = [*JOULESCOPE, "top", "--url", url]
        with (
            Emulator(command, environ, columns=80, lines=24) as small,
            Emulator(command, environ, columns=140, lines=40) as large,
        ):
            for _ in range(round(arguments.seconds)):
                small.settle(0.5)
                large.settle(0.5)
            save(small, arguments.folder / "top-80x24.svg", "joulescope top, 80×24")
            save(large, arguments.folder / "top-140x40.svg", "joulescope top, 140×40")
            process.kill()
            small.wait_for("DATA IS")
            small.settle(5.0)
            save(small, arguments.folder / "top-lost.svg", "joulescope top, the sidecar is gone")


if __name__ == "__main__":
    main()
