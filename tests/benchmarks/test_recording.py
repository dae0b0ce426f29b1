"""What is read from a trace, on a trace made by hand: 10 ms steps, ticks every 100 ms, 500 W."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.gpu.plan import OFF, Background, Block, Kind, Plan, injected_id
from benchmarks.gpu.recording import BlockFigures, Recording
from joulescope.hook import wire

MS = 1_000_000
STEP_MS, TICK_MS, WATTS = 10, 100, 500.0
GPU = "GPU-a"
KIND = Kind("kind", 8, 3, 1.0)
BLOCKS = (
    Block(0, "made up", 0, OFF, 0.5, 1.0),
    Block(1, "made up", 0, KIND.name, 2.0, 1.0, (0.25, 0.505)),
)
PLAN = Plan(0, Background(), (KIND,), BLOCKS, 0.5)
END_MS = 3500


class Story:
    """A trace in which one background request is computed in every step, and two come in block 1."""

    def __init__(self) -> None:
        self.injected = {2255: injected_id(1, 0), 2505: injected_id(1, 1)}
        """Milliseconds of arrival to request id; each is computed in the next three steps."""
        self.pause_ms = range(0)
        """No step runs in this stretch."""
        self.extra: list[wire.AnyRecord] = []
        self.joules_lost_at_ms = END_MS

    def records(self) -> Iterator[wire.AnyRecord]:
        yield wire.TraceHeader()
        yield wire.Gpu(gpu=GPU, power_limit_watts=700.0)
        facts = wire.EngineFacts(instance_id="i", gpus=[GPU])
        yield wire.Hello(session=1, time_ns=0, engine=facts)
        yield wire.RequestStart(session=1, request=1, request_id="js-bg-0", time_ns=0, prompt_tokens=4)
        yield from self.extra
        for at_ms in range(0, END_MS, STEP_MS // 2):
            yield from self._at(at_ms)
        yield wire.Bye(session=1, time_ns=END_MS * MS)

    def _at(self, at_ms: int) -> Iterator[wire.AnyRecord]:
        if at_ms in self.injected:
            handle = 2 + list(self.injected).index(at_ms)
            request_id = f"cmpl-{self.injected[at_ms]}-0-00000000"
            start = wire.RequestStart(
                session=1, request=handle, request_id=request_id, time_ns=at_ms * MS, prompt_tokens=8
            )
            yield start
        if at_ms % STEP_MS == 0 and at_ms not in self.pause_ms:
            yield from self._step(at_ms)
        if at_ms % (STEP_MS * 2) == 5:
            tick_ms = at_ms - at_ms % TICK_MS
            joules = WATTS * tick_ms / 1000 - (400.0 if at_ms >= self.joules_lost_at_ms else 0.0) + 1000
            yield wire.Sample(gpu=GPU, time_ns=at_ms * MS, energy_joules=joules, power_watts=WATTS)

    def _step(self, at_ms: int) -> Iterator[wire.AnyRecord]:
        inside = {
            2 + place: (at_ms - came_ms) // STEP_MS
            for place, came_ms in enumerate(self.injected)
            if came_ms < at_ms <= came_ms + 3 * STEP_MS
        }
        ages = inside.values()
        yield wire.Step(
            session=1,
            step=at_ms // STEP_MS,
            schedule_start_ns=at_ms * MS,
            schedule_end_ns=at_ms * MS,
            output_start_ns=(at_ms + STEP_MS) * MS,
            output_end_ns=(at_ms + STEP_MS) * MS,
            request=[1, *inside],
            context=[4 + at_ms // STEP_MS, *(8 + age - 1 if age else 0 for age in ages)],
            scheduled=[1, *(1 if age else 8 for age in ages)],
        )
        for handle, age in inside.items():
            if age == 2:
                yield wire.RequestEnd(
                    session=1, request=handle, time_ns=(at_ms + STEP_MS) * MS, reason="length"
                )

    def figures(self) -> list[BlockFigures]:
        return Recording(PLAN, 0, self.records()).blocks()


def test_energy_and_steps_are_those_between_ticks() -> None:
    """Edges are the first and last polls in the block that saw a tick; steps and joules lie between them."""
    off, on = Story().figures()
    assert (off.problems, on.problems) == ((), ())
    (window,) = off.windows
    # Ticks at 500, 600 .. 1500 ms are seen 5 ms later; the first inside 500..1500 is that of 505.
    assert (window.start_ns, window.end_ns) == (505 * MS, 1405 * MS)
    assert window.energy_joules == pytest.approx(450.0)
    assert window.background_steps == pytest.approx(90.0)
    assert window.background_tokens == pytest.approx(90.0)
    assert window.idle_seconds == 0.0
    assert on.windows[0].background_steps == pytest.approx(90.0)
    assert Recording(PLAN, 0, Story().records()).poll_seconds == pytest.approx(0.02)


def test_our_figures_are_those_of_the_injected_requests() -> None:
    """Attributed and marginal joules of a block are summed over its own requests, from the replay."""
    off, on = Story().figures()
    assert (off.attributed_joules, off.marginal_joules, off.requests) == (0.0, 0.0, 0)
    # 2 requests in 3 steps each, of 5 J a step, shared by two.
    assert on.requests == 2
    assert 5.0 < on.attributed_joules < 30.0
    assert 0.0 < on.marginal_joules < on.attributed_joules
    assert on.true_group_joules is None


def test_idle_time_is_seen() -> None:
    """Where no step runs the window counts idle seconds, and fewer steps."""
    story = Story()
    story.pause_ms = range(800, 900)
    (window,) = story.figures()[0].windows
    assert window.idle_seconds == pytest.approx(0.1)
    assert window.background_steps == pytest.approx(80.0)


def test_a_reset_counter_spoils_its_block_only() -> None:
    """A counter that falls inside a block makes that block unusable, not the other."""
    story = Story()
    story.joules_lost_at_ms = 1000
    off, on = story.figures()
    assert off.problems == ("the counter was reset in it",)
    assert on.problems == ()


def test_lost_records_spoil_the_block() -> None:
    """A gap in the engine's records is a reason not to use the block."""
    story = Story()
    story.extra = [wire.Gap(session=1, start_ns=600 * MS, end_ns=700 * MS)]
    assert story.figures()[0].problems == ("records were lost in it",)


def test_a_request_that_came_or_ended_outside_spoils_the_block() -> None:
    """Requests must live between the first and the last tick; one that is missing is missed."""
    story = Story()
    story.injected = {2255: injected_id(1, 0), 2885: injected_id(1, 1)}
    assert "a request was not over in time" in story.figures()[1].problems
    story.injected = {2255: injected_id(1, 0)}
    assert story.figures()[1].problems == ("1 of 2 requests came",)


def test_a_request_of_another_block_spoils_the_block() -> None:
    """An injected request that is computed outside its block taints the neighbour."""
    story = Story()
    story.injected = {1205: injected_id(1, 0), 2505: injected_id(1, 1)}
    assert story.figures()[0].problems == ("a request of another block ran in it",)


def test_a_trace_without_counter_measures_nothing() -> None:
    """No counter, no figure: the block says so."""
    recording = Recording(PLAN, 0, (r for r in Story().records() if not isinstance(r, wire.Sample)))
    assert all("no energy counter in the trace" in figures.problems for figures in recording.blocks())
