"""Whether sides can be laid side by side: each is held against the first, and against what it says itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from joulescope.insight.compare.match import cost_figure
from joulescope.insight.compare.values import CLIENT, Side, Warn

MIX_DISTANCE = 0.1
"""Part of the requests that may be of other tasks."""
LENGTH_RATIO = 1.25
"""Mean lengths may differ by this factor."""
CACHED_DISTANCE = 0.1
FAILED_RATIO = 0.05
UNKNOWN_RATIO = 0.01
"""Part of the joules or requests of which the account may be incomplete."""
LEAST_STEADY_SECONDS = 20.0
"""A shorter steady window is unstable by the rule of ML.ENERGY's toolkit."""
LEAST_REQUESTS = 100


UNIT = "unit"
"""What output is counted in where sides count it in different things."""


def unit_of(sides: Sequence[Side]) -> str:
    """What the output of all is counted in, for headings."""
    units = {side.setup.unit for side in sides}
    return units.pop() if len(units) == 1 else UNIT


def warnings_of(sides: Sequence[Side]) -> tuple[Warn, ...]:
    """All that speaks against the comparison, the worst first: units and definitions, work, data."""
    if not sides:
        return ()
    first, others = sides[0], sides[1:]
    found = [
        Warn(code, (first.name, other.name), text)
        for code, check in _PAIRS
        for other in others
        if (text := check(first, other))
    ]
    found += [Warn(code, (side.name,), text) for side in sides for code, text in _alone(side)]
    return tuple(found)


def _unit(first: Side, other: Side) -> str:
    if first.setup.unit == other.setup.unit:
        return ""
    return f"output is counted in {first.setup.unit}s and in {other.setup.unit}s: joules by unit say nothing"


def _definition(first: Side, other: Side) -> str:
    told = [_told(side) for side in (first, other)]
    if all(each is None for each in told) or told[0] == told[1]:
        return ""
    for side, each in zip((first, other), told, strict=True):
        if each is None:
            return f"no joules are known of {side.name}: only its times can be compared"
    lacking = first if told[0] == "joules_per_unit_all" else other
    return (
        f"{lacking.name} tells joules of the whole run only, ramps and idle included: "
        "compare J by unit all in, not steady"
    )


def _told(side: Side) -> str | None:
    cost = cost_figure([side])
    return cost if any(point.value(cost) is not None for point in side.points) else None


def _divided(first: Side, other: Side) -> str:
    if first.origin.divided == other.origin.divided:
        return ""
    which = first if first.origin.divided else other
    return (
        f"joules of {which.name} are what the division charged to its requests, "
        "those of the other side what was measured of GPUs"
    )


def _method(first: Side, other: Side) -> str:
    methods = first.origin.method, other.origin.method
    if not (first.origin.divided and other.origin.divided) or methods[0] == methods[1]:
        return ""
    return f"joules were divided by {methods[0]} and by {methods[1]}, and differ by the method too"


def _tasks(first: Side, other: Side) -> str:
    if first.setup.task != other.setup.task and first.setup.task and other.setup.task:
        return f"the tasks differ: {first.setup.task} and {other.setup.task}"
    if not first.mix.tasks or not other.mix.tasks or first.setup.task:
        return ""
    names = first.mix.tasks.keys() | other.mix.tasks.keys()
    moved = {name: other.mix.tasks.get(name, 0.0) - first.mix.tasks.get(name, 0.0) for name in names}
    distance = sum(map(abs, moved.values())) / 2
    if distance <= MIX_DISTANCE:
        return ""
    most = max(moved, key=lambda name: abs(moved[name]))
    return (
        f"another mix of tasks: {distance:.0%} of the requests are of other tasks "
        f"({most or 'no task'}: {first.mix.tasks.get(most, 0):.0%} and {other.mix.tasks.get(most, 0):.0%})"
    )


def _lengths(first: Side, other: Side) -> str:
    found = []
    for what, mine, its in (
        ("prompts", first.mix.prompt_tokens, other.mix.prompt_tokens),
        ("answers", first.mix.output_units, other.mix.output_units),
    ):
        if mine and its and max(mine / its, its / mine) > LENGTH_RATIO:
            found.append(f"{what} of {mine:.0f} and {its:.0f} in the mean")
    return f"other lengths: {'; '.join(found)}" if found else ""


def _cached(first: Side, other: Side) -> str:
    mine, its = first.mix.cached_ratio, other.mix.cached_ratio
    if mine is None or its is None or abs(mine - its) <= CACHED_DISTANCE:
        return ""
    return f"the prefix cache gave {mine:.0%} and {its:.0%} of the prompts' tokens"


def _clock(first: Side, other: Side) -> str:
    if first.origin.clock == other.origin.clock:
        return ""
    client = first if first.origin.clock == CLIENT else other
    return (
        f"times and batch of {client.name} are those that its client saw, network and queue included; "
        "those of the other side are the engine's"
    )


_PAIRS: tuple[tuple[str, Callable[[Side, Side], str]], ...] = (
    ("unit", _unit),
    ("definition", _definition),
    ("divided", _divided),
    ("method", _method),
    ("tasks", _tasks),
    ("lengths", _lengths),
    ("cached", _cached),
    ("clock", _clock),
)


def _alone(side: Side) -> Iterator[tuple[str, str]]:
    """What a side says against itself."""
    quality = side.quality
    if quality.unattributed_ratio > UNKNOWN_RATIO:
        yield (
            "incomplete",
            f"{quality.unattributed_ratio:.1%} of the joules are of work that was not seen; "
            "they are in J by unit all in only",
        )
    if quality.unmeasured_ratio > UNKNOWN_RATIO:
        yield "incomplete", f"the joules of {quality.unmeasured_ratio:.1%} of the requests are not known"
    if quality.failed_ratio > FAILED_RATIO:
        yield (
            "failed",
            f"{quality.failed_ratio:.0%} of the requests were aborted or failed: "
            "they cost joules and shorten the answers",
        )
    seconds = quality.steady_seconds
    if seconds is not None and seconds < LEAST_STEADY_SECONDS:
        yield (
            "short",
            f"only {seconds:.0f} s of work: less than {LEAST_STEADY_SECONDS:.0f} s are not stable",
        )
    if side.whole.units == 0:
        yield "few", "nothing came out in it: there is no figure by what came out"
    if 0 < side.whole.requests < LEAST_REQUESTS:
        yield "few", f"only {side.whole.requests} requests stand behind it"
    yield from (("source", remark) for remark in quality.remarks)
