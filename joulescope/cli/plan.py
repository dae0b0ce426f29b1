"""``joulescope plan``: what an engine could serve, how fast and at how many joules, by what it did so far."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click

from joulescope.cli.minutes_source import SOURCES, read_minutes
from joulescope.cli.plan_text import plan_lines
from joulescope.insight.capacity.drawing import draw
from joulescope.insight.capacity.goals import Goal
from joulescope.insight.capacity.observed import observe
from joulescope.insight.capacity.plan import Asked, plan
from joulescope.insight.capacity.power_cap import Cap
from joulescope.insight.capacity.told import told
from joulescope.insight.capacity.what_if import PRECISIONS, WhatIf

_GOALS = {"itl": "inter_token_seconds", "ttft": "first_token_seconds"}
_GOAL = re.compile(r"(itl|ttft)(?:[-.]p(\d+(?:\.\d+)?))?\s*=(.*)")
_MOST_PERCENT = 99.5
"""Beyond, too few of the draws are left to tell."""

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_WATTS = {"W": 1.0, "kW": 1e3, "MW": 1e6}
_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)")
_Value = TypeVar("_Value")


def _quantity(text: str, units: Mapping[str, float]) -> float:
    """A positive number with one of the units.

    Raises:
        click.BadParameter: it is none.
    """
    found = _NUMBER.fullmatch(text.strip())
    if found is None or found[2] not in units or not 0.0 < float(found[1]) < math.inf:
        raise click.BadParameter(f"{text!r} is not a number above 0 with a unit ({', '.join(units)})")
    return float(found[1]) * units[found[2]]


def _pairs(text: str, keys: Mapping[str, Callable[[str], _Value]]) -> dict[str, _Value]:
    """``key=value,…``, each key once.

    Raises:
        click.BadParameter: a key is not known, or comes twice.
    """
    values: dict[str, _Value] = {}
    for part in text.split(","):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or key not in keys:
            raise click.BadParameter(
                f"{part.strip()!r} is not one of {', '.join(f'{each}=…' for each in keys)}"
            )
        if key in values:
            raise click.BadParameter(f"{key} comes twice")
        values[key] = keys[key](value)
    return values


def _goals(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[Goal, ...]:
    goals: dict[str, Goal] = {}
    for part in (part for text in texts for part in text.split(",")):
        found = _GOAL.fullmatch(part.strip())
        if found is None:
            raise click.BadParameter(
                f"{part.strip()!r} is not one of itl=…, ttft=…, which are means, or of itl-p95=…, ttft-p99=… "
                f"and so on, p1 to p{_MOST_PERCENT:g}"
            )
        name, percent, quantity = found.groups()
        if percent is not None and not 1.0 <= float(percent) <= _MOST_PERCENT:
            raise click.BadParameter(f"p{percent} is not between p1 and p{_MOST_PERCENT:g}")
        goal = Goal(_GOALS[name], _quantity(quantity, _SECONDS), None if percent is None else float(percent))
        if goal.name in goals:
            raise click.BadParameter(f"{part.partition('=')[0].strip()} comes twice")
        goals[goal.name] = goal
    return tuple(goals.values())


def _gpus(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"gpus={text} is not a whole number above 0")
    return int(text)


def _precision(text: str) -> str:
    if text not in PRECISIONS:
        raise click.BadParameter(f"precision={text} is not one of {', '.join(PRECISIONS)}")
    return text


def _what_if(text: str) -> WhatIf:
    reads: dict[str, Callable[[str], int | str | float]] = {
        "gpus": _gpus,
        "precision": _precision,
        "power-limit": lambda value: _quantity(value, _WATTS),
    }
    values = _pairs(text, reads)
    gpus, precision, limit = (values.get(key) for key in reads)
    return WhatIf(
        gpus=gpus if isinstance(gpus, int) else None,
        precision=precision if isinstance(precision, str) else None,
        power_limit_watts=limit if isinstance(limit, float) else None,
    )


def _what_ifs(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[WhatIf, ...]:
    return tuple(_what_if(text) for text in texts)


def _rate(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """A number: not-a-number is above no bound and below none, and endless requests are no rate."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of requests a second")
    return value


def _watts(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    return None if text is None else _quantity(text, _WATTS)


@click.command()
@click.argument("source")
@click.option("--engine", help="Label of the engine, where the source tells of several.")
@click.option(
    "--goal",
    "goals",
    multiple=True,
    callback=_goals,
    metavar="itl=30ms,ttft-p99=1s",
    help="Time from token to token, or to the first token, that must not be exceeded: the mean, or a "
    "percentile such as p95 or p99.",
)
@click.option(
    "--what-if",
    "what_ifs",
    multiple=True,
    callback=_what_ifs,
    metavar="gpus=2,precision=fp8,power-limit=500W",
    help="The same engine with something otherwise, laid beside; may be given several times.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0.0, min_open=True),
    callback=_rate,
    help="Requests a second to foresee.",
)
@click.option("--power-cap", callback=_watts, metavar="5kW", help="What may be drawn in the mean.")
@click.option(
    "--per", type=click.Choice(["gpu", "node", "rack"]), default="node", show_default=True, help="Of the cap."
)
@click.option("--gpus-per-node", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--nodes-per-rack", type=click.IntRange(min=1), default=4, show_default=True)
@click.option(
    "--host-watts",
    callback=_watts,
    metavar="800W",
    help="What a node draws beside its GPUs, out of the cap of a node or rack.  [default: 0 W]",
)
@click.option(
    "--image",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the frontier here: png, svg or pdf.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(
    source: str,
    engine: str | None,
    goals: tuple[Goal, ...],
    what_ifs: tuple[WhatIf, ...],
    rate: float | None,
    power_cap: float | None,
    per: str,
    gpus_per_node: int,
    nodes_per_rack: int,
    host_watts: float | None,
    image: Path | None,
    as_json: bool,
) -> None:
    """Foresee what an engine could serve, from what SOURCE tells of it.

    SOURCE is {sources}, each with an optional @BEGIN..END.

    Foreseen are joules per token, power, throughput and latency by batch and by rate of requests, what keeps
    a goal or a power cap, and what other GPUs, another precision or another power limit would change. Every
    figure has a 90 % interval; what lies beyond what was seen is marked, and what lies too far is not said.
    """
    cap = None
    if power_cap is not None:
        nodes = {"gpu": 0, "node": 1, "rack": nodes_per_rack}[per]
        cap = Cap(power_cap, per, max(nodes * gpus_per_node, 1), nodes * (host_watts or 0.0))
    observed = observe(read_minutes(source), engine)
    if cap is not None and per == "gpu":
        count = observed.service.gpu_count
        cap = Cap(power_cap * count if power_cap is not None else 0.0, per, count)
    made = plan(observed, Asked(goals, cap, what_ifs, rate))
    if image is not None:
        draw(made, image)
    if as_json:
        click.echo(json.dumps(told(made), allow_nan=False))
    else:
        for line in plan_lines(made):
            click.echo(line)


command.help = (command.help or "").format(sources=SOURCES)
