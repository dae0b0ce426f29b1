"""Pictures of the live page for the documentation, light and dark, wide and on a phone.

Runs the demo for a while, opens the page in Chromium, and writes ``docs/pictures/live-page-*.png``.

    python tools/page_pictures.py [--seconds 120]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.real.browser import browser, tab  # noqa: E402
from tests.real.vllm_env import free_port  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
MAX_BYTES = 300_000
SIZES = {"wide": (1360, 1120, 1.0), "phone": (390, 1240, 1.0)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the demo runs before")
    parser.add_argument("--demo", nargs=argparse.REMAINDER, default=[], help="further arguments of the demo")
    options = parser.parse_args()
    port = free_port()
    command = [sys.executable, "-m", "joulescope.cli.main", "demo", "--no-table"]
    command += ["--listen", f"127.0.0.1:{port}", *options.demo]
    demo = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(options.seconds)
        pictures = take(f"http://127.0.0.1:{port}/")
    finally:
        demo.terminate()
        demo.wait()
    large = [path for path in pictures if path.stat().st_size > MAX_BYTES]
    for path in large:
        print(f"{path}: {path.stat().st_size} bytes, {MAX_BYTES} are the most", file=sys.stderr)
    return 1 if large else 0


def take(url: str) -> list[Path]:
    """One picture of each size and scheme; a page that complains is an error."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    taken = []
    with browser() as chromium:
        for name, (width, height, scale) in SIZES.items():
            for scheme in ("light", "dark"):
                view = {"width": width, "height": height}
                with tab(chromium, viewport=view, device_scale_factor=scale, color_scheme=scheme) as page:
                    page.page.goto(url)
                    page.wait("document.querySelectorAll('#finished tbody tr').length > 0")
                    page.page.wait_for_timeout(1500)
                    assert page.complaints == [], page.complaints
                    path = PICTURES / f"live-page-{name}-{scheme}.png"
                    page.page.screenshot(path=path)
                    taken.append(path)
    return taken


if __name__ == "__main__":
    sys.exit(main())
