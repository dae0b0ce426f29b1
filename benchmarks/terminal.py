"""What the terminal view costs: itself, the sidecar that it asks, and the link that carries it.

One engine with a batch of 256 at 50 steps a second on eight GPUs, as in ``sidecar.py``. Beside it a Textual
application with the same figures (``textual_probe.py``), in an environment that is made for it.

    python benchmarks/terminal.py [--seconds 30] [--without-textual]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import machine, save
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.sidecar import Sidecar
from tests.terminal.emulator import Emulator

GPUS = 8
STARTS = 5
SETTLE_SECONDS = 8.0
SIZES = ((80, 24), (140, 40))
SIDECAR = Path(__file__).with_name("sidecar.py")
PROBE = Path(__file__).with_name("textual_probe.py")
TOP = (sys.executable, "-m", "joulescope.cli.main", "top")


@contextmanager
def busy_sidecar(folder: Path) -> Iterator[Sidecar]:
    """A sidecar process with the engine of ``sidecar.py``."""
    uuids = [f"GPU-{number}" for number in range(GPUS)]
    driver = FakeDriver(folder / "nvml", [FakeGpu(uuid=uuid, live=True, power_watts=500.0) for uuid in uuids])
    sidecar = Sidecar(folder / "js.sock", folder, environment(build(folder), driver), own_files=False)
    sidecar.start()
    engine = subprocess.Popen(
        [sys.executable, str(SIDECAR), "--part", "engine", "--socket", str(sidecar.socket)]
    )
    try:
        time.sleep(SETTLE_SECONDS)
        yield sidecar
    finally:
        engine.terminate()
        engine.wait()
        sidecar.kill()


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def environ() -> dict[str, str]:
    return {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}


def start_of(command: Sequence[str], sign: str) -> tuple[float, float]:
    """Until the first request stands on the screen: seconds, and of CPU, whatever else the machine does."""
    begun = time.monotonic()
    with Emulator(command, environ()) as terminal:
        terminal.wait_for(sign)
        return time.monotonic() - begun, cpu_seconds(terminal.pid)


def watched(
    command: Sequence[str], sign: str, size: tuple[int, int], sidecar: int, seconds: float
) -> dict[str, Any]:
    """CPU of the view and of the sidecar, memory, and bytes, while nobody touches a key."""
    with Emulator(command, environ(), columns=size[0], lines=size[1]) as terminal:
        terminal.wait_for(sign)
        first_bytes = len(terminal.received)
        terminal.settle(3.0)
        before, before_sidecar, begun = cpu_seconds(terminal.pid), cpu_seconds(sidecar), time.monotonic()
        sent = terminal.settle(seconds)
        wall = time.monotonic() - begun
        return {
            "size": list(size),
            "cpu_cores": (cpu_seconds(terminal.pid) - before) / wall,
            "sidecar_cpu_cores": (cpu_seconds(sidecar) - before_sidecar) / wall,
            "rss_mib": psutil.Process(terminal.pid).memory_info().rss / 2**20,
            "first_frame_bytes": first_bytes,
            "bytes_per_second": sent / wall,
        }


def unwatched(sidecar: int, seconds: float) -> float:
    """CPU of the sidecar while nobody looks."""
    before, begun = cpu_seconds(sidecar), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(sidecar) - before) / (time.monotonic() - begun)


def measured(command: Sequence[str], sign: str, sidecar: int, seconds: float) -> dict[str, Any]:
    starts = [start_of(command, sign) for _ in range(STARTS)]
    return {
        "start_seconds": statistics.median(seconds for seconds, _ in starts),
        "start_cpu_seconds": statistics.median(cpu for _, cpu in starts),
        "starts": starts,
        "sizes": [watched(command, sign, size, sidecar, seconds) for size in SIZES],
    }


def textual_environment(folder: Path) -> tuple[Path, str]:
    """Python of an environment with Textual, and its version."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "textual"], check=True, capture_output=True)
    say = "import importlib.metadata as m; print(m.version('textual'))"
    shown = subprocess.run([python, "-c", say], check=True, capture_output=True, text=True)
    return python, shown.stdout.strip()


def size_mib(folder: Path, *names: str) -> float:
    """What packages take on the disk, without their compiled copies."""
    files = (path for name in names for path in folder.glob(f"lib/python*/site-packages/{name}/**/*"))
    return sum(path.stat().st_size for path in files if path.is_file() and path.suffix != ".pyc") / 2**20


def text_of(report: dict[str, Any]) -> str:
    lines = [
        f"# The cost of the terminal view\n\n`python benchmarks/terminal.py`, {report['machine']}\n",
        "One engine, batch 256, 50 steps/s, 8 GPUs; read once a second, all figures moving.",
        f"While nobody looks the sidecar takes {report['unwatched_cpu_cores'] * 100:.2f} % of a core.\n",
        "| view | size | start, s | of it CPU, s | then CPU, % of a core | sidecar's CPU, % | RSS, MiB "
        "| first bytes | bytes/s |\n|---|---|---|---|---|---|---|---|---|",
    ]
    shown = (name for name in ("joulescope top", "Textual") if name in report)
    lines += [row_of(name, report[name], row) for name in shown for row in report[name]["sizes"]]
    if "Textual" in report:
        textual = report["Textual"]
        lines.append(
            f"\nTextual {textual['version']} with the packages that it needs and that rich does not: "
            f"{textual['mib']:.1f} MiB on the disk."
        )
    return "\n".join(lines) + "\n"


def row_of(name: str, figures: dict[str, Any], row: dict[str, Any]) -> str:
    cells = (
        name,
        f"{row['size'][0]}×{row['size'][1]}",
        f"{figures['start_seconds']:.2f}",
        f"{figures['start_cpu_seconds']:.2f}",
        f"{row['cpu_cores'] * 100:.1f}",
        f"{row['sidecar_cpu_cores'] * 100:.2f}",
        f"{row['rss_mib']:.0f}",
        str(row["first_frame_bytes"]),
        f"{row['bytes_per_second']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--without-textual", action="store_true")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": machine("joulescope-inference", "rich", "msgspec")}
    with tempfile.TemporaryDirectory(prefix="joulescope-") as name:
        folder = Path(name)
        with busy_sidecar(folder) as sidecar:
            assert sidecar.process is not None
            pid, url = sidecar.process.pid, f"http://127.0.0.1:{sidecar.port}"
            report["unwatched_cpu_cores"] = unwatched(pid, arguments.seconds)
            report["joulescope top"] = measured([*TOP, "--url", url], "decode ", pid, arguments.seconds)
            if not arguments.without_textual:
                python, version = textual_environment(folder / "textual")
                command = [str(python), str(PROBE), url]
                packages = ("textual", "platformdirs", "mdit_py_plugins", "linkify_it", "uc_micro")
                report["Textual"] = {
                    **measured(command, "decode ", pid, arguments.seconds),
                    "version": version,
                    "mib": size_mib(folder / "textual", *packages),
                }
    save("terminal", report, text_of(report))


if __name__ == "__main__":
    main()
