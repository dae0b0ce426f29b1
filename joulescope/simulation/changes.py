"""Changes in the middle of a run: what a regression looks like, and what only looks like one.

Some make the same work cost more (slower kernels, a lost prefix cache, lower clocks, a slower host, a
hungrier GPU), some change the work (load, mix). An index of efficiency has to tell the two apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from joulescope.simulation.parts import World
from joulescope.simulation.workload import SUMMARISE, PlannedRequest, RequestClass, Workload
from joulescope.units import ns_from_seconds


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of change: what it says, its usual size, and the least and the largest that make sense."""

    meaning: str
    usual: float
    least: float = 0.01
    largest: float = 100.0


BURST_PERIOD_NS = 30 * 10**9
"""From the begin of one burst of arrivals to that of the next, where they come in bursts."""

KINDS = {
    "kernels": Kind("kernels take so many times the time and the energy", 1.2),
    "power": Kind("the GPU draws so many times the power for the same work", 1.2),
    "cache": Kind("so large a part of the prefix-cache hits is lost", 1.0, 0.0, 1.0),
    "clocks": Kind("arithmetic and memory run at such a part of their speed", 0.7, 0.05, 1.0),
    "cap": Kind("the power limit falls to such a part", 0.6, 0.3, 1.0),
    "host": Kind("the engine's own work between kernels takes so many times the time", 3.0),
    "load": Kind("so many times the requests arrive", 2.0),
    "mix": Kind("so large a part of the requests has long prompts", 0.5, 0.0, 1.0),
    "acceptance": Kind("drafted tokens are right such a part as often", 0.5, 0.0, 1.0),
    "duty": Kind("as many requests arrive within such a part of the time", 0.5, 0.01, 1.0),
}
"""All kinds by name."""


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """One change, some time after the start of the run."""

    kind: str
    size: float
    after_seconds: float

    @classmethod
    def parse(cls, text: str) -> PlannedChange:
        """``KIND@SECONDS`` or ``KIND=SIZE@SECONDS``.

        Raises:
            ValueError: it is not of that form, the kind is unknown, or the size makes no sense.
        """
        match = re.fullmatch(r"([a-z]+)(?:=(\d+(?:\.\d+)?))?@(\d+(?:\.\d+)?)", text)
        if match is None:
            raise ValueError(f"{text!r} is not KIND@SECONDS or KIND=SIZE@SECONDS, as in kernels=1.2@60")
        kind = KINDS.get(match[1])
        if kind is None:
            raise ValueError(f"{match[1]!r} is no kind of change; there are {', '.join(KINDS)}")
        size = kind.usual if match[2] is None else float(match[2])
        if not kind.least <= size <= kind.largest:
            raise ValueError(
                f"{match[1]}={size:g} is out of range: {kind.meaning}; {kind.least:g} to {kind.largest:g}"
            )
        return cls(match[1], size, float(match[3]))


def changed_world(world: World, change: PlannedChange) -> World:
    """The world after a change; the same if it only changes what clients ask for."""
    change_it = _OF_WORLD.get(change.kind)
    return world if change_it is None else change_it(world, change.size)


def _kernels(world: World, size: float) -> World:
    hardware = world.hardware
    slower = replace(
        hardware,
        bytes_per_second=hardware.bytes_per_second / size,
        flops_per_second=hardware.flops_per_second / size,
        joules_per_byte=hardware.joules_per_byte * size,
        joules_per_flop=hardware.joules_per_flop * size,
    )
    return replace(world, hardware=slower)


def _power(world: World, size: float) -> World:
    hardware, runtime = world.hardware, world.runtime
    hungrier = replace(
        hardware,
        joules_per_byte=hardware.joules_per_byte * size,
        joules_per_flop=hardware.joules_per_flop * size,
        active_watts=hardware.active_watts * size,
        idle_watts=hardware.idle_watts * size,
        gap_watts=None if hardware.gap_watts is None else hardware.gap_watts * size,
        power_limit_watts=hardware.power_limit_watts * max(size, 1.0),  # else it would be slower too
    )
    return replace(
        world, hardware=hungrier, runtime=replace(runtime, sequence_joules=runtime.sequence_joules * size)
    )


def _clocks(world: World, size: float) -> World:
    hardware = world.hardware
    slower = replace(
        hardware,
        clock_ratio=hardware.clock_ratio * size,
        bytes_per_second=hardware.bytes_per_second * size,
        flops_per_second=hardware.flops_per_second * size,
    )
    return replace(world, hardware=slower)


def _cap(world: World, size: float) -> World:
    limit_watts = world.hardware.power_limit_watts * size
    return replace(world, hardware=replace(world.hardware, power_limit_watts=limit_watts))


def _host(world: World, size: float) -> World:
    runtime = world.runtime
    slower = replace(
        runtime,
        step_seconds=runtime.step_seconds * size,
        schedule_seconds=runtime.schedule_seconds * size,
        update_seconds=runtime.update_seconds * size,
        prepare_seconds=runtime.prepare_seconds * size,
        host_seconds_per_sequence=runtime.host_seconds_per_sequence * size,
    )
    return replace(world, runtime=slower)


_OF_WORLD: dict[str, Callable[[World, float], World]] = {
    "kernels": _kernels,
    "power": _power,
    "clocks": _clocks,
    "cap": _cap,
    "host": _host,
}


def requests(
    rate_per_second: float,
    start_ns: int,
    *,
    classes: Sequence[RequestClass],
    seed: int = 0,
    max_prompt_tokens: int = 30_000,
    changes: Sequence[PlannedChange] = (),
) -> Iterator[PlannedRequest]:
    """What clients ask for, in the order of arrival; see :class:`Workload`. Endless.

    From each change of what is asked for on, arrivals are a new stream.
    """
    asked = sorted(
        (change for change in changes if change.kind not in _OF_WORLD), key=lambda each: each.after_seconds
    )
    lost, duty, first, begin_ns = 0.0, 1.0, 1, start_ns
    for at, change in enumerate([None, *asked]):
        if change is not None and change.kind == "load":
            rate_per_second *= change.size
        elif change is not None and change.kind == "mix":
            classes = with_long_prompts(classes, change.size)
        elif change is not None and change.kind == "acceptance":
            classes = [replace(kind, acceptance=kind.acceptance * change.size) for kind in classes]
        elif change is not None and change.kind == "duty":
            duty = change.size
        elif change is not None:
            lost = change.size
        end_ns = start_ns + ns_from_seconds(asked[at].after_seconds) if at < len(asked) else None
        stream = Workload(
            rate_per_second,
            begin_ns,
            classes=classes,
            # What holds from the start on is no new stream: the same clients, who ask for something else.
            seed=seed + sum(1 for each in asked[:at] if each.after_seconds > 0.0),
            max_prompt_tokens=max_prompt_tokens,
            first_number=first,
        )
        for plan in _in_bursts(stream, begin_ns, duty):
            if end_ns is not None and plan.arrival_ns >= end_ns:
                begin_ns = end_ns
                break
            first = plan.number + 1
            # Spread evenly: of every hundred requests, so many find nothing.
            yield replace(plan, prefix="") if plan.number * 37 % 100 < 100 * lost else plan


def _in_bursts(plans: Iterable[PlannedRequest], begin_ns: int, duty: float) -> Iterator[PlannedRequest]:
    """The same requests, crowded into the first part of each period."""
    for plan in plans:
        periods, rest_ns = divmod(plan.arrival_ns - begin_ns, BURST_PERIOD_NS)
        at_ns = begin_ns + periods * BURST_PERIOD_NS + int(rest_ns * duty)
        yield replace(plan, arrival_ns=at_ns) if duty < 1.0 else plan


def with_long_prompts(classes: Sequence[RequestClass], part: float) -> tuple[RequestClass, ...]:
    """The classes with such a part of all requests as summaries, whose prompts are long."""
    total = sum(kind.weight for kind in classes)
    others = [replace(kind, weight=kind.weight / total * (1.0 - part)) for kind in classes]
    return (*others, replace(SUMMARISE, name="long", weight=part))


class Upheaval:
    """Applies changes of the world as a run comes to their time.

    Args:
        become: takes the world as it is from then on.
        start_ns: from when on ``after_seconds`` counts.
    """

    def __init__(
        self, world: World, changes: Sequence[PlannedChange], become: Callable[[World], None], start_ns: int
    ) -> None:
        self._world = world
        self._become = become
        self._left = sorted(
            (start_ns + ns_from_seconds(change.after_seconds), at, change)
            for at, change in enumerate(changes)
            if change.kind in _OF_WORLD
        )

    def next_ns(self, until_ns: int) -> int:
        """How far the run may go, of ``until_ns``, before :meth:`pass_time` has to be called again."""
        return min(until_ns, self._left[0][0]) if self._left else until_ns

    def pass_time(self, now_ns: int) -> None:
        """Applies what is due."""
        while self._left and self._left[0][0] <= now_ns:
            self._world = changed_world(self._world, self._left.pop(0)[2])
            self._become(self._world)
