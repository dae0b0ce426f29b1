"""``make pictures``: records a simulated hour, asks each dashboard's questions, and draws the answers.

Needs ``prometheus``, ``promtool`` and ``chromium``, and what ``npm run build`` made of ``grafana/draw``.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import io
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from grafana.boards import BOARDS
from grafana.draw.prometheus import answers, serving
from grafana.draw.recording import SECONDS, record
from grafana.frame import written
from grafana.variables import Shown, chosen

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "build" / "dashboards"
PICTURES = ROOT / "docs" / "pictures"
END_SECONDS = 1793631600.0
"""Where the recorded hour ends: a Monday in November 2026, 13:00 UTC."""

WIDTH = 1560
COLOURS = 224
MODES = {"fleet": ("dark", "light"), "engine": ("dark", "light")}
"""Themes in which a dashboard is drawn; dark alone unless it says more."""

CHOICES = {"engine": {"engine": "Llama-3\\\\.1-8B-Instruct-0", "instance": "node-a:5685"}}
"""Variables that are not left at All in a picture."""


def drawing(url: str, name: str) -> dict[str, Any]:
    """All that the page needs to draw one dashboard."""
    board = json.loads(written(next(each for each in BOARDS if each.name == name)))
    shown = Shown(END_SECONDS, round(SECONDS), 15)
    values = {**chosen(board), **CHOICES.get(name, {})}
    times = {"from": END_SECONDS - SECONDS, "to": END_SECONDS, "step": shown.step_seconds}
    return {"board": board, "answers": answers(url, board, values, shown), "range": times}


def draw(browser: Browser, base: str, name: str, mode: str, path: Path) -> None:
    """One dashboard as a picture.

    Raises:
        SystemExit: a panel could not be drawn.
    """
    page = browser.new_page(viewport={"width": WIDTH, "height": 2600})
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{base}/index.html?board={name}&mode={mode}&width={WIDTH}")
    page.wait_for_function("window.done === true", timeout=60_000)
    found = Image.open(io.BytesIO(page.locator("#board").screenshot()))
    found.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    problems = said + page.evaluate("window.problems")
    page.close()
    if problems:
        raise SystemExit(f"{name}: " + "\n".join(problems))
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def main() -> None:
    """Draws the dashboards that are asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m grafana.draw", description=__doc__.splitlines()[0])
    parser.add_argument("boards", nargs="*", help="names of dashboards; default: all")
    parser.add_argument("--recording", type=Path, default=ROOT / "build" / "recording")
    parser.add_argument("--again", action="store_true", help="record anew though there is a recording")
    given = parser.parse_args()
    if not (PAGE / "index.html").exists():
        raise SystemExit("first run: npm --prefix grafana/draw ci && npm --prefix grafana/draw run build")
    if given.again or not (given.recording / "data").exists():
        shutil.rmtree(given.recording, ignore_errors=True)
        print("recording a simulated hour of four sidecars: about ten minutes")
        record(given.recording, END_SECONDS)
    names = given.boards or [board.name for board in BOARDS]
    (PAGE / "drawing").mkdir(exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    with serving(given.recording / "data") as url:
        for name in names:
            (PAGE / "drawing" / f"{name}.json").write_text(json.dumps(drawing(url, name)))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with _served(PAGE) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for name in names:
            for mode in MODES.get(name, ("dark",)):
                suffix = "" if mode == "dark" else f"-{mode}"
                draw(browser, base, name, mode, PICTURES / f"dashboard-{name}{suffix}.png")
        browser.close()


if __name__ == "__main__":
    main()
