"""What OTLP costs the sidecar, and that a collector which hangs holds nothing up.

``spans``:   requests a second that one thread can send to a collector on the same machine, processor time and
             bytes for each, with phases as spans, as events and not at all.
``metrics``: processor time and bytes of one export of the table, at 16 GPUs and 8 engines.
``away``:    the accounting loop at a steady 400 requests a second, while the collector answers, hangs,
             refuses connections or asks for patience: how long the loop stands in the exporter, how late it
             wakes, how much memory the process takes, and what became of the requests.

    python benchmarks/otlp.py [--part spans|metrics|away] [--seconds 20]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from benchmarks.report import machine, save
from joulescope.clock import WallAnchor
from joulescope.export.otlp_points import metrics_data
from joulescope.export.otlp_post import SpanPost
from joulescope.export.otlp_resource import create_resource
from joulescope.export.otlp_spans import OtlpSpans
from joulescope.export.span_maker import EVENTS, NONE, SPANS, SpanMaker
from joulescope.model import FinishedRequest, Snapshot
from tests.export.samples import SECOND, engine_a, finished, gpu_a, rich_snapshot

ANCHOR = WallAnchor.now()
REQUESTS = 20_000
BATCH = 512
GPUS, ENGINES = 16, 8
EXPORTS = 20
TURN_SECONDS = 0.25
REQUESTS_PER_SECOND = 400
TIMEOUT = {"OTEL_EXPORTER_OTLP_TIMEOUT": "10"}
WAYS = ("off", "answers", "hangs", "patience", "refuses")


def request(number: int) -> FinishedRequest:
    """One that came with a trace, waited, and was preempted once in a while."""
    pauses = ((91 * SECOND, 91 * SECOND + SECOND // 2),) if number % 50 == 0 else ()
    return finished(
        number,
        first_step_ns=90 * SECOND + SECOND // 20,
        pauses_ns=pauses,
        preemptions=len(pauses),
        trace_parent=f"00-{number + 1:032x}-{number + 1:016x}-01",
    )


# ------------------------------------------------------------------------------------- the other side


def collect(way: str) -> None:
    """A collector that decodes nothing: prints its port, and answers in its way until it is killed."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if way == "hangs":
                time.sleep(3600)
            self.send_response(503 if way == "patience" else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


@contextmanager
def collector(way: str) -> Iterator[str]:
    """Its endpoint; a port that nobody listens on where it refuses."""
    if way == "refuses":
        yield "http://127.0.0.1:9/v1/traces"
        return
    command = [sys.executable, __file__, "--collect", way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1/traces"
        finally:
            process.kill()


# -------------------------------------------------------------------------------------------- spans


def spans_part() -> list[dict[str, Any]]:
    """Each way to show phases: made and sent batch by batch, as the exporter's thread does it."""
    requests = [request(number) for number in range(REQUESTS)]
    with collector("answers") as endpoint:
        return [_sent(phases, requests, endpoint) for phases in (SPANS, EVENTS, NONE)]


def _sent(phases: str, requests: list[FinishedRequest], endpoint: str) -> dict[str, Any]:
    maker, post = SpanMaker(ANCHOR, create_resource({}), phases), SpanPost(TIMEOUT, endpoint)
    post(maker.make(requests[:BATCH]).spans)
    spans = size = 0
    begin, cpu_begin = time.perf_counter(), time.thread_time()
    for first in range(0, len(requests), BATCH):
        made = maker.make(requests[first : first + BATCH]).spans
        assert post(made).verdict.value == "delivered"
        spans += len(made)
    seconds, cpu_seconds = time.perf_counter() - begin, time.thread_time() - cpu_begin
    made = maker.make(requests[:BATCH]).spans
    size = encode_spans(made).ByteSize()
    return {
        "phases": phases,
        "requests_per_second": round(len(requests) / seconds),
        "spans_per_second": round(spans / seconds),
        "cpu_microseconds_per_request": round(cpu_seconds / len(requests) * 1e6, 1),
        "cpu_microseconds_per_span": round(cpu_seconds / spans * 1e6, 1),
        "spans_per_request": round(spans / len(requests), 2),
        "bytes_per_request": round(size / BATCH),
    }


# ------------------------------------------------------------------------------------------ metrics


def fleet() -> Snapshot:
    """The stated size: 16 GPUs, 8 engines, each engine on all GPUs."""
    names = [f"GPU-{number:08x}-0000-4000-8000-000000000000" for number in range(GPUS)]
    gpus = tuple(replace(gpu_a(), info=replace(gpu_a().info, gpu=name)) for name in names)
    joules = {(gpu, phase): 1.5 for gpu in names for phase in ("prefill", "decode")}
    engines = tuple(
        replace(
            engine_a(),
            info=replace(engine_a().info, engine=f"llama-{number}", gpus=tuple(names)),
            attributed_joules=joules,
        )
        for number in range(ENGINES)
    )
    return replace(rich_snapshot(), gpus=gpus, engines=engines)


def metrics_part() -> dict[str, Any]:
    """One export, made and encoded; sending it is one POST more."""
    snapshot, resource = fleet(), create_resource({})
    times = []
    for _ in range(EXPORTS):
        begin = time.thread_time()
        body = encode_metrics(metrics_data(snapshot, resource)).SerializeToString()
        times.append(time.thread_time() - begin)
    (metrics,) = metrics_data(snapshot, resource).resource_metrics[0].scope_metrics
    return {
        "points": sum(len(metric.data.data_points) for metric in metrics.metrics),
        "bytes": len(body),
        "cpu_milliseconds": round(statistics.median(times) * 1e3, 1),
    }


# --------------------------------------------------------------------------------------------- away


def away_part(seconds: float) -> list[dict[str, Any]]:
    """The loop of the daemon with each way of a collector, each in a process of its own."""
    rows = []
    for way in WAYS:
        command = [sys.executable, __file__, "--loop", way, "--seconds", str(seconds)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(out.splitlines()[-1]))
    return rows


def loop(way: str, seconds: float) -> dict[str, Any]:
    """Hands over what has finished, turn by turn, and notes how long that took and how late it woke."""
    with collector("answers" if way == "off" else way) as endpoint:
        environ = {**TIMEOUT, "OTEL_BSP_SCHEDULE_DELAY": "1000"}
        sink = None
        if way != "off":
            sink = OtlpSpans(ANCHOR, create_resource({}), post=SpanPost(TIMEOUT, endpoint), environ=environ)
        process = psutil.Process()
        per_turn = round(REQUESTS_PER_SECOND * TURN_SECONDS)
        turns = round(seconds / TURN_SECONDS)
        held, late = [], []
        cpu_begin, due = time.process_time(), time.perf_counter()
        for turn in range(turns):
            due += TURN_SECONDS
            time.sleep(max(due - time.perf_counter(), 0.0))
            late.append(time.perf_counter() - due)
            batch = [request(turn * per_turn + number) for number in range(per_turn)]
            begin = time.perf_counter()
            if sink is not None:
                sink.export(batch)
            held.append(time.perf_counter() - begin)
        cpu_seconds = time.process_time() - cpu_begin
        begin = time.perf_counter()
        if sink is not None:
            sink.close(0.5)
        return {
            "collector": way,
            "held_milliseconds_median": round(statistics.median(held) * 1e3, 3),
            "held_milliseconds_most": round(max(held) * 1e3, 3),
            "late_milliseconds_median": round(statistics.median(late) * 1e3, 2),
            "late_milliseconds_p95": round(sorted(late)[round(0.95 * (len(late) - 1))] * 1e3, 2),
            "cpu_share": round(cpu_seconds / seconds, 4),
            "close_seconds": round(time.perf_counter() - begin, 2),
            "resident_mib": round(process.memory_info().rss / 2**20, 1),
            "handed": turns * per_turn,
            "counts": {} if sink is None else dict(sink.counts()),
        }


# ------------------------------------------------------------------------------------------- report


def page(report: dict[str, Any]) -> str:
    where = report["machine"]
    lines = [
        "# OTLP",
        "",
        f"{where['cpu']}, {where['cores']} cores, load {where['load_average'][0]} at the end, "
        f"Python {where['python']}, {where['date']}; "
        + ", ".join(f"{name} {version}" for name, version in where["versions"].items())
        + ". By `benchmarks/otlp.py`.",
        "",
    ]
    if "spans" in report:
        lines += [
            "## Spans",
            "",
            f"{REQUESTS} requests with a trace, in batches of {BATCH}, sent by one thread to a process "
            "on the same machine that reads and answers. Processor time is that thread's.",
            "",
            "| phases | requests/s | spans/s | CPU for a request | CPU for a span | spans for a request "
            "| bytes for a request, uncompressed |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {row['phases']} | {row['requests_per_second']} | {row['spans_per_second']} "
                f"| {row['cpu_microseconds_per_request']} µs | {row['cpu_microseconds_per_span']} µs "
                f"| {row['spans_per_request']} | {row['bytes_per_request']} |"
                for row in report["spans"]
            ),
            "",
        ]
    if "metrics" in report:
        row = report["metrics"]
        lines += [
            "## Metrics",
            "",
            f"{GPUS} GPUs, {ENGINES} engines on all of them: {row['points']} points, {row['bytes']} bytes, "
            f"{row['cpu_milliseconds']} ms of processor time for an export (once a minute by default).",
            "",
        ]
    if "away" in report:
        lines += [
            "## A collector that is away",
            "",
            f"{REQUESTS_PER_SECOND} requests a second handed over in turns of {TURN_SECONDS} s for "
            f"{report['seconds']:g} s. *Held*: how long the accounting loop stood in the exporter, a turn. "
            "*Late*: how late the loop woke. *Close*: given half a second. The share of a processor includes "
            "making the requests themselves, which is what `off` shows.",
            "",
            "| collector | held, median | held, most | late, median | late, 95 % | CPU | close | resident "
            "| of requests |",
            "|---|---|---|---|---|---|---|---|---|",
            *(_away_row(row) for row in report["away"]),
            "",
        ]
    return "\n".join(lines)


def _away_row(row: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in row["counts"].items() if count) or "–"
    return (
        f"| {row['collector']} | {row['held_milliseconds_median']} ms | {row['held_milliseconds_most']} ms "
        f"| {row['late_milliseconds_median']} ms | {row['late_milliseconds_p95']} ms "
        f"| {row['cpu_share']:.1%} | {row['close_seconds']} s | {row['resident_mib']} MiB "
        f"| {row['handed']} handed over: {counts} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("spans", "metrics", "away"))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--collect", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--loop", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.collect:
        collect(options.collect)
        return
    if options.loop:
        print(json.dumps(loop(options.loop, options.seconds)))
        return
    report: dict[str, Any] = {"seconds": options.seconds}
    if options.part in (None, "spans"):
        report["spans"] = spans_part()
    if options.part in (None, "metrics"):
        report["metrics"] = metrics_part()
    if options.part in (None, "away"):
        report["away"] = away_part(options.seconds)
    packages = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "requests", "protobuf")
    report["machine"] = machine(*packages)
    save("otlp" if options.part is None else f"otlp_{options.part}", report, page(report))


if __name__ == "__main__":
    main()
