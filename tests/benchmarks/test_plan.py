"""The plan of an experiment: balanced, drawn by lot, and without overlap."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gpu.plan import (
    EDGE_SECONDS,
    EXPERIMENTS,
    OFF,
    TAIL,
    Background,
    Block,
    Experiment,
    Kind,
    Pace,
    Plan,
    block_of,
    injected_id,
    make_plan,
    pace_for,
)

SHORT, LONG = Kind("short", 16, 8, 4.0), Kind("long", 512, 64, 0.5)
BOTH = Experiment("both", (SHORT, LONG))
LATENCIES = {"short": 0.2, "long": 1.0}


def plan_of(seed: int = 1, experiment: Experiment = BOTH, **pace: float) -> Plan:
    return make_plan([experiment], LATENCIES, Pace(**pace), Background(), seed)  # type: ignore[arg-type]


def order_of(plan: Plan) -> list[list[str]]:
    """Arms by round, in their order in time."""
    rounds: dict[int, list[str]] = {}
    for block in plan.blocks:
        rounds.setdefault(block.round, []).append(block.arm)
    return list(rounds.values())


def test_every_round_holds_every_arm_once() -> None:
    """Ten rounds of three arms: each arm ten times, once a round, all blocks equally long."""
    plan = plan_of()
    assert all(sorted(arms) == [LONG.name, OFF, SHORT.name] for arms in order_of(plan))
    assert set(Counter(block.arm for block in plan.blocks).values()) == {10}
    assert len({block.length_seconds for block in plan.blocks}) == 1


def test_every_second_round_is_the_reverse_of_the_one_before() -> None:
    """Steady drift cancels: what came late in one round comes early in the next."""
    order = order_of(plan_of())
    assert all(order[number + 1] == order[number][::-1] for number in range(0, 10, 2))


def test_the_seed_decides_order_and_instants() -> None:
    """The same seed gives the same plan; over seeds every arm comes first about as often."""
    assert plan_of(7) == plan_of(7)
    firsts = Counter(arms[0] for seed in range(60) for arms in order_of(plan_of(seed))[::2])
    assert set(firsts) == {OFF, SHORT.name, LONG.name}
    assert all(70 <= count <= 130 for count in firsts.values())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(0.001, 1.2),
    st.floats(0.001, 1.2),
    st.floats(6.0, 20.0),
    st.integers(1, 12),
)
def test_nothing_overlaps_and_everything_fits(
    seed: int, short: float, long: float, block_seconds: float, rounds: int
) -> None:
    """Blocks follow each other with the gap between, and requests are over well before their block is."""
    latencies = {"short": short, "long": long}
    pace = Pace(rounds=rounds, block_seconds=block_seconds)
    plan = make_plan([BOTH], latencies, pace, Background(), seed)
    at_seconds = pace.lead_seconds
    for block in plan.blocks:
        assert block.start_seconds == pytest.approx(at_seconds)
        at_seconds = block.end_seconds + pace.gap_seconds
        assert list(block.offsets_seconds) == sorted(set(block.offsets_seconds))
        if block.arm == OFF:
            assert not block.offsets_seconds
            continue
        assert block.offsets_seconds[0] >= EDGE_SECONDS
        last_seconds = block.length_seconds - EDGE_SECONDS - TAIL * latencies[block.arm]
        assert block.offsets_seconds[-1] <= last_seconds + 1e-9
    assert plan.length_seconds == pytest.approx(at_seconds)


def test_a_kind_below_one_in_flight_never_meets_itself() -> None:
    """Two requests of such a kind are always at least a latency apart."""
    for block in (block for block in plan_of(block_seconds=20.0).blocks if block.arm == LONG.name):
        pauses = [b - a for a, b in zip(block.offsets_seconds, block.offsets_seconds[1:], strict=False)]
        assert pauses
        assert min(pauses) >= LATENCIES["long"]


def test_a_swap_uses_the_same_instants() -> None:
    """In a swap all kinds of a round are injected equally often and at the same offsets."""
    swap = Experiment("swap", (SHORT, LONG), same_instants=True)
    plan = plan_of(3, swap)
    for number in range(10):
        offsets = {b.offsets_seconds for b in plan.blocks if b.round == number and b.arm != OFF}
        assert len(offsets) == 1
        assert offsets != {()}


def test_injections_name_their_blocks() -> None:
    """Every request can be led back to its block from its id, whatever a server puts around it."""
    plan = plan_of()
    for at_seconds, request_id, kind in plan.injections():
        number = block_of(f"cmpl-{request_id}-0-1a2b3c4d")
        assert number is not None
        block: Block = plan.blocks[number]
        assert block.arm == kind.name
        assert block.start_seconds < at_seconds < block.end_seconds
    assert block_of(injected_id(12, 3456)) == 12
    assert block_of("cmpl-js-bg-17-0-1a2b3c4d") is None


def test_impossible_plans_say_why() -> None:
    """A block too short for one request, and one name for two kinds, are errors that name the kind."""
    with pytest.raises(ValueError, match="too short for requests of kind long"):
        plan_of(block_seconds=2.0)
    other = Experiment("other", (Kind("short", 1, 1, 1.0),))
    with pytest.raises(ValueError, match="two different kinds are called short"):
        make_plan([BOTH, other], LATENCIES, Pace(), Background(), 1)


def test_blocks_grow_with_the_slowest_kind() -> None:
    """A slow server gets longer blocks, so that every plan can be made; a fast one keeps the pace."""
    pace = Pace(block_seconds=7.0)
    assert pace_for(pace, {"short": 0.1, "long": 1.0}) == pace
    slow = {"short": 4.0, "long": 6.0}
    grown = pace_for(pace, slow)
    assert grown.block_seconds > TAIL * slow["long"]
    assert make_plan([Experiment("one", (SHORT,))], slow, grown, Background(), 1).blocks


def test_the_experiments_can_be_planned_together() -> None:
    """All experiments make one plan whose blocks are numbered through."""
    latencies = {kind.name: 0.1 for each in EXPERIMENTS.values() for kind in each.kinds}
    plan = make_plan(list(EXPERIMENTS.values()), latencies, Pace(), Background(), 1)
    assert [block.number for block in plan.blocks] == list(range(len(plan.blocks)))
    assert {block.experiment for block in plan.blocks} == set(EXPERIMENTS)


def test_background_streams_end_one_after_the_other() -> None:
    """The first answers have evenly spread lengths, up to the full one."""
    background = Background(streams=8, output_tokens=100)
    first = [background.first_output_tokens(stream) for stream in range(8)]
    assert first == sorted(set(first))
    assert (first[0], first[-1]) == (12, 100)
