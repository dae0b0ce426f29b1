"""What makes each world different, and what holds in all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from joulescope.hook.wire import Hello, RequestEnd, RequestStart, Step
from joulescope.replay import Replay
from joulescope.simulation.group import law_of
from joulescope.simulation.physics import FEATURES
from joulescope.simulation.shapley import marginal_joules, shares_of
from joulescope.simulation.worlds import H100, H100_LLAMA_8B, QWEN3_30B_A3B, WORLDS
from tests.simulation.stories import DECODE, PREFILL, columns, features, of, run_of, seconds_and_joules

NOTHING = np.zeros(len(FEATURES))


# ------------------------------------------------------------------------------------- all worlds


@pytest.mark.parametrize("name", WORLDS)
def test_every_joule_is_somebodys_once(name: str) -> None:
    """In truth requests, overhead and idle time make up what a GPU drew; in our account they do exactly."""
    run, records = run_of(name)
    for balance in run.balances():
        told = balance.request_joules + balance.overhead_joules + balance.idle_joules
        assert told == pytest.approx(balance.drawn_joules, rel=1e-9)
        assert balance.request_joules > 0
    charged = sum(balance.request_joules for balance in run.balances())
    assert sum(run.truth.true_joules().values()) == pytest.approx(charged, rel=1e-9)
    replay = Replay(records)
    assert len(list(replay)) == len(of(RequestEnd, records)) > 10
    assert replay.snapshot is not None
    assert [gpu.residual_joules for gpu in replay.snapshot.gpus] == [0.0] * len(run.gpus)
    assert not replay.snapshot.sidecar.rejected_records


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("count", [4, 17])
def test_shares_sum_to_the_step_in_every_world(name: str, count: int) -> None:
    """Whatever the law, the shares of a mixed step sum to its energy, and nobody's is negative."""
    law = law_of(WORLDS[name])
    step = features(PREFILL, (0, 40), *[(300 + 61 * k, 1) for k in range(count - 2)])
    shares = shares_of(law, step).shapley_joules
    assert shares.sum() == pytest.approx(float(law.energy_joules(step.sum(axis=1))), rel=1e-12)
    assert (shares > 0).all()


@pytest.mark.parametrize("name", WORLDS)
def test_the_truth_is_known_well_enough(name: str) -> None:
    """The sampling error of the truth itself is far below the errors that are measured with it."""
    assert run_of(name)[0].truth.sampling_error_ratio() < 0.005


# ----------------------------------------------------------------------------- one GPU, another form


def test_a_blended_roofline_has_no_corner() -> None:
    """Where memory and arithmetic take equally long a step takes longer than either, and else hardly."""
    world = WORLDS["blended-roofline"]
    plain = law_of(replace(world, hardware=replace(world.hardware, overlap_exponent=np.inf)))
    for scheduled, low, high in ((236, 1.12, 1.27), (8000, 0.85, 1.0)):
        sharp = plain.cost(features((0, scheduled)).sum(axis=1)).seconds[0]
        assert low < seconds_and_joules("blended-roofline", (0, scheduled))[0] / sharp < high


def test_falling_clocks_keep_the_cap_and_save_energy() -> None:
    """At the cap power is the cap, and the step is shorter and cheaper than if it were only stretched."""
    world = WORLDS["dvfs"]
    stretching = law_of(replace(world, hardware=replace(world.hardware, dvfs=None)))
    for requests in ([PREFILL], [DECODE] * 100, [(0, 300), *[DECODE] * 60]):
        seconds, joules = seconds_and_joules("dvfs", *requests)
        assert joules / seconds == pytest.approx(world.hardware.power_limit_watts, abs=1e-3)
        stretched = stretching.cost(features(*requests).sum(axis=1))
        assert seconds < stretched.seconds[0]
        assert joules < stretched.joules[0]


def test_clocks_do_not_fall_below_the_cap() -> None:
    """A step that keeps the limit by itself runs at full clock: it costs the same as without the cap."""
    world = WORLDS["dvfs"]
    free = law_of(replace(world, hardware=replace(world.hardware, power_limit_watts=5000.0)))
    cost = free.cost(features(DECODE).sum(axis=1))
    assert seconds_and_joules("dvfs", DECODE) == pytest.approx((cost.seconds[0], cost.joules[0]))


def test_falling_clocks_and_a_soft_roofline_do_not_go_together() -> None:
    """The search for the clock knows one form of roofline only, and says so."""
    with pytest.raises(ValueError, match="overlap_exponent"):
        replace(WORLDS["dvfs"].hardware, overlap_exponent=3.0)


@pytest.mark.parametrize("name", ["moe", "moe-uneven"])
def test_experts_are_read_when_a_token_chooses_them(name: str) -> None:
    """The first tokens touch new experts, later ones hardly any: the weight read saturates."""
    law = law_of(WORLDS[name])
    tokens = np.array([0.0, 1.0, 2.0, 64.0, 65.0, 4000.0, 4001.0])
    sums = np.zeros((len(FEATURES), len(tokens)))
    sums[1] = tokens
    read = law.load(sums).weight_seconds * H100.bytes_per_second  # type: ignore[attr-defined]
    experts = QWEN3_30B_A3B.experts
    assert experts is not None
    assert read[0] == pytest.approx(QWEN3_30B_A3B.weight_bytes - experts.weight_bytes)
    assert read[1] - read[0] == pytest.approx(experts.weight_bytes * 8 / 128)
    assert read[2] - read[1] < read[1] - read[0]
    assert 0 < read[4] - read[3] < 0.2 * (read[1] - read[0])
    assert read[6] == pytest.approx(QWEN3_30B_A3B.weight_bytes, rel=1e-6)


def test_uneven_experts_saturate_otherwise_than_they_are_told() -> None:
    """Popular experts are touched early and rare ones late: fewer are read than equal chances would touch."""
    even, uneven = (seconds_and_joules(name, *[DECODE] * 24)[1] for name in ("moe", "moe-uneven"))
    assert uneven < 0.97 * even


def test_a_mixture_tells_of_its_experts() -> None:
    """The hello says how many bytes are experts' and how likely each is chosen; a dense model says 0."""
    (greeting,) = of(Hello, run_of("moe")[1])
    cost = greeting.engine.cost
    assert cost.expert_choice_ratio == 1 / 16
    assert 0.9 < cost.expert_weight_bytes / cost.weight_bytes < 1.0
    assert 29e9 < cost.weight_bytes / 2 < 31e9
    (greeting,) = of(Hello, run_of("calibrated")[1])
    assert (greeting.engine.cost.expert_weight_bytes, greeting.engine.cost.expert_choice_ratio) == (0.0, 0.0)


def test_drafted_tokens_are_verified_and_partly_rejected() -> None:
    """Each decode verifies the drafts; code gains more by it than chat; the records say how many."""
    run, records = run_of("speculative")
    kinds = {start.request: start.external_id.partition("-")[0] for start in of(RequestStart, records)}
    drafted, accepted = Counter[str](), Counter[str]()
    for step in of(Step, records):
        drafts = dict(step.drafted)
        for handle, _, scheduled, sampled in columns(step):
            count = drafts.get(handle, 0)
            assert count <= 3
            assert not count or scheduled == 1 + count
            assert sampled <= 1 + count
            drafted[kinds[handle]] += count
            accepted[kinds[handle]] += max(sampled - 1, 0)
    assert 0.3 < accepted["chat"] / drafted["chat"] < 0.55
    assert 0.65 < accepted["code"] / drafted["code"] < 0.9
    assert run.world.drafter is not None
    assert of(Hello, records)[0].engine.speculative == "draft_model:3"


def test_speculation_changes_no_answer() -> None:
    """Context goes on where accepted tokens ended, and every answer has its planned length."""
    _, records = run_of("speculative")
    context, generated = dict[int, int](), Counter[int]()
    for step in of(Step, records):
        drafts = dict(step.drafted)
        for handle, at, scheduled, sampled in columns(step):
            assert context.get(handle, at) == at
            rejected = drafts.get(handle, 0) - max(sampled - 1, 0) if drafts else 0
            context[handle] = at + scheduled - rejected
            generated[handle] += sampled
    ends = [end for end in of(RequestEnd, records) if end.reason in ("stop", "length")]
    assert len(ends) > 10
    assert all(generated[end.request] == end.output_tokens for end in ends)


def test_the_drafters_cost_is_in_the_truth_but_not_told() -> None:
    """A step with drafts costs more by the drafter's passes, and the hello is that of the model alone."""
    speculative, plain = seconds_and_joules("speculative", DECODE), seconds_and_joules("calibrated", DECODE)
    assert speculative[1] > 1.2 * plain[1]
    assert law_of(WORLDS["speculative"]).energy_joules(NOTHING) == pytest.approx(
        float(law_of(H100_LLAMA_8B).energy_joules(NOTHING))
    )
    (told,), (usual,) = (of(Hello, run_of(name)[1]) for name in ("speculative", "calibrated"))
    assert told.engine.cost == usual.engine.cost


def test_graphs_pad_steps_to_captured_sizes() -> None:
    """A ninth sequence brings the padding up to 16, and seven more are nearly free."""
    joules = {count: seconds_and_joules("cuda-graphs", *[DECODE] * count)[1] for count in (8, 9, 16, 600)}
    plain = {count: seconds_and_joules("calibrated", *[DECODE] * count)[1] for count in joules}
    assert joules[8] == pytest.approx(plain[8])
    assert joules[16] == pytest.approx(plain[16])
    assert joules[9] - joules[8] > 3 * (plain[9] - plain[8])
    assert joules[600] == pytest.approx(plain[600])
    saved = marginal_joules(law_of(WORLDS["cuda-graphs"]), features(*[DECODE] * 16))
    assert saved.max() < 0.3 * marginal_joules(law_of(H100_LLAMA_8B), features(*[DECODE] * 16)).min()


def test_a_host_bound_engine_keeps_its_gpu_waiting() -> None:
    """Milliseconds between steps, at a power between idle and busy, are a tenth of the requests' joules."""
    run, records = run_of("host-bound")
    steps = run.truth.steps
    assert steps is not None
    gaps_ns = [after.start_ns - before.end_ns for before, after in pairwise(steps)]
    assert 2_500_000 < np.median(gaps_ns) < 8_000_000
    gap, work = sum(step.gap_joules for step in steps), sum(step.joules for step in steps)
    assert 0.05 < gap / (gap + work) < 0.35
    median = steps[int(np.argsort(gaps_ns)[len(gaps_ns) // 2]) + 1]
    assert median.gap_joules / (np.median(gaps_ns) / 1e9) == pytest.approx(130.0, rel=1e-3)
    assert run.gpu.power_watts_at(run.gpu.uuid, run.time_ns) == H100.idle_watts
    assert len(of(Step, records)) == len(steps)


def test_a_warm_gpu_leaks_more() -> None:
    """The same decode step draws more at the end of 40 busy seconds than at their beginning."""
    run, _ = run_of("thermal", 40.0, 6.0)
    steps = run.truth.steps
    assert steps is not None
    law = law_of(WORLDS["thermal"])
    leaks = [step.joules / ((step.end_ns - step.start_ns) / 1e9) for step in steps]
    early, late = np.quantile(leaks[50:500], 0.1), np.quantile(leaks[-500:], 0.1)
    assert late > early + 8.0
    warm = law.warmed([20.0]).cost(features(DECODE).sum(axis=1))
    seconds, joules = seconds_and_joules("thermal", DECODE)
    assert warm.joules[0] - joules == pytest.approx(20.0 * seconds)


@pytest.mark.parametrize(("name", "limit_watts"), [("clock-change", 700.0), ("cap-change", 420.0)])
def test_settings_change_in_the_middle_of_a_run(name: str, limit_watts: float) -> None:
    """Up to the change steps cost what they always do, from then on they follow the new settings."""
    run, _ = run_of(name)
    world, steps = WORLDS[name], run.truth.steps
    assert steps is not None
    assert world.change is not None
    before, after = law_of(world), law_of(world, world.change.hardware)
    step = features(PREFILL, *[DECODE] * 5)
    ratio = after.energy_joules(step.sum(axis=1)) / before.energy_joules(step.sum(axis=1))
    assert abs(ratio - 1) > 0.02
    middle_ns = run.start_ns + 2_500_000_000
    watts = [
        each.joules / ((each.end_ns - each.start_ns) / 1e9) for each in steps if each.start_ns > middle_ns
    ]
    assert max(watts) <= limit_watts + 0.1
    earlier = [
        each.joules / ((each.end_ns - each.start_ns) / 1e9) for each in steps if each.start_ns < middle_ns
    ]
    assert max(earlier) > max(watts) + 20


# ------------------------------------------------------------------------------------ another load


def test_a_small_cache_preempts_often() -> None:
    """At a moderate load requests lose their place and compute again, on a GPU that is the usual one."""
    run, records = run_of("preemption-heavy", 5.0, 16.0)
    assert sum(end.preemptions or 0 for end in of(RequestEnd, records)) > 5
    accounts = [run.truth.get(start.request_id) for start in of(RequestStart, records)]
    recomputed = sum(account.recompute_joules for account in accounts if account is not None)
    assert recomputed > 0.005 * sum(run.truth.true_joules().values())


def test_most_of_the_prompts_are_found_in_the_cache() -> None:
    """A few long prefixes make up most of all prompts, and are computed once."""
    _, records = run_of("prefix-heavy")
    prompts = sum(start.prompt_tokens for start in of(RequestStart, records))
    assert sum(local for step in of(Step, records) for _, local, _ in step.cached) > 0.6 * prompts


def test_long_contexts_are_long() -> None:
    """A decoding request reads several thousand tokens of KV cache, where the usual load reads hundreds."""
    means = {}
    for name in ("calibrated", "long-context"):
        steps = of(Step, run_of(name)[1])
        means[name] = np.mean(np.concatenate([step.context for step in steps]))
    assert means["long-context"] > 5000 > 2 * means["calibrated"]
