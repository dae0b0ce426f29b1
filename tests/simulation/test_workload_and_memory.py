"""Clients and KV memory of the simulation."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.simulation.kv_cache import KvCache
from joulescope.simulation.workload import CHAT, MIXED, Workload

SECOND = 1_000_000_000


def test_arrivals_are_poisson_at_the_rate_asked_for() -> None:
    """Gaps average to 1/rate and scatter as exponential gaps do (standard deviation equals the mean)."""
    arrivals = [plan.arrival_ns / SECOND for plan in islice(Workload(20.0, 0, seed=2), 4000)]
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 20, rel=0.06)
    assert deviation == pytest.approx(mean, rel=0.08)


def test_classes_come_in_their_shares_with_their_lengths() -> None:
    """Every class is there as often as its weight says, with prompts around its median and unique ids."""
    plans = list(islice(Workload(20.0, 0, seed=2), 4000))
    assert len({plan.request_id for plan in plans}) == len(plans)
    for kind in MIXED:
        mine = [plan for plan in plans if plan.kind == kind.name]
        assert len(mine) / len(plans) == pytest.approx(kind.weight, rel=0.12)
        prompts = sorted(plan.prompt_tokens - plan.prefix_tokens for plan in mine)
        assert prompts[len(prompts) // 2] == pytest.approx(kind.prompt_median, rel=0.12)
        assert all(plan.request_id.startswith(plan.external_id) for plan in mine)


def test_prompts_fit_the_model() -> None:
    """Lengths are cut at the limit, prefix included, and nobody asks for nothing."""
    plans = list(islice(Workload(20.0, 0, classes=MIXED, seed=2, max_prompt_tokens=1000), 500))
    assert all(1 <= plan.prompt_tokens <= 1000 for plan in plans)
    assert all(plan.output_tokens >= 1 for plan in plans)


def test_a_rate_of_zero_is_refused() -> None:
    """No arrivals at all would hang whoever waits for the first; the error names the argument."""
    with pytest.raises(ValueError, match="rate_per_second"):
        Workload(0.0, 0, classes=(CHAT,))


def test_a_kept_prefix_is_found_until_its_place_is_needed() -> None:
    """A prefix outlives its request, is not evicted while used, and goes when memory is short."""
    cache = KvCache(160, block_tokens=16)
    assert cache.take(4)
    assert cache.keep("p", 48) == 3
    assert cache.hit_tokens("p", 1000) == 48
    assert cache.hit_tokens("p", 47) == 32
    assert not cache.take(7)
    cache.release("p")
    cache.give_back(1)
    assert cache.usage_ratio == 0.0
    assert cache.hit_tokens("p", 1000) == 48
    assert cache.take(10)
    assert cache.hit_tokens("p", 1000) == 0


ACTIONS = st.lists(st.tuples(st.sampled_from(["take", "give", "keep", "use", "release"]), st.integers(0, 9)))


@given(ACTIONS)
def test_blocks_are_neither_made_nor_lost(actions: list[tuple[str, int]]) -> None:
    """Through any sequence of calls as the scheduler makes them, blocks in use and free ones are all."""
    cache = KvCache(320, block_tokens=16)
    private, users = 0, dict.fromkeys(("a", "b"), 0)
    for action, amount in actions:
        name = "ab"[amount % 2]
        if action == "take" and cache.take(amount):
            private += amount
        elif action == "give":
            cache.give_back(min(amount, private))
            private -= min(amount, private)
        elif action == "keep" and private >= 3:
            moved = cache.keep(name, 48)
            private -= moved
            users[name] += bool(moved)
        elif action == "use" and cache.hit_tokens(name, 48):
            cache.use(name)
            users[name] += 1
        elif action == "release" and users[name]:
            cache.release(name)
            users[name] -= 1
        in_use = private + sum(3 for name in users if users[name])
        assert cache.free_blocks == cache.total_blocks - in_use
        assert 0 <= cache.free_blocks <= cache.total_blocks
