"""What the hook costs vLLM: on the critical path of a step, and in throughput of a real server.

    python benchmarks/hook_overhead.py                      # both parts
    python benchmarks/hook_overhead.py --part inprocess     # microseconds a step, about 3 minutes
    python benchmarks/hook_overhead.py --part server        # tokens a second, on and off, about 10 minutes

Needs an environment with vLLM (see ``tests/real/vllm_env.py``). Results go to ``benchmarks/results``: a JSON
file and a small Markdown table for each part. The figures of one machine mean little for another.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.report import machine, save  # noqa: E402
from tests.real.api import Client  # noqa: E402
from tests.real.vllm_env import VllmServer, install_hook, make_model, vllm_python  # noqa: E402

SIZES = (32, 256, 1024)
GOAL_US = {256: 5.0, 1024: 10.0}
CALM_SECONDS = 2.0
TOKENS_PER_ROUND = 48_000
SERVERS = ("off", "off again", "on")
"""Two servers without the hook: their difference is the noise that the third has to be seen against."""


@contextmanager
def sink(path: Path) -> Iterator[None]:
    """A process that accepts every connection and throws away what comes."""
    program = (
        "import socket, sys, threading\n"
        "server = socket.socket(socket.AF_UNIX)\n"
        "server.bind(sys.argv[1]); server.listen(64); print(flush=True)\n"
        "def drain(peer):\n"
        "    while peer.recv(1 << 20): pass\n"
        "while True: threading.Thread(target=drain, args=(server.accept()[0],), daemon=True).start()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.wait()


# ------------------------------------------------------------------------------- critical path


def run_inprocess(directory: Path, model: Path, hook: Path, sizes: list[int], blocks: int) -> dict[str, Any]:
    """One process for each number of streams."""
    results = []
    for streams in sizes:
        path = directory / f"s{streams}"
        environment = {
            **os.environ,
            "PYTHONPATH": str(hook),
            "JOULESCOPE_SOCKET": str(path),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        command = [str(vllm_python()), str(Path(__file__).with_name("hook_inprocess.py"))]
        command += ["--model", str(model), "--streams", str(streams), "--blocks", str(blocks)]
        log = directory / f"inprocess-{streams}.log"
        with sink(path), log.open("w") as errors:
            done = subprocess.run(
                command, check=False, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        if done.returncode != 0:
            raise RuntimeError(f"the engine failed:\n{log.read_text()[-3000:]}")
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(results[-1]), flush=True)
    return {"part": "inprocess", "machine": machine(), "results": results}


def inprocess_line(report: dict[str, Any]) -> str:
    """The result in one table."""
    lines = [
        "| streams | hook p50 (p99) µs | empty | probes | net | goal | thread µs | step ms | change |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in report["results"]:
        arms = each["arms"]
        cells = [f"{arms[arm]['p50_us']} ({arms[arm]['p99_us']})" for arm in ("hook", "empty", "bare")]
        goal = GOAL_US.get(each["streams"])
        cells += [str(each["hook_net_p50_us"]), "–" if goal is None else f"≤ {goal:g}"]
        low, middle, high = each["step_change_percent"]["hook"]
        cells += [str(each["thread_us_per_step"]), str(each["step_ms"])]
        cells.append(f"{middle:+} % ({low:+} .. {high:+})")
        lines.append(f"| {each['streams']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


# --------------------------------------------------------------------------------- throughput


def run_server(directory: Path, model: Path, hook: Path, streams: list[int], rounds: int) -> dict[str, Any]:
    """Three servers at once, one of them at work at a time, in an order that is shuffled each round."""
    results = []
    with ExitStack() as stack:
        stack.enter_context(sink(directory / "sink"))
        clients = {}
        for name in SERVERS:
            server = VllmServer(
                model=model,
                hook_path=hook,
                socket_path=directory / "sink",
                log_path=directory / f"server-{name.replace(' ', '-')}.log",
                arguments=["--max-num-seqs", str(max(streams)), "--disable-log-stats"],
                environment={"JOULESCOPE_DISABLED": "" if name == "on" else "1"},
            )
            clients[name] = Client(stack.enter_context(server).url)
        for count in streams:
            results.append(measure_throughput(clients, count, rounds))
            print(json.dumps(results[-1]["summary"]), flush=True)
    return {"part": "server", "machine": machine(), "results": results}


def measure_throughput(clients: dict[str, Client], streams: int, rounds: int) -> dict[str, Any]:
    """Tokens a second of each server in each round, and how the others compare to ``off`` in pairs."""
    order = random.Random(streams)
    for client in clients.values():
        tokens_per_second(client, streams)  # warm
    measured: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(rounds):
        for name in order.sample(list(clients), len(clients)):
            measured[name].append(tokens_per_second(clients[name], streams))
    summary: dict[str, Any] = {"streams": streams, "rounds": rounds}
    for name, values in measured.items():
        summary[name] = {"median_tokens_per_second": round(statistics.median(values))}
        if name != "off":
            changes = [100 * (value / base - 1) for value, base in zip(values, measured["off"], strict=True)]
            low, middle, high = statistics.quantiles(changes, n=4)
            summary[name]["change_percent"] = round(middle, 2)
            summary[name]["quartiles_percent"] = [round(low, 2), round(high, 2)]
    return {"summary": summary, "tokens_per_second": measured}


def tokens_per_second(client: Client, streams: int) -> float:
    """One request with ``streams`` prompts: the client costs next to nothing while the server works.

    Before it the machine gets time to calm down: the server that had the last turn keeps a core busy for a
    second after its last step, waiting for the next.
    """
    time.sleep(CALM_SECONDS)
    max_tokens = TOKENS_PER_ROUND // streams
    prompts = [f"Stream {number} of many" for number in range(streams)]
    body = {"prompt": prompts, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0}
    start = time.perf_counter()
    answer = client.post("/v1/completions", body)
    return float(answer["usage"]["completion_tokens"] / (time.perf_counter() - start))


def server_line(report: dict[str, Any]) -> str:
    """The result in one table."""
    lines = ["| streams | rounds | off tok/s | off again (noise) | hook on |", "|---|---|---|---|---|"]
    for result in report["results"]:
        each = result["summary"]
        cells = [str(each["off"]["median_tokens_per_second"])]
        for name in SERVERS[1:]:
            low, high = each[name]["quartiles_percent"]
            cells.append(f"{each[name]['change_percent']:+} % (quartiles {low:+} .. {high:+})")
        lines.append(f"| {each['streams']} | {each['rounds']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", choices=("inprocess", "server"), help="only one of the two")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="streams in the engine")
    parser.add_argument("--blocks", type=int, default=12, help="blocks of 16 steps for each arm")
    parser.add_argument("--streams", type=int, nargs="+", default=[32, 256], help="streams of the server")
    parser.add_argument("--rounds", type=int, default=12, help="rounds of the server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        model, hook = make_model(directory / "model"), install_hook(directory / "hook")
        if options.part != "server":
            report = run_inprocess(directory, model, hook, options.sizes, options.blocks)
            save("hook_inprocess", report, inprocess_line(report))
        if options.part != "inprocess":
            report = run_server(directory, model, hook, options.streams, options.rounds)
            save("hook_server", report, server_line(report))


if __name__ == "__main__":
    main()
