"""Where steps lie on the clock, stage by stage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.attribution.steps import PlacedStep, Segment, StageClock, StepBlock, StepLog
from joulescope.model import EnergyInterval, StepDone


def test_one_stage_runs_until_its_output() -> None:
    """A step begins when it was dispatched or, if that is later, when the one before was done."""
    clock = StageClock(1, 0)
    assert clock.place(5, 20, continued=False) == ([(5, 20)], 15)
    assert clock.place(10, 30, continued=False) == ([(20, 30)], 10)
    assert clock.first_free_ns == 30


def test_the_wait_of_a_running_request_is_its_steps() -> None:
    """Between two steps of one request the GPU waits for that request's host work."""
    clock = StageClock(1, 0)
    clock.place(0, 20, continued=False)
    assert clock.place(26, 40, continued=True) == ([(20, 40)], 14)
    assert clock.place(50, 60, continued=False) == ([(50, 60)], 10)


def test_a_step_alone_passes_through_the_stages() -> None:
    """Two stages share the time of a step that nothing delays."""
    spans, busy_ns = StageClock(2, 0).place(10, 50, continued=False)
    assert spans == [(10, 30), (30, 50)]
    assert busy_ns == 20


def test_stages_work_on_different_steps_at_once() -> None:
    """With several steps in flight, outputs come one stage time apart, and so do the stages' stretches."""
    clock = StageClock(2, 0)
    clock.place(0, 40, continued=False)
    spans, busy_ns = clock.place(0, 60, continued=False)
    assert spans == [(20, 40), (40, 60)]
    assert busy_ns == 20


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 100), st.booleans()), min_size=1, max_size=20),
)
def test_stretches_of_a_stage_never_overlap(stages: int, moves: list[tuple[int, int, bool]]) -> None:
    """Whatever the instants: on each stage one step follows the other, and each has some time."""
    clock = StageClock(stages, 0)
    free = [0] * stages
    ready_ns = output_ns = 0
    for wait_ns, length_ns, continued in moves:
        ready_ns = ready_ns + wait_ns
        output_ns = max(output_ns, ready_ns) + length_ns
        spans, busy_ns = clock.place(ready_ns, output_ns, continued)
        assert busy_ns >= 1
        for stage, (start_ns, end_ns) in enumerate(spans):
            assert free[stage] <= start_ns < end_ns
            free[stage] = end_ns


def placed(*spans: tuple[int, int, int]) -> list[PlacedStep]:
    """Steps of one request, by the begin and end of their span and the time that the GPU worked on them."""
    one = np.ones(1, dtype=np.int64)
    return [
        PlacedStep(
            StepDone("e", number, begin, begin, end, end, [1], one, one, one),
            np.zeros(1, dtype=np.int64),
            [(begin, end)],
            busy,
        )
        for number, (begin, end, busy) in enumerate(spans)
    ]


def segment(steps: list[PlacedStep], start_ns: int, end_ns: int) -> Segment:
    log = StepLog(lambda block: None)
    for step in steps:
        log.add(step)
    (found,) = log.overlapping(EnergyInterval("g", start_ns, end_ns, 1), 0)
    return found


def test_the_gpu_waits_first_and_then_works() -> None:
    """An interval that ends in a step's wait holds none of its work; the next one holds all of it."""
    steps = [(0, 100, 100), (100, 200, 40)]
    before, after = segment(placed(*steps), 0, 150), segment(placed(*steps), 150, 200)
    assert before.parts.tolist() == [1.0, 0.0]
    assert before.waited_seconds.tolist() == pytest.approx([0.0, 50e-9])
    assert after.parts.tolist() == [1.0]
    assert after.waited_seconds.tolist() == pytest.approx([10e-9])


def test_engines_that_share_a_gpu_take_turns() -> None:
    """Until another engine's step was done the GPU worked on that one; nobody is waited for."""
    found = segment(placed((0, 100, 100), (100, 200, 100)), 0, 200)
    found.take_turns(np.array([30, 150, 400]))
    assert found.block.busy_ns.tolist() == [70, 50]
    assert found.block.seconds.tolist() == pytest.approx([70e-9, 50e-9])
    assert found.parts.tolist() == [1.0, 1.0]
    assert not found.waited_seconds.any()


def test_a_step_with_a_price_keeps_its_time() -> None:
    """What an earlier interval was divided by is not changed by what a later one knows."""
    found = segment(placed((0, 100, 100), (100, 200, 100)), 0, 200)
    found.block.priced = 1
    found.take_turns(np.array([30, 150]))
    assert found.block.busy_ns.tolist() == [100, 50]


def test_a_block_is_columns() -> None:
    """Request by request, step after step."""
    block = StepBlock(placed((0, 10, 10), (10, 30, 20)))
    assert len(block) == 2
    assert block.offsets.tolist() == [0, 1, 2]
    assert block.columns(1, 2).seconds.tolist() == pytest.approx([20e-9])
