"""The estimate of an answer: settled joules, and the price of what is not settled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from joulescope.export.estimate import MAX_AGE_NS, Estimator, Work
from joulescope.export.price_of_prompts import PromptPrice
from joulescope.model import (
    EngineInfo,
    EngineTotals,
    FinishedRequest,
    GpuInfo,
    GpuTotals,
    OpenRequest,
    Snapshot,
)
from tests.export import test_request_store as store
from tests.export.samples import engine_a, finished
from tests.worlds import SECOND

JOULES_A_TOKEN, TOKENS_A_SECOND, LAG_NS = 0.5, 100, SECOND
PROMPT_JOULES, PROMPT_TOKEN_JOULES = 2.0, 0.01


def engine_at(seconds: float, label: str = "e", instance: str = "i", up: bool = True) -> EngineTotals:
    """An engine that decodes steadily: tokens are known at once, their joules a second later."""
    settled = max(seconds - LAG_NS / SECOND, 0.0)
    return replace(
        engine_a(),
        info=EngineInfo(label, instance_id=instance, gpus=(f"GPU-{label}",)),
        up=up,
        attributed_joules={
            (f"GPU-{label}", "decode"): JOULES_A_TOKEN * TOKENS_A_SECOND * settled,
            (f"GPU-{label}", "prefill"): 7.0 * settled,
        },
        tokens={"decode": round(TOKENS_A_SECOND * seconds)},
    )


def snapshot_of(time_ns: int, *engines: EngineTotals) -> Snapshot:
    gpus = tuple(
        GpuTotals(
            info=GpuInfo(engine.info.gpus[0]),
            measured_joules=0.0,
            attributed_joules=0.0,
            idle_joules=0.0,
            overhead_joules={},
            unattributed_joules={},
            residual_joules=0.0,
            accounted_until_ns=max(time_ns - LAG_NS, 0),
        )
        for engine in engines
    )
    return Snapshot(time_ns=time_ns, wall_seconds=0.0, gpus=gpus, engines=engines)


def prompt(tokens: int, cached: int = 0, **more: object) -> FinishedRequest:
    joules = PROMPT_JOULES + PROMPT_TOKEN_JOULES * (tokens - cached)
    return replace(
        finished(),
        engine="e",
        prompt_tokens=tokens,
        cached_tokens=cached,
        prefill_joules=joules,
        **more,  # type: ignore[arg-type]
    )


def experienced(until_seconds: int = 10) -> Estimator:
    """An estimator that has seen an engine at work."""
    estimator = Estimator()
    for half_seconds in range(2 * until_seconds + 1):
        time_ns = half_seconds * SECOND // 2
        estimator.observe(snapshot_of(time_ns, engine_at(half_seconds / 2)))
    estimator.finished([prompt(tokens) for tokens in (100, 300, 50, 1000)] * 5)
    return estimator


def opened(**changes: object) -> OpenRequest:
    request = replace(
        store.opened("cmpl-1-0"),
        first_token_ns=SECOND,
        prompt_tokens=100,
        output_tokens=0,
        attributed_joules=None,
        prefill_joules=None,
    )
    return replace(request, **changes)  # type: ignore[arg-type]


def test_nothing_is_known_before_anything_was_seen() -> None:
    """No snapshot, no finished request, no work: no figure, rather than one out of the air."""
    estimator = Estimator()
    assert estimator.estimate(Work(prompt_tokens=10, output_tokens=10), ()) is None
    estimator.observe(snapshot_of(SECOND, engine_at(1.0)))
    assert estimator.estimate(Work(prompt_tokens=10, output_tokens=10), ()) is None
    assert experienced().estimate(Work(), ()) is None


def test_a_request_that_was_not_heard_of_is_priced_by_its_tokens() -> None:
    """Its prompt by the line through finished ones, each further token at what tokens cost of late."""
    joules = experienced().estimate(Work(prompt_tokens=200, output_tokens=31), ())
    assert joules == pytest.approx(PROMPT_JOULES + PROMPT_TOKEN_JOULES * 200 + 30 * JOULES_A_TOKEN)


def test_tokens_and_joules_of_the_price_are_of_the_same_time() -> None:
    """Tokens are known a second before their joules: a load that just doubled does not halve the price."""
    estimator = experienced()
    faster = replace(engine_at(10.5), tokens={"decode": 10 * TOKENS_A_SECOND + 500})
    estimator.observe(snapshot_of(10 * SECOND + SECOND // 2, faster))
    joules = estimator.estimate(Work(prompt_tokens=100, output_tokens=11), ())
    assert joules == pytest.approx(PROMPT_JOULES + 1.0 + 10 * JOULES_A_TOKEN)


def test_what_is_settled_counts_as_it_is() -> None:
    """Half of the tokens are settled, and cost twice what the engine's cost: so will the other half."""
    request = opened(
        first_token_ns=8 * SECOND, output_tokens=101, attributed_joules=3.0 + 50.0, prefill_joules=3.0
    )
    joules = experienced().estimate(Work(output_tokens=101, end_ns=10 * SECOND), [request])
    assert joules == pytest.approx(3.0 + 50.0 + 50.0)


def test_tokens_that_the_sidecar_has_not_heard_of_are_priced_too() -> None:
    """The answer tells more tokens than the records that have come."""
    request = opened(
        first_token_ns=8 * SECOND, output_tokens=101, attributed_joules=3.0 + 25.0, prefill_joules=3.0
    )
    joules = experienced().estimate(Work(output_tokens=121, end_ns=10 * SECOND), [request])
    assert joules == pytest.approx(3.0 + 25.0 + 25.0 + 20 * JOULES_A_TOKEN)


def test_a_prompt_that_is_not_settled_costs_what_prompts_cost() -> None:
    """Whatever part of it is settled already is in that, and not added."""
    request = opened(
        first_token_ns=9 * SECOND + 1, output_tokens=11, attributed_joules=0.4, prefill_joules=0.4,
        prompt_tokens=164, cached_tokens=64,
    )  # fmt: skip
    joules = experienced().estimate(Work(prompt_tokens=164, output_tokens=11), [request])
    assert joules == pytest.approx(PROMPT_JOULES + 1.0 + 10 * JOULES_A_TOKEN)
    dear = replace(request, attributed_joules=9.0)
    assert experienced().estimate(Work(), [dear]) == pytest.approx(9.0 + 10 * JOULES_A_TOKEN)


def test_parts_of_an_answer_are_summed() -> None:
    """One is final, one is open; the tokens that the answer tells are those of both."""
    done = replace(finished(), attributed_joules=4.5, output_tokens=20)
    request = opened(
        first_token_ns=8 * SECOND, output_tokens=101, attributed_joules=3.0 + 25.0, prefill_joules=3.0
    )
    work = Work(output_tokens=121, end_ns=10 * SECOND)
    assert experienced().estimate(work, [request], [done]) == pytest.approx(4.5 + 53.0)
    assert experienced().estimate(work, [], [done, done]) == pytest.approx(9.0 + 81 * JOULES_A_TOKEN)
    assert experienced().estimate(work, [request], [replace(done, attributed_joules=None)]) is None


def test_cached_tokens_cost_nothing_and_are_guessed_where_nobody_tells() -> None:
    """vLLM tells them only if it is started so; otherwise as many are taken for cached as usual."""
    estimator = experienced()
    told = estimator.estimate(Work(prompt_tokens=1000, cached_tokens=900, output_tokens=1), ())
    assert told == pytest.approx(PROMPT_JOULES + 1.0)
    for _ in range(400):
        estimator.finished([prompt(1000, cached=750), prompt(400, cached=300)])
    usual = estimator.estimate(Work(prompt_tokens=1000, output_tokens=1), ())
    assert usual == pytest.approx(PROMPT_JOULES + PROMPT_TOKEN_JOULES * 250, rel=1e-3)


def test_the_price_is_that_of_the_server_that_answered() -> None:
    """Two servers on one node: the instance tells whose answer it is; without it there is no figure."""
    estimator = experienced()
    dear = engine_at(10.0, "f", "other")
    estimator.observe(snapshot_of(10 * SECOND, engine_at(10.0), dear))
    work = Work(prompt_tokens=100, output_tokens=1)
    assert estimator.estimate(replace(work, instance="i"), ()) == pytest.approx(PROMPT_JOULES + 1.0)
    assert estimator.estimate(replace(work, instance="other"), ()) is None
    assert estimator.estimate(work, ()) is None


def test_replicas_of_one_server_have_a_price_together() -> None:
    """Which of them answered is not known, and they do the same."""
    estimator = experienced()
    for half_seconds in range(21):
        seconds = half_seconds / 2
        pair = (engine_at(seconds), engine_at(seconds, "f", "i"))
        estimator.observe(snapshot_of(half_seconds * SECOND // 2, *pair))
    estimator.finished([replace(prompt(500), engine="f")])
    joules = estimator.estimate(Work(prompt_tokens=100, output_tokens=11, instance="i"), ())
    assert joules == pytest.approx(PROMPT_JOULES + 1.0 + 10 * JOULES_A_TOKEN)


def test_an_old_price_is_none() -> None:
    """After an hour another load and another clock are as likely as not."""
    estimator = experienced()
    later_ns = 10 * SECOND + MAX_AGE_NS + 100 * SECOND
    totals = engine_at(10.0)
    estimator.observe(snapshot_of(later_ns, totals))
    assert estimator.estimate(Work(prompt_tokens=100, output_tokens=11), ()) is None


def test_a_short_pause_keeps_the_price() -> None:
    """An engine that was idle for a minute costs what it cost before."""
    estimator = experienced()
    for seconds in range(11, 300):
        idle = replace(engine_at(10.0), attributed_joules={("GPU-e", "decode"): 10.0 * 50})
        estimator.observe(snapshot_of(seconds * SECOND, idle))
    joules = estimator.estimate(Work(prompt_tokens=100, output_tokens=11), ())
    assert joules == pytest.approx(PROMPT_JOULES + 1.0 + 10 * JOULES_A_TOKEN, rel=0.02)


def test_totals_that_begin_anew_are_not_subtracted() -> None:
    """Lower totals than before are another account: the price holds until the new one says something."""
    estimator = experienced()
    estimator.observe(snapshot_of(11 * SECOND, engine_at(0.5)))
    joules = estimator.estimate(Work(prompt_tokens=100, output_tokens=11), ())
    assert joules == pytest.approx(PROMPT_JOULES + 1.0 + 10 * JOULES_A_TOKEN)


def test_the_line_of_prompts_never_slopes_down() -> None:
    """Accounts of one length, or odd ones, give a price by token instead of a nonsensical line."""
    price = PromptPrice()
    assert price.joules_of(10) is None
    for _ in range(3):
        price = price.with_request(prompt(100))
    assert price.joules_of(100) == pytest.approx(PROMPT_JOULES + 1.0)
    odd = price.with_request(replace(prompt(1000), prefill_joules=0.1))
    assert (odd.joules_of(2000) or 0.0) > (odd.joules_of(10) or 0.0) > 0
    for useless in (prompt(100, cached=100), prompt(100, complete=False), prompt(100, first_token_ns=None)):
        assert price.with_request(useless) is price
