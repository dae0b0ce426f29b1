"""Spans read back from a real OTLP backend, and held against the request log, line by line.

First the demo, which sends hundreds of requests, a quarter of them with a caller's trace. Then real vLLM with
its own tracing on: a caller's span, vLLM's and ours have to meet in one trace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.api import Client
from tests.real.phoenix import Phoenix, StoredSpan, running_phoenix
from tests.real.sidecar import Sidecar, wait_until
from tests.real.vllm_env import EAGER, VllmServer, install_hook, make_model

pytestmark = pytest.mark.real

GPU = "GPU-5b1d3c5e-0000-4000-8000-000000000001"
REQUEST = "joulescope.request"
PROJECT = "openinference.project.name"
"""The resource attribute by which Phoenix files traces; it comes by ``OTEL_RESOURCE_ATTRIBUTES``."""
SERVED = "served"
"""One project for all who send to one trace: Phoenix moves a trace to where its last span belongs."""
MICROSECOND = 1000
"""What the backend rounds instants to; floats on its way add half a microsecond."""


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    with running_phoenix(tmp_path_factory.mktemp("phoenix")) as running:
        yield running


@dataclass
class Run:
    """A request log, and what the backend has of the same run."""

    lines: list[dict[str, Any]]
    spans: list[StoredSpan]

    @property
    def requests(self) -> dict[str, StoredSpan]:
        """Our spans of requests, by the engine's own id."""
        found = [span for span in self.spans if span.name == REQUEST]
        by_id = {span.attributes["joulescope.request.id"]: span for span in found}
        assert len(by_id) == len(found)
        return by_id

    def children(self) -> dict[str, dict[str, list[StoredSpan]]]:
        """Spans of phases, by the id of their parent and the name of the phase."""
        found: dict[str, dict[str, list[StoredSpan]]] = defaultdict(lambda: defaultdict(list))
        for span in self.spans:
            if span.name.startswith(REQUEST + "."):
                found[span.parent_id][span.attributes["joulescope.phase"]].append(span)
        return found


def spans_to(phoenix: Phoenix, project: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": phoenix.traces_endpoint,
        "OTEL_RESOURCE_ATTRIBUTES": f"{PROJECT}={project}",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }


@pytest.fixture(scope="module")
def demo(phoenix: Phoenix, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The demo as a user would run it, until nothing more arrives."""
    log = tmp_path_factory.mktemp("demo") / "requests.jsonl"
    command = [sys.executable, "-m", "joulescope.cli.main", "demo", "--seconds", "12"]
    command += ["--listen", "127.0.0.1:0", "--request-log", str(log)]
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("JOULESCOPE_")}
    subprocess.run(
        command, env={**inherited, **spans_to(phoenix, "demo")}, check=True, capture_output=True, timeout=120
    )
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    wait_until(
        lambda: sum(span.name == REQUEST for span in phoenix.spans("demo")) >= len(lines),
        "the demo's spans",
        60.0,
    )
    return Run(lines, phoenix.spans("demo"))


def attribute_of(line: dict[str, Any], span: StoredSpan) -> None:
    """Ids, parent, joules, counts and instants of one span are those of its line."""
    said = span.attributes
    _, trace_id, parent_id, _ = (line["trace_parent"] or f"-{span.trace_id}--").split("-")
    assert (span.trace_id, span.parent_id) == (trace_id, parent_id), line
    for name, key in (
        ("energy", "attributed_joules"),
        ("marginal_energy", "marginal_joules"),
        ("energy_low", "attributed_low_joules"),
        ("energy_high", "attributed_high_joules"),
        ("prefill_energy", "prefill_joules"),
        ("decode_energy", "decode_joules"),
        ("wasted_energy", "wasted_joules"),
        ("avoided_energy", "avoided_joules"),
        ("complete", "complete"),
        ("steps", "steps"),
        ("preemptions", "preemptions"),
        ("external_id", "external_id"),
    ):
        assert said.get(f"joulescope.request.{name}") == line[key], (name, line)
    assert said["gen_ai.request.id"] == line["external_id"]
    assert said["gen_ai.response.model"] == line["model"]
    assert (said["joulescope.engine"], said["joulescope.method_version"]) == (
        line["engine"],
        line["method_version"],
    )
    near(span.start_ns, line["start_unix_ns"])
    near(span.end_ns, line["end_unix_ns"])


def near(ours_ns: int, theirs_ns: int) -> None:
    assert abs(ours_ns - theirs_ns) <= 2 * MICROSECOND


def tokens_of(line: dict[str, Any], span: StoredSpan) -> None:
    """The usage that the backend itself understood: it files GenAI attributes under names of its own."""
    said = span.attributes
    counts = ("prompt", "prompt_details.cache_read", "completion")
    found = tuple(said.get(f"llm.token_count.{name}", 0) for name in counts)
    assert found == (line["prompt_tokens"], line["cached_tokens"], line["output_tokens"]), line


def phases_of(line: dict[str, Any], span: StoredSpan, phases: dict[str, list[StoredSpan]]) -> None:
    """Children of the request's span, in its trace, with the instants and joules of the line."""
    assert {child.trace_id for found in phases.values() for child in found} == {span.trace_id}
    assert len(phases["preempted"]) == min(line["preemptions"], 16)
    if line["first_step_unix_ns"] is None:
        assert list(phases) == ["queue", "preempted"]
        return
    (queue,), (prefill,) = phases["queue"], phases["prefill"]
    near(queue.start_ns, line["start_unix_ns"])
    near(queue.end_ns, line["first_step_unix_ns"])
    near(prefill.start_ns, line["first_step_unix_ns"])
    near(prefill.end_ns, line["first_token_unix_ns"] or line["end_unix_ns"])
    assert prefill.attributes.get("joulescope.phase_energy") == line["prefill_joules"]
    assert queue.attributes.get("joulescope.phase_energy") in (None, 0.0)
    if line["first_token_unix_ns"] is not None:
        (decode,) = phases["decode"]
        near(decode.end_ns, line["end_unix_ns"])
        assert decode.attributes.get("joulescope.phase_energy") == line["decode_joules"]
    paused_ns = sum(pause.end_ns - pause.start_ns for pause in phases["preempted"])
    assert paused_ns / 1e9 == pytest.approx(line["preempted_seconds"], abs=1e-4)


def test_every_line_of_the_demo_is_one_span_with_its_figures(demo: Run) -> None:
    """None is missing, none is there twice; some have a caller and some begin a trace."""
    assert len(demo.lines) > 100
    assert {line["request_id"] for line in demo.lines} == set(demo.requests)
    for line in demo.lines:
        attribute_of(line, demo.requests[line["request_id"]])
        tokens_of(line, demo.requests[line["request_id"]])
    assert {bool(span.parent_id) for span in demo.requests.values()} == {True, False}
    assert sum(line["attributed_joules"] is not None for line in demo.lines) > 50


def test_phases_of_the_demo_are_children_with_their_joules(demo: Run) -> None:
    """Each request has its phases, and the backend has no span besides."""
    children = demo.children()
    for line in demo.lines:
        span = demo.requests[line["request_id"]]
        phases_of(line, span, children[span.span_id])
    known = sum(len(found) for phases in children.values() for found in phases.values())
    assert len(demo.spans) == len(demo.requests) + known


PROMPT = "The same long beginning for all of them, so that some of it is cached. "
NAMED, ALONE = 8, 3
SMALL_KV_CACHE = ["--block-size", "32", "--num-gpu-blocks-override", "24", "--max-num-seqs", "8"]
SMALL_KV_CACHE += ["--max-model-len", "512"]
"""768 tokens for eight requests that come to 130 and more: some must be preempted."""


@dataclass
class Served:
    """A run of vLLM, traced from end to end."""

    run: Run
    callers: dict[str, tuple[str, str]]
    """Trace and span id of the caller's own spans, by the id of its request."""
    theirs: list[StoredSpan]
    """vLLM's own spans, ``llm_request``."""

    def vllm_span(self, external_id: str) -> StoredSpan:
        (found,) = [span for span in self.theirs if span.attributes["gen_ai.request.id"] == external_id]
        return found


class Caller:
    """A program with OpenTelemetry's own SDK, whose spans go to the backend too."""

    def __init__(self, phoenix: Phoenix, url: str) -> None:
        self._provider = TracerProvider(resource=Resource.create({PROJECT: SERVED}))
        exporter = OTLPSpanExporter(endpoint=phoenix.traces_endpoint)
        self._provider.add_span_processor(SimpleSpanProcessor(exporter))
        self._client = Client(url)
        self.spans: dict[str, tuple[str, str]] = {}

    def ask(self, name: str, traced: bool, **more: Any) -> None:
        """One completion inside a span of the caller's, which it tells vLLM of or not."""
        headers: dict[str, str] = {}
        body = {"model": "tiny", "prompt": f"{PROMPT}{name}", "max_tokens": 90, "ignore_eos": True, **more}
        with self._provider.get_tracer("caller").start_as_current_span(name, kind=SpanKind.CLIENT) as span:
            if traced:
                TraceContextTextMapPropagator().inject(headers, set_span_in_context(span))
            self._client.post("/v1/completions", body, name, headers)
        context = span.get_span_context()
        self.spans[name] = (f"{context.trace_id:032x}", f"{context.span_id:016x}")

    def close(self) -> None:
        self._provider.shutdown()


@pytest.fixture(scope="module")
def served(phoenix: Phoenix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """vLLM with its tracing on, the hook, a sidecar and a caller, all sending to the same backend."""
    folder = tmp_path_factory.mktemp("served")
    with ExitStack() as stack:
        driver = FakeDriver(folder / "nvml", [FakeGpu(uuid=GPU, live=True, power_watts=310.0)])
        stack.callback(driver.close)
        vllm = VllmServer(
            model=make_model(folder / "model", 4),
            hook_path=install_hook(folder / "hook"),
            socket_path=folder / "js.sock",
            log_path=folder / "vllm.log",
            arguments=[*SMALL_KV_CACHE, EAGER, "--otlp-traces-endpoint", phoenix.traces_endpoint],
            environment={
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
                "OTEL_RESOURCE_ATTRIBUTES": f"{PROJECT}={SERVED}",
                "VLLM_CPU_OMP_THREADS_BIND": "0",
            },
        )
        nvml = environment(build(folder), driver)
        sidecar = Sidecar(vllm.socket_path, folder, {**nvml, **spans_to(phoenix, SERVED)})
        stack.callback(sidecar.kill)
        sidecar.start()
        stack.enter_context(vllm)
        caller = Caller(phoenix, vllm.url)
        _ask_all(caller)
        caller.close()
        sent = NAMED + ALONE + 2
        wait_until(lambda: len(sidecar.requests()) >= sent, "the last accounts", 60.0)
        wait_until(lambda: _count(phoenix, "llm_request") >= sent, "vLLM's own spans", 60.0)
        sidecar.terminate()
        wait_until(lambda: _count(phoenix, REQUEST) >= sent, "the sidecar's spans", 60.0)
        spans = phoenix.spans(SERVED)
        theirs = [span for span in spans if span.name == "llm_request"]
        yield Served(Run(sidecar.requests(), spans), caller.spans, theirs)


def _count(phoenix: Phoenix, name: str) -> int:
    return sum(span.name == name for span in phoenix.spans(SERVED))


def _ask_all(caller: Caller) -> None:
    """Traced ones at once, so that they preempt each other; then some without a trace, and one of two."""
    with ThreadPoolExecutor(NAMED) as pool:
        list(pool.map(lambda number: caller.ask(f"named-{number}", traced=True), range(NAMED)))
    for number in range(ALONE):
        caller.ask(f"alone-{number}", traced=False)
    caller.ask("twins", traced=True, n=2)


def test_callers_vllms_and_our_spans_are_one_trace(served: Served) -> None:
    """vLLM's span and ours are children of the caller's, which sent a traceparent: brothers, for vLLM shows
    nobody the id of its own."""
    stored = {span.span_id: span for span in served.run.spans}
    lines = {line["external_id"]: line for line in served.run.lines}
    for number in range(NAMED):
        trace_id, span_id = served.callers[f"named-{number}"]
        external_id = f"cmpl-named-{number}-0"
        theirs = served.vllm_span(external_id)
        ours = served.run.requests[lines[external_id]["request_id"]]
        assert stored[span_id].trace_id == trace_id
        assert (theirs.trace_id, theirs.parent_id) == (trace_id, span_id)
        assert (ours.trace_id, ours.parent_id) == (trace_id, span_id)
        assert stored[span_id].start_ns <= ours.start_ns <= ours.end_ns <= stored[span_id].end_ns


def test_without_a_caller_the_id_of_the_request_joins_them(served: Served) -> None:
    """vLLM begins a trace that it tells nobody of; both spans say the same ``gen_ai.request.id``."""
    for number in range(ALONE):
        external_id = f"cmpl-alone-{number}-0"
        ours = [
            span
            for span in served.run.requests.values()
            if span.attributes["gen_ai.request.id"] == external_id
        ]
        assert [span.parent_id for span in ours] == [""]
        assert served.vllm_span(external_id).trace_id != ours[0].trace_id


def test_two_answers_of_one_request_are_two_spans_under_one_id(served: Served) -> None:
    """With ``n=2`` vLLM has a span for each sequence, all with the id of the request; so have we."""
    trace_id, span_id = served.callers["twins"]
    ours = [span for span in served.run.requests.values() if span.trace_id == trace_id]
    theirs = [span for span in served.theirs if span.trace_id == trace_id]
    assert len(ours) == len(theirs) == 2
    assert {span.parent_id for span in (*ours, *theirs)} == {span_id}
    ids = {span.attributes["gen_ai.request.id"] for span in (*ours, *theirs)}
    assert ids == {"cmpl-twins-0"}


def test_vllms_tokens_and_times_agree_with_ours(served: Served) -> None:
    """Two programs measured the same request: tokens are equal, and so is the time in the queue, nearly."""
    lines = {line["external_id"]: line for line in served.run.lines}
    for number in range(NAMED):
        line = lines[f"cmpl-named-{number}-0"]
        said = served.vllm_span(line["external_id"]).attributes
        assert said["gen_ai.latency.time_in_queue"] == pytest.approx(
            (line["first_step_unix_ns"] - line["start_unix_ns"]) / 1e9, abs=0.25
        )
        older = said.get("gen_ai.usage.completion_tokens")  # the backend may file it under its own name
        assert said.get("llm.token_count.completion", older) == line["output_tokens"]


def test_every_line_of_a_real_run_is_one_span_with_its_figures(served: Served) -> None:
    """As for the demo, phases and preemptions with them."""
    children = served.run.children()
    assert len(served.run.lines) == NAMED + ALONE + 2
    for line in served.run.lines:
        span = served.run.requests[line["request_id"]]
        attribute_of(line, span)
        tokens_of(line, span)
        phases_of(line, span, children[span.span_id])
        assert line["attributed_joules"] > 0
    assert sum(line["preemptions"] for line in served.run.lines) > 0
