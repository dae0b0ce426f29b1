"""Where steps lie on the clock, stage by stage."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from joulescope.attribution.steps import StageClock


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
