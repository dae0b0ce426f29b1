"""Where the joules of a real vLLM went: it serves few requests, then many, then longer answers, and is asked
why each costs what it costs. Real hook, real sidecar, real pynvml on a stand-in driver of steady power."""

from __future__ import annotations

import io
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from joulescope.cli.main import main
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.load import Ask, send
from tests.real.sidecar import Sidecar, wait_until
from tests.real.vllm_env import VllmServer, install_hook, make_model

pytestmark = pytest.mark.real

GPU = "GPU-5b1d3c5e-0000-4000-8000-000000000001"
WATTS = 155.0
"""Near what a fit expects of this GPU before it learned: ten seconds teach it little, the less the quicker
the machine is, and laws that are far off are refused."""

LOAD_SECONDS = 10.0
PROMPT_TOKENS = 40


@dataclass(frozen=True)
class Load:
    """Requests that come at random, all alike, whatever the server does."""

    name: str
    requests_per_second: float
    answer_tokens: int


SLOW, FAST, LONG = Load("slow", 2.0, 20), Load("fast", 10.0, 20), Load("long", 2.0, 80)
WARM = Load("warm", 5.0, 20)


@dataclass
class World:
    folder: Path
    traces: dict[str, Path] = field(default_factory=dict)
    minutes: dict[str, Path] = field(default_factory=dict)
    live: dict[str, Any] = field(default_factory=dict)
    """The diagnosis that was made of the ledger, while the sidecar ran."""

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"


def called(*arguments: object) -> dict[str, Any]:
    """What a command prints as JSON."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main([*map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(printed.getvalue())
    return found


def send_at_random(port: int, load: Load) -> int:
    """Sends for :data:`LOAD_SECONDS`, whether or not answers come; how many were answered."""
    rng = random.Random(3)
    asks = []
    with ThreadPoolExecutor(32) as pool:
        begin, at = time.monotonic(), rng.expovariate(load.requests_per_second)
        while at < LOAD_SECONDS:
            time.sleep(max(begin + at - time.monotonic(), 0.0))
            prompt = [rng.randint(10, 400) for _ in range(PROMPT_TOKENS)]
            asks.append(pool.submit(send, port, Ask(f"{load.name}-{len(asks)}", prompt, load.answer_tokens)))
            at += rng.expovariate(load.requests_per_second)
    return sum(ask.result().status == 200 for ask in asks)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One vLLM; for each load a sidecar of its own, with a trace of its own, and one ledger."""
    folder = tmp_path_factory.mktemp("went")
    made = World(folder)
    driver = FakeDriver(folder / "nvml", [FakeGpu(uuid=GPU, live=True, power_watts=WATTS)])
    nvml = environment(build(folder), driver)
    vllm = VllmServer(
        model=make_model(folder / "model"),
        hook_path=install_hook(folder / "hook"),
        socket_path=folder / "js.sock",
        log_path=folder / "vllm.log",
        arguments=["--enforce-eager"],  # compiling takes longer than all loads together
    )
    arguments = ("--ledger", str(made.ledger), "--ledger-flush-seconds", "0.5")
    with vllm:
        send_at_random(vllm.port, WARM)
        for load in (SLOW, FAST, LONG):
            sidecar = Sidecar(vllm.socket_path, folder, nvml, name=load.name, arguments=arguments)
            try:
                _serve(made, load, vllm, sidecar)
            finally:
                sidecar.kill()
    return made


def _serve(world: World, load: Load, vllm: VllmServer, sidecar: Sidecar) -> None:
    """One load, from the sidecar's start to its end."""
    begin = datetime.now(timezone.utc).isoformat()
    sidecar.start()
    # What the GPU draws at rest is known from the first rest on; without it the first steps pay for it.
    wait_until(lambda: sum(gpu.idle_joules for gpu in sidecar.snapshot().gpus) > WATTS, "a second of rest")
    answered = send_at_random(vllm.port, load)
    assert answered > 0.5 * load.requests_per_second * LOAD_SECONDS
    wait_until(lambda: sidecar.snapshot().ledger.rows.get("requests", 0) >= answered, "the last accounts")
    if load is FAST:
        world.live = called("diagnose", f"{world.ledger}@..{begin}", f"{world.ledger}@{begin}..")
    sidecar.terminate()
    world.traces[load.name] = sidecar.trace
    world.minutes[load.name] = _minutes_of(world, load)


def _minutes_of(world: World, load: Load) -> Path:
    path = world.folder / f"{load.name}.minutes.jsonl"
    with redirect_stdout(io.StringIO()):
        assert main(["replay", str(world.traces[load.name]), "--minutes", str(path)]) == 0
    return path


def check_sum(found: dict[str, Any]) -> None:
    """The parts sum to the change."""
    change = found["after"]["joules_per_token"] - found["before"]["joules_per_token"]
    assert found["change_joules_per_token"] == pytest.approx(change)
    assert sum(part["joules_per_token"] for part in found["parts"]) == pytest.approx(change, rel=1e-6)


@pytest.mark.parametrize("source", ["traces", "minutes"])
def test_more_requests_are_named_as_load(world: World, source: str) -> None:
    """Five times the requests in the same time, at the same power: J/token falls, and load is why."""
    sources = getattr(world, source)
    found = called("diagnose", sources["slow"], sources["fast"])
    check_sum(found)
    assert found["first_cause"] == "load"
    assert found["change_joules_per_token"] < -0.5 * found["before"]["joules_per_token"]


def test_it_is_named_while_the_sidecar_runs(world: World) -> None:
    """Two spans of its ledger, the second of which is still being written."""
    check_sum(world.live)
    assert world.live["first_cause"] == "load"


def test_longer_answers_are_named_as_the_mix(world: World) -> None:
    """As many requests as before, each four times as long."""
    found = called("diagnose", world.traces["slow"], world.traces["long"])
    check_sum(found)
    assert found["first_cause"] == "mix"


def test_a_plan_starts_from_what_was_measured(world: World) -> None:
    """From a trace: the batch that was seen is told so, and larger ones are faster and cheaper."""
    found = called("plan", world.traces["fast"])
    (alternative,) = found["alternatives"]
    seen = found["observed"]["seen"]["batch"]
    fared = found["observed"]["fared"]
    assert 1 <= seen["low"] <= fared["batch"] <= seen["high"] < 10
    assert fared["watts"] == pytest.approx(WATTS, rel=0.03)
    points = [point for point in alternative["by_batch"] if point["support"] != "refused"]
    costs = [point["joules_per_token"]["value"] for point in points]
    assert len(costs) > 2
    assert costs == sorted(costs, reverse=True)
    rates = [point["tokens_per_second"]["value"] for point in points]
    assert rates == sorted(rates)


def test_a_comparison_lays_the_loads_side_by_side(world: World) -> None:
    """The power over everything is the meter's, and J/token falls with what was asked for."""
    found = called("compare", *(f"{name}={path}" for name, path in world.traces.items()))
    sides = {side["name"]: side for side in found["sides"]}
    assert list(sides) == ["slow", "fast", "long"]
    costs = {}
    for name, side in sides.items():
        figures = {figure: each["value"] for figure, each in side["whole"]["figures"].items()}
        assert figures["watts_all"] == pytest.approx(WATTS, rel=0.03)
        assert figures["joules_per_unit"] < figures["joules_per_unit_all"]
        assert side["setup"]["software"] == "vllm 0.32.0"
        costs[name] = figures["joules_per_unit_all"]
    assert max(costs["fast"], costs["long"]) < 0.5 * costs["slow"]
    assert {"short", "few"} <= {warning["code"] for warning in found["warnings"]}
