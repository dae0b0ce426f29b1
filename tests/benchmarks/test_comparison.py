"""The comparison on made-up blocks whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gpu.comparison import compare, pair_of, swaps
from benchmarks.gpu.plan import OFF, Background, Block, Experiment, Kind, Pace, make_plan
from benchmarks.gpu.recording import BlockFigures, Window

STEP_JOULES, STEP_SECONDS, SECONDS = 5.0, 0.01, 10.0
IDLE_WATTS = 100.0
COSTS = {"small": (2.0, 0.004), "large": (30.0, 0.06)}
"""Joules that a request adds, and seconds by which it lengthens steps."""
EXPERIMENT = Experiment("made up", (Kind("small", 16, 8, 8.0), Kind("large", 512, 64, 2.0)))
PLAN = make_plan([EXPERIMENT], {"small": 0.5, "large": 0.5}, Pace(block_seconds=SECONDS), Background(), 4)
BLOCKS = PLAN.blocks


def figures_of(block: Block, step_joules: float = STEP_JOULES, noise_joules: float = 0.0) -> BlockFigures:
    """A block of a closed loop: whatever requests take longer, background steps are lost."""
    count = len(block.offsets_seconds)
    joules, seconds = COSTS.get(block.arm, (0.0, 0.0))
    steps = (SECONDS - count * seconds) / STEP_SECONDS
    energy = steps * step_joules + count * joules + noise_joules
    return BlockFigures(
        block=block,
        windows=(Window("GPU-a", 0, int(SECONDS * 1e9), energy, steps, 32 * steps, 0.0),),
        attributed_joules=2 * count * joules,
        marginal_joules=0.9 * count * joules,
        true_single_joules=None,
        true_group_joules=None,
        problems=(),
    )


def test_what_a_request_adds_is_found_at_equal_background_work() -> None:
    """The added joules are those of the cost law exactly; the plain difference is far from them."""
    for result in compare(PLAN, [figures_of(block) for block in BLOCKS], IDLE_WATTS):
        joules, seconds = COSTS[result.arm]
        assert len(result.pairs) == 10
        assert result.added.value == pytest.approx(joules)
        assert result.added.half_width == pytest.approx(0.0, abs=1e-9)
        plain = joules - seconds / STEP_SECONDS * STEP_JOULES
        assert result.mean("plain_joules") == pytest.approx(plain)
        assert result.error_of("marginal_joules").value == pytest.approx(-0.1)
        assert result.mean("lost_steps_ratio") == pytest.approx(result.requests_per_block * seconds / SECONDS)
        assert result.mean("tokens_per_step_ratio") == pytest.approx(1.0)


def test_steady_drift_cancels() -> None:
    """A background that grows dearer at a steady rate leaves the mean over rounds where it was."""
    drifting = [figures_of(block, STEP_JOULES * (1 + 1e-5 * block.number)) for block in BLOCKS]
    for result in compare(PLAN, drifting, IDLE_WATTS):
        assert result.added.value == pytest.approx(COSTS[result.arm][0], rel=2e-3)
        assert result.added.half_width > 0


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """With noise in every block, about 95 % of the intervals over many seeds hold the true value."""
    held = total = 0
    for seed in range(300):
        noise = np.random.default_rng(seed).normal(0.0, 20.0, len(BLOCKS))
        blocks = [figures_of(block, noise_joules=joules) for block, joules in zip(BLOCKS, noise, strict=True)]
        for result in compare(PLAN, blocks, IDLE_WATTS):
            total += 1
            held += result.added.holds(COSTS[result.arm][0])
    assert 0.92 < held / total < 0.975


def test_idle_time_is_taken_off_at_idle_power() -> None:
    """A second of idleness in a block, drawn at idle power, changes nothing."""
    off, on = (next(block for block in BLOCKS if block.arm == arm) for arm in (OFF, "large"))
    idle = figures_of(on)
    window = idle.windows[0]
    rested = replace(window, energy_joules=window.energy_joules + IDLE_WATTS, idle_seconds=1.0)
    pair = pair_of(replace(idle, windows=(rested,)), figures_of(off), IDLE_WATTS)
    assert pair.added_joules == pytest.approx(COSTS["large"][0])


def test_gpus_of_one_engine_are_summed() -> None:
    """Two GPUs with half the energy each, and edges of their own, make up the same request."""
    off, on = (next(block for block in BLOCKS if block.arm == arm) for arm in (OFF, "large"))

    def halved(figures: BlockFigures) -> BlockFigures:
        window = figures.windows[0]
        half = replace(window, energy_joules=window.energy_joules / 2)
        return replace(figures, windows=(half, replace(half, gpu="GPU-b")))

    pair = pair_of(halved(figures_of(on)), halved(figures_of(off)), IDLE_WATTS)
    assert pair.added_joules == pytest.approx(COSTS["large"][0])


def test_unusable_blocks_are_dropped_and_counted() -> None:
    """A block with a problem leaves its pair out; one in ``off`` leaves out all pairs of its round."""
    blocks = [figures_of(block) for block in BLOCKS]
    for place, figures in enumerate(blocks):
        if (figures.block.round, figures.block.arm) in ((2, OFF), (5, "large")):
            blocks[place] = replace(figures, problems=("the counter was reset in it",))
    small, large = compare(PLAN, blocks, IDLE_WATTS)
    assert (len(small.pairs), small.dropped) == (9, {"off: the counter was reset in it": 1})
    assert len(large.pairs) == 8
    assert sum(large.dropped.values()) == 2


def test_a_silent_background_is_refused() -> None:
    """Without background steps there is nothing to compare with, and that is said."""
    off, on = (next(block for block in BLOCKS if block.arm == arm) for arm in (OFF, "large"))
    silent = replace(figures_of(off).windows[0], background_steps=0.0)
    with pytest.raises(ValueError, match="no background ran"):
        pair_of(figures_of(on), replace(figures_of(off), windows=(silent,)), IDLE_WATTS)


def test_a_swap_is_the_difference_of_two_kinds() -> None:
    """One large request in the place of a small one adds the difference of their costs."""
    (swap,) = swaps(compare(PLAN, [figures_of(block) for block in BLOCKS], IDLE_WATTS))
    assert swap.added.value == pytest.approx(COSTS[swap.given][0] - COSTS[swap.taken][0])
    assert swap.difference.value == pytest.approx(-0.1 * swap.added.value)


def test_the_error_of_the_edges_is_that_of_late_ticks() -> None:
    """Windows whose energy and steps are cut at different instants scatter as the formula says."""
    poll_seconds, watts = 0.05, STEP_JOULES / STEP_SECONDS
    errors = []
    for seed in range(200):
        late = np.random.default_rng(seed).uniform(0, poll_seconds, (len(BLOCKS), 2))
        noise = watts * (late[:, 1] - late[:, 0])
        blocks = [figures_of(block, noise_joules=joules) for block, joules in zip(BLOCKS, noise, strict=True)]
        result = compare(PLAN, blocks, IDLE_WATTS)[0]
        errors.append((result.added.value - COSTS["small"][0]) / result.edge_error_joules(poll_seconds))
    assert np.std(errors) == pytest.approx(1.0, abs=0.15)
    assert np.mean(errors) == pytest.approx(0.0, abs=0.25)
