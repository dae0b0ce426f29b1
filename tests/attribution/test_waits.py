"""When requests waited: until their first step, and pushed out of the KV cache."""

from __future__ import annotations

from joulescope.attribution.pauses import MAX_PAUSES, Pauses
from joulescope.hook import wire
from joulescope.model import FinishedRequest
from joulescope.replay import Replay
from tests import worlds
from tests.worlds import SECOND, end, hello, start, step


def finished(*parts: list[wire.AnyRecord], until_ns: int = 9 * SECOND) -> dict[str, FinishedRequest]:
    records = worlds.by_time([hello()], *parts, worlds.samples(until_ns, 300.0))
    return {request.request_id: request for request in Replay(records)}


def test_a_request_waits_until_the_step_that_takes_it_in_begins() -> None:
    """The second comes while the first runs and is taken in later; its first token comes at the output."""
    done = finished(
        [start(1, SECOND), start(2, SECOND)],
        [step(0, SECOND, 2 * SECOND, [1]), step(1, 2 * SECOND, 3 * SECOND, [1, 2], sampled=[1, 0])],
        [step(2, 3 * SECOND, 4 * SECOND, [2]), end(1, 3 * SECOND, 1), end(2, 4 * SECOND, 2)],
    )
    assert (done["r1"].first_step_ns, done["r2"].first_step_ns) == (SECOND, 2 * SECOND)
    assert (done["r1"].first_token_ns, done["r2"].first_token_ns) == (2 * SECOND, 4 * SECOND)
    assert (done["r1"].pauses_ns, done["r2"].pauses_ns) == ((), ())


def test_a_request_that_never_ran_has_no_first_step() -> None:
    """Given up in the queue: it waited all its life."""
    done = finished(
        [start(1, SECOND), start(2, SECOND)],
        [step(0, SECOND, 2 * SECOND, [1], sampled=[1]), end(1, 2 * SECOND, 0)],
        [end(2, 2 * SECOND, reason="abort")],
    )
    assert done["r2"].first_step_ns is None


def test_a_pause_lasts_from_the_preempting_step_to_the_resuming_one() -> None:
    """Twice out and twice back, the second time in a step that came together with others."""
    done = finished(
        [start(1, SECOND), start(2, SECOND)],
        [
            step(0, SECOND, 2 * SECOND, [1], context=[0], scheduled=[10], sampled=[1]),
            step(1, 2 * SECOND, 3 * SECOND, [2], context=[0], scheduled=[10], preempted=[1]),
            step(2, 3 * SECOND, 4 * SECOND, [1], context=[0], scheduled=[11]),
            step(3, 4 * SECOND, 5 * SECOND, [2], context=[10], scheduled=[1], preempted=[1]),
            step(4, 5 * SECOND, 6 * SECOND, [2], context=[11], scheduled=[1]),
            step(5, 6 * SECOND, 7 * SECOND, [2, 1], context=[12, 0], scheduled=[1, 11]),
            step(6, 7 * SECOND, 8 * SECOND, [2, 1], context=[13, 11], scheduled=[1, 1]),
        ],
        [end(1, 8 * SECOND, 6), end(2, 8 * SECOND, 6)],
    )
    assert done["r1"].pauses_ns == ((2 * SECOND, 3 * SECOND), (4 * SECOND, 6 * SECOND))
    assert (done["r1"].preemptions, done["r1"].first_step_ns) == (2, SECOND)
    assert done["r2"].pauses_ns == ()


def test_a_request_that_ends_while_it_is_out_was_out_until_then() -> None:
    """Its client hung up before it ran again."""
    done = finished(
        [start(1, SECOND), start(2, SECOND)],
        [step(0, SECOND, 2 * SECOND, [1], context=[0], scheduled=[10], sampled=[1])],
        [step(1, 2 * SECOND, 3 * SECOND, [2], context=[0], scheduled=[10], preempted=[1])],
        [end(1, 5 * SECOND, 1, reason="abort"), end(2, 5 * SECOND, 1)],
    )
    assert done["r1"].pauses_ns == ((2 * SECOND, 5 * SECOND),)


def test_pauses_are_bounded_and_leave_nothing_behind() -> None:
    """A request that is preempted without end keeps the first stretches; its slot is clear for the next."""
    pauses = Pauses()
    for number in range(MAX_PAUSES + 5):
        pauses.begin(3, 10 * number)
        pauses.begin(3, 10 * number + 1)
        pauses.end(3, 10 * number + 5)
    assert pauses.take(3, 1000) == tuple((10 * number, 10 * number + 5) for number in range(MAX_PAUSES))
    assert pauses.take(3, 1000) == ()
    assert pauses.open == {}
