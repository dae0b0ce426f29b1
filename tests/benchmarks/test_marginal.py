"""The whole experiment on the simulated bench: short, and held against the truth."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gpu import marginal
from benchmarks.gpu import results as pages
from benchmarks.gpu.comparison import ArmResult, compare
from benchmarks.gpu.counterfactual import change
from benchmarks.gpu.plan import EXPERIMENTS, Background, Experiment, Kind, Pace, Plan, make_plan
from benchmarks.gpu.simulated import NOBODY, SAMPLE_HZ, SimulatedBench, SimulatedTruth
from joulescope.hook import wire
from joulescope.simulation.parts import World
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import H100_LLAMA_8B

pytestmark = pytest.mark.slow

PREFILL, DECODE = Kind("prefill", 2048, 1, 0.4), Kind("decode", 16, 64, 16)
SHORT = Experiment("short", (PREFILL, DECODE))
BACKGROUND = Background(streams=16, output_tokens=128)
PACE = Pace(rounds=2, block_seconds=4.0, lead_seconds=4.0)
CAPPED = replace(H100_LLAMA_8B, hardware=replace(H100_LLAMA_8B.hardware, power_limit_watts=480.0))


def plan_on(bench: SimulatedBench) -> Plan:
    latencies = bench.latencies_seconds(SHORT.kinds, BACKGROUND)
    return make_plan([SHORT], latencies, PACE, BACKGROUND, 3)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(H100_LLAMA_8B, id="free"),
        pytest.param(CAPPED, id="power cap"),
    ],
)
def measured(request: pytest.FixtureRequest) -> list[ArmResult]:
    """Both kinds in one world."""
    world: World = request.param
    bench = SimulatedBench(world, 5)
    plan = plan_on(bench)
    return compare(plan, bench.run(plan).blocks(), world.hardware.idle_watts)


def test_the_comparison_finds_the_true_cost(measured: list[ArmResult]) -> None:
    """What the counter shows at equal background work is what the requests truly added, up to 1 % and what
    the edges of the windows leave open."""
    assert [result.arm for result in measured] == ["prefill", "decode"]
    for result in measured:
        assert len(result.pairs) == PACE.rounds, result.dropped
        true_joules = result.mean("true_group_joules")
        allowed = 0.01 * true_joules + 3.5 * result.edge_error_joules(1 / SAMPLE_HZ)
        assert allowed < 0.08 * true_joules
        assert abs(result.added.value - true_joules) < allowed


def test_the_plain_difference_does_not(measured: list[ArmResult]) -> None:
    """On a GPU that is never idle the plain difference misses most of it: that is why it is not used."""
    for result in measured:
        assert result.mean("plain_joules") < 0.7 * result.mean("true_group_joules")


def test_the_background_goes_by_steps(measured: list[ArmResult]) -> None:
    """Steps are lost to the injected requests, and a step of the background is what it was."""
    for result in measured:
        assert result.mean("lost_steps_ratio") > 0.02
        assert result.mean("tokens_per_step_ratio") == pytest.approx(1.0, abs=0.01)


def test_few_at_a_time_cost_what_they_cost_alone(measured: list[ArmResult]) -> None:
    """The effect of several requests in one step is small by design, and it is reported."""
    for result in measured:
        single, group = result.mean("true_single_joules"), result.mean("true_group_joules")
        assert group == pytest.approx(single, rel=0.02)


def test_pages_and_json_tell_all_of_it(measured: list[ArmResult]) -> None:
    """Each kind has its row in both tables and its object in the JSON, with the truth beside it."""
    found = pages.results_json(measured, 1 / SAMPLE_HZ)
    json.dumps(found)
    assert [arm["kind"] for arm in found["arms"]] == ["prefill", "decode"]
    assert all(abs(arm["comparison_bias"]) < 0.05 for arm in found["arms"])
    assert len(found["swaps"]) == 1
    for lines in (pages.table_of(measured), pages.truth_table_of(measured)):
        assert len({line.count("|") for line in lines}) == 1
        assert len(lines) == 2 + len(measured)


def test_a_kind_that_could_not_be_measured_says_why() -> None:
    """Without two usable pairs there is no figure, but a reason."""
    lost = ArmResult("short", "decode", 5, (), {"a request was not over in time": 10})
    assert "not measured: {'a request was not over in time': 10}" in pages.table_of([lost])[-1]
    assert "added_joules" not in pages.arm_json(lost, 0.02)


def test_what_is_saved_together_follows_the_law_of_the_simulated_gpu() -> None:
    """Steps priced by the law of the truth, and idle power between them, make up what the GPU drew."""
    run = SimulatedRun(8.0, seed=1, truth=False)
    truth = SimulatedTruth(run.world, run.truth)
    joules = 0.0
    busy_ns = last_ns = 0
    for record in run.records():
        if isinstance(record, wire.Step):
            joules += truth.joules(truth.features(record).sum(axis=1))
            busy_ns += record.output_start_ns - max(last_ns, record.schedule_end_ns)
            last_ns = record.output_start_ns
    joules += (run.time_ns - run.start_ns - busy_ns) / 1e9 * run.world.hardware.idle_watts
    assert joules == pytest.approx(run.gpu.energy_joules_at(run.gpu.uuid, run.time_ns), rel=0.002)


def test_alone_on_a_gpu_a_request_adds_its_whole_energy_less_idle() -> None:
    """Where nobody else is served, nothing is shared: the total rises by the marginal less idle power."""
    seen = change(H100_LLAMA_8B, PREFILL, NOBODY, 1, 1, 12.0)
    assert seen.total_joules == pytest.approx(seen.marginal_joules - seen.idle_joules, rel=1e-3)


def test_the_command_line_chooses_what_is_measured() -> None:
    """``--quick`` takes one experiment and short blocks; rounds, length and scale can be set apart."""
    assert marginal.setup_of(marginal.parse(["--quick"])).pace == marginal.QUICK
    everything = marginal.setup_of(marginal.parse([]))
    assert everything.pace == marginal.FULL
    assert [experiment.name for experiment in everything.experiments] == list(EXPERIMENTS)
    words = ["--quick", "--rounds", "4", "--block-seconds", "3", "--scale", "0.0625", "--streams", "8"]
    small = marginal.setup_of(marginal.parse(words))
    assert (small.pace.rounds, small.pace.block_seconds) == (4, 3.0)
    assert [(kind.prompt_tokens, kind.output_tokens) for kind in small.kinds] == [(256, 1), (4, 12), (64, 4)]
    assert small.background == Background(streams=8, output_tokens=32)


def test_a_server_needs_its_socket(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the path of the hook's socket there would be nothing to listen to: said at once."""
    with pytest.raises(SystemExit):
        marginal.parse(["--server", "http://127.0.0.1:1"])
    assert "JOULESCOPE_SOCKET" in capsys.readouterr().err


def test_runs_are_pooled_pair_by_pair(measured: list[ArmResult]) -> None:
    """Two runs of the same plan give twice the pairs, and rounds that are told apart."""
    together = marginal.pooled([measured, measured])
    for result, pool in zip(measured, together, strict=True):
        assert len(pool.pairs) == 2 * len(result.pairs)
        assert len({pair.round for pair in pool.pairs}) == len(pool.pairs)
        assert np.isclose(pool.added.value, result.added.value)
