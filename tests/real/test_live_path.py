"""The product's main job on real parts: real vLLM on the CPU, the hook injected without touching it, real
pynvml on a stand-in driver, a real Prometheus and a real OTLP receiver. One run, many questions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from joulescope.ingest.trace import read_trace
from joulescope.model import Snapshot
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.otlp_receiver import Receiver, otlp_receiver
from tests.real.load import Answer, mixed_asks, send_all
from tests.real.prometheus import Prometheus, running_prometheus
from tests.real.sidecar import Sidecar, wait_until
from tests.real.vllm_env import EAGER, VllmServer, install_hook, make_model
from tests.requirements import need_program

pytestmark = pytest.mark.real

GPU = "GPU-5b1d3c5e-0000-4000-8000-000000000001"
REQUESTS, ABORTS = 224, 12
TENANTS = ("acme~", "globex~", "")
"""What stands before the clients' ids, in turn."""

LAYERS = 16
"""Slow enough for a client to hang up in time, and for the server's other half to keep pace."""
SMALL_KV_CACHE = ["--block-size", "32", "--num-gpu-blocks-override", "80", "--max-num-seqs", "24"]
"""2,560 tokens for 24 requests of up to 860: some must be preempted."""


@dataclass
class World:
    """The parts while they run, and what they said at the end."""

    vllm: VllmServer
    sidecar: Sidecar
    driver: FakeDriver
    receiver: Receiver
    prometheus: Prometheus
    answers: list[Answer] = field(default_factory=list)
    first_mj: int = 0
    last_mj: int = 0
    vllm_metrics: dict[str, float] = field(default_factory=dict)
    promtool: str = ""
    watts: dict[tuple[str, ...], float] = field(default_factory=dict)
    live: Snapshot | None = None
    flush_seconds: float = 0.0

    @property
    def snapshot(self) -> Snapshot:
        assert self.live is not None
        return self.live

    @property
    def accounts(self) -> dict[str, dict[str, Any]]:
        """Finished requests by the id that the client chose."""
        found: dict[str, dict[str, Any]] = {}
        for line in self.sidecar.requests():
            assert name_of(line) not in found, f"{line} was accounted twice"
            found[name_of(line)] = line
        return found

    @property
    def answered(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.usage is not None]

    @property
    def hung_up(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.ask.abort_after is not None]


def name_of(account: dict[str, Any]) -> str:
    """The id that the client chose, out of the server's."""
    name = re.fullmatch(r"cmpl-(.*)-0", account["external_id"])
    assert name is not None, account
    return name[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Starts everything, sends the load while the counter runs, freezes the counter, stops everything."""
    folder = tmp_path_factory.mktemp("live")
    with ExitStack() as stack:
        driver = FakeDriver(folder / "nvml", [FakeGpu(uuid=GPU, live=True, power_watts=310.0)])
        driver.freeze()
        receiver = stack.enter_context(otlp_receiver())
        vllm = VllmServer(
            model=make_model(folder / "model", LAYERS),
            hook_path=install_hook(folder / "hook"),
            socket_path=folder / "js.sock",
            log_path=folder / "vllm.log",
            arguments=[
                *SMALL_KV_CACHE,
                EAGER,
                "--enable-prompt-tokens-details",
                "--enable-request-id-headers",
                "--otlp-traces-endpoint",
                f"{receiver.endpoint}/v1/traces",
            ],
            environment={
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
                "VLLM_CPU_OMP_THREADS_BIND": "0",
            },
        )
        otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "2000"}
        nvml = environment(build(folder), driver)
        scraping = ("--scrape", vllm.url, "--scrape-seconds", "1")
        tenants = ("--tenant-from", "request_id", "--tenants", "acme,idle")
        sidecar = Sidecar(vllm.socket_path, folder, {**nvml, **otel}, arguments=(*scraping, *tenants))
        stack.callback(sidecar.kill)
        sidecar.start()
        target = f"127.0.0.1:{sidecar.port}"
        prometheus = stack.enter_context(running_prometheus(need_program("prometheus"), target, folder))
        stack.enter_context(vllm)
        made = World(vllm, sidecar, driver, receiver, prometheus)
        wait_until(lambda: sidecar.snapshot().engines, "the engine's hello")
        wait_until(lambda: sidecar.snapshot().servers[0].up, "the first look at vLLM's own page")
        _run(made)
        yield made


def _run(world: World) -> None:
    world.first_mj = world.driver.counter_mj(GPU)
    world.driver.resume()
    asks = mixed_asks(REQUESTS, seed=7)
    asks = [replace(ask, id=f"{TENANTS[at % 3]}{ask.id}") for at, ask in enumerate(asks)]
    world.answers = send_all(world.vllm.port, asks, clients=32)
    world.answers += send_all(world.vllm.port, mixed_asks(ABORTS, 8, "calm", abort_every=1), clients=2)
    wait_until(lambda: len(world.sidecar.requests()) >= REQUESTS + ABORTS, "the last accounts")
    world.vllm_metrics = scrape(f"{world.vllm.url}/metrics")
    world.watts = world.prometheus.wait_for("rate(joulescope_measured_energy_joules_total[1m])")
    world.driver.freeze()
    world.last_mj = world.driver.counter_mj(GPU)
    wait_until(lambda: _seen(world), "the sidecar to see the frozen counter")
    wait_until(lambda: len(_vllm_spans(world)) >= len(world.answered), "vLLM's own spans")
    page = world.sidecar.get("/metrics")
    assert page is not None
    checked = subprocess.run(
        [need_program("promtool"), "check", "metrics"], input=page, capture_output=True, check=False
    )
    world.promtool = (checked.stdout + checked.stderr).decode()
    told = world.vllm_metrics["vllm:generation_tokens_total"]
    wait_until(lambda: world.sidecar.snapshot().servers[0].generated_tokens == told, "a look at the end")
    world.live = world.sidecar.snapshot()
    world.flush_seconds = world.sidecar.terminate()


def _seen(world: World) -> bool:
    (gpu,) = world.sidecar.snapshot().gpus
    return gpu.reading is not None and gpu.reading.energy_joules == world.last_mj / 1000


def _vllm_spans(world: World) -> set[str]:
    """Trace ids of the spans that vLLM itself sent."""
    return {span.trace_id for span in list(world.receiver.spans) if span.name == "llm_request"}


def scrape(url: str) -> dict[str, float]:
    """Sums a page of metrics by name."""
    with urllib.request.urlopen(url) as answer:
        page = answer.read().decode()
    sums: dict[str, float] = {}
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name, value = re.split(r"[{ ]", line, maxsplit=1)[0], line.rsplit(" ", 1)[1]
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def test_every_answered_request_is_accounted_once_under_its_id(world: World) -> None:
    """No request that the API answered is missing, none is there twice, and none is invented."""
    assert len(world.answered) >= 200
    assert {answer.status for answer in world.answers} == {200}
    assert set(world.accounts) == {answer.ask.id for answer in world.answers}


def test_tokens_equal_the_apis_own_usage(world: World) -> None:
    """Prompt, cached and output tokens are those that the API told its client."""
    for answer in world.answered:
        account = world.accounts[answer.ask.id]
        usage = answer.usage or {}
        told = (usage["prompt_tokens"], answer.cached_tokens, usage["completion_tokens"])
        ours = (account["prompt_tokens"], account["cached_tokens"], account["output_tokens"])
        assert ours == told, account
    assert any(answer.cached_tokens for answer in world.answered)


def test_the_token_identity_closes(world: World) -> None:
    """Scheduled tokens = prompt − cached + generated − 1 (the last one is never computed) + recomputed."""
    for answer in world.answered:
        account = world.accounts[answer.ask.id]
        expected = account["prompt_tokens"] - account["cached_tokens"] + account["output_tokens"] - 1
        assert account["scheduled_tokens"] == expected + account["recomputed_tokens"], account


def test_aborted_requests_are_there_with_their_reason(world: World) -> None:
    """Clients who hung up are accounted as aborts, unless the engine was done before the server noticed."""
    for answer in world.hung_up:
        account = world.accounts[answer.ask.id]
        done = (account["finish_reason"], account["output_tokens"]) == ("length", answer.ask.max_tokens)
        assert done or account["finish_reason"] == "abort", account
    aborted = [account for account in world.accounts.values() if account["finish_reason"] == "abort"]
    assert len(aborted) >= 3
    assert {name_of(account) for account in aborted} <= {answer.ask.id for answer in world.hung_up}
    others = {world.accounts[answer.ask.id]["finish_reason"] for answer in world.answered}
    assert others <= {"stop", "length"}
    wasted = sum(account["attributed_joules"] for account in aborted)
    (engine,) = world.snapshot.engines
    assert engine.wasted_joules["abort"] == pytest.approx(wasted, abs=1e-3)


def test_the_account_equals_the_counter(world: World) -> None:
    """requests + idle + overhead + unattributed is what the driver's counter rose by, to the millijoule."""
    balance = world.sidecar.balance()
    rise_joules = (world.last_mj - world.first_mj) / 1000
    assert balance["measured"] == pytest.approx(rise_joules, abs=1e-9)
    parts = balance["attributed"] + balance["idle"] + balance["overhead"] + balance["unattributed"]
    assert parts == pytest.approx(rise_joules, abs=5e-6)
    assert balance["residual"] == 0
    requests = sum(account["attributed_joules"] for account in world.accounts.values())
    assert requests == pytest.approx(balance["attributed"], abs=1e-4)
    assert balance["attributed"] > 0.5 * rise_joules


def test_nothing_is_lost_while_the_engine_is_there(world: World) -> None:
    """Unattributed is only what the first interval of the counter reached back to before the hello."""
    (gpu,) = world.snapshot.gpus
    assert {reason for reason, joules in gpu.unattributed_joules.items() if joules} <= {"no_engine"}
    assert sum(gpu.unattributed_joules.values()) < 310.0 * 1.5


def test_every_account_is_whole(world: World) -> None:
    """Nothing was dropped: each request has joules, complete, its phases summing to the whole."""
    for account in world.accounts.values():
        assert account["complete"], account
        phases = account["prefill_joules"] + account["decode_joules"]
        assert phases == pytest.approx(account["attributed_joules"], abs=2e-6)
        assert account["marginal_joules"] >= 0
        if not account["preemptions"]:  # what is computed again would be saved too, and the system pays it
            rounded_joules = (
                1e-6 * account["steps"]
            )  # attributed joules are whole microjoules, interval by interval
            assert account["marginal_joules"] <= account["attributed_joules"] + rounded_joules
    (engine,) = world.snapshot.engines
    assert engine.records_dropped == 0
    assert engine.gaps == 0


def test_vllms_own_counters_agree(world: World) -> None:
    """Generated tokens, prompt tokens, prefix hits and preemptions, as vLLM itself counts them."""
    (engine,) = world.snapshot.engines
    theirs = world.vllm_metrics
    accounts = world.accounts.values()
    generated = sum(account["output_tokens"] for account in accounts)
    # The engine may have sampled one more token for a client who had just hung up.
    assert 0 <= generated - theirs["vllm:generation_tokens_total"] <= len(world.hung_up)
    assert theirs["vllm:prompt_tokens_total"] == sum(account["prompt_tokens"] for account in accounts)
    assert theirs["vllm:prefix_cache_hits_total"] == engine.tokens["cached_local"]
    # vLLM tells of a preemption with the victim's next output: who hangs up before is not counted there.
    untold = sum(world.accounts[answer.ask.id]["preemptions"] for answer in world.hung_up)
    assert 0 <= engine.preemptions - theirs["vllm:num_preemptions_total"] <= untold
    assert engine.preemptions > 0


def test_scraping_vllm_tells_the_run_as_the_hook_does(world: World) -> None:
    """Its page, read beside the hook, was down before vLLM was up, and gives the same tokens at the end."""
    (server,), (engine,) = world.snapshot.servers, world.snapshot.engines
    assert (server.kind, server.up, server.resets) == ("vllm", True, 0)
    assert server.failures["unreachable"] > 0
    generated = engine.tokens["generated"]  # one more, perhaps, for a client who had just hung up
    assert 0 <= generated - (server.generated_tokens or 0.0) <= len(world.hung_up)
    assert server.prompt_tokens == world.vllm_metrics["vllm:prompt_tokens_total"]
    assert (server.running, server.waiting, server.kv_usage_ratio) == (0, 0, 0.0)


def test_preemption_is_overhead_of_the_system(world: World) -> None:
    """With so small a KV cache some work was done twice, and nobody but the system pays for it."""
    assert sum(account["recomputed_tokens"] for account in world.accounts.values()) > 0
    (gpu,) = world.snapshot.gpus
    assert gpu.overhead_joules["preemption"] > 0


def test_prometheus_answers(world: World) -> None:
    """A real Prometheus scraped the sidecar and gives watts; promtool has nothing to say."""
    assert world.promtool == ""
    (watts,) = world.watts.values()
    assert 0 < watts < 400


def test_spans_carry_energy_and_join_the_callers_trace(world: World) -> None:
    """Each request is a span in the trace of its caller, beside vLLM's own, with joules, tokens and ids."""
    ours = {s.attributes["joulescope.request.external_id"]: s for s in world.receiver.spans if _is_ours(s)}
    theirs = _vllm_spans(world)
    for answer in world.answered:
        span = ours[f"cmpl-{answer.ask.id}-0"]
        _, trace_id, parent_id, _ = answer.ask.trace_parent.split("-")
        account = world.accounts[answer.ask.id]
        assert (span.trace_id, span.parent_span_id) == (trace_id, parent_id)
        assert span.trace_id in theirs
        assert span.attributes["joulescope.request.energy"] == account["attributed_joules"]
        assert span.attributes["gen_ai.usage.output_tokens"] == account["output_tokens"]
        assert span.attributes["gen_ai.request.model"] == "tiny"


def _is_ours(span: Any) -> bool:
    return "joulescope.request.energy" in span.attributes


def test_otlp_metrics_arrive(world: World) -> None:
    """The GPU's energy arrives as the convention's counter."""
    points = world.receiver.wait_for_points("hw.energy")
    assert points[-1].attributes["hw.id"] == GPU
    assert points[-1].kind == "counter"


def test_sigterm_flushes_within_a_second(world: World) -> None:
    """From the signal to the end of the process, exporters flushed."""
    assert world.flush_seconds < 1.5  # a second, and the interpreter's own end on a busy machine


def test_the_recording_replays_to_the_same_accounts(world: World) -> None:
    """The trace written beside it, run through `replay`, gives every request the same joules."""
    out = world.sidecar.folder / "replayed.jsonl"
    command = [sys.executable, "-m", "joulescope.cli.main", "replay", str(world.sidecar.trace)]
    done = subprocess.run([*command, "--requests", str(out), "--json"], capture_output=True, check=True)
    summary = json.loads(done.stdout)
    balance = world.sidecar.balance()
    assert summary["gpus"][GPU]["measured_joules"] == pytest.approx(balance["measured"], abs=1e-6)
    replayed = {line["request_id"]: line for line in map(json.loads, out.read_text().splitlines())}
    assert len(replayed) == len(world.accounts)
    for account in world.accounts.values():
        again = replayed[account["request_id"]]["attributed_joules"]
        assert again == pytest.approx(account["attributed_joules"], rel=1e-6, abs=1e-5)


def test_each_tenant_has_its_own_joules(world: World) -> None:
    """The tenant that the client's X-Request-Id names is in the request log, and its requests' joules are its
    series'; who was listed and never came is there with nothing."""
    joules = dict.fromkeys(("none", "acme", "idle", "globex"), 0.0)
    for name, account in world.accounts.items():
        tenant, tilde, _ = name.partition("~")
        assert account["tenant"] == (tenant if tilde else "none")
        joules[account["tenant"]] += account["attributed_joules"]
    (engine,) = world.snapshot.engines
    told = {tenant: sum(totals.joules.values()) for tenant, totals in engine.tenants.items()}
    assert told == pytest.approx(joules, abs=1e-4)
    assert min(told["acme"], told["globex"], told["none"]) > 0 == told["idle"]
    assert list(engine.adapters) == ["base"]


def test_no_text_ever_leaves_the_engine(world: World) -> None:
    """The trace holds no token of any prompt: numbers of tokens only."""
    prompts = [answer.ask.prompt for answer in world.answers if len(answer.ask.prompt) >= 20]
    lists = [
        values
        for record in read_trace(world.sidecar.trace)
        for values in vars_of(record)
        if isinstance(values, list) and len(values) >= 3
    ]
    for prompt in prompts:
        assert not any(values == prompt[: len(values)] for values in lists)


def vars_of(record: Any) -> list[Any]:
    return [getattr(record, name) for name in record.__struct_fields__]
