"""``joulescope diagnose``: why tokens cost more, or less, in one window than in another."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from joulescope.cli.diagnose_text import rendered
from joulescope.cli.minutes_source import SOURCES, read_minutes
from joulescope.errors import MinuteError
from joulescope.insight.diagnosis.diagnosis import diagnose
from joulescope.insight.diagnosis.drawing import draw
from joulescope.insight.diagnosis.told import told
from joulescope.minute_model import EngineMinute
from joulescope.units import SECONDS_BY_UNIT

_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def _span(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """A stretch of time in seconds."""
    if text is None:
        return None
    found = _SPAN.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0.0:
        raise click.BadParameter(f"{text!r} is no stretch of time such as 10m, 1h or 1d")
    return float(found[1]) * SECONDS_BY_UNIT[found[2]]


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="[B]", required=False)
@click.option(
    "--last",
    callback=_span,
    metavar="10m",
    help="With A alone: the window that is looked at is its last so long.  [default: 10m]",
)
@click.option(
    "--before",
    callback=_span,
    metavar="1h",
    help="With A alone: it is compared with as long a window, so long before it.  [default: 1h]",
)
@click.option("--engine", help="Label of the engine, where a window tells of several.")
@click.option(
    "--closed-loop/--open-loop",
    "closed_loop",
    default=None,
    help="Whether clients wait for their answers before they send more, as in a load test with a fixed "
    "concurrency: load is then their number, not the requests a second.  [default: as the windows look]",
)
@click.option(
    "--image",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the waterfall here: png, svg or pdf.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the diagnosis as JSON.")
def command(
    a: str,
    b: str | None,
    last: float | None,
    before: float | None,
    engine: str | None,
    closed_loop: bool | None,
    image: Path | None,
    as_json: bool,
) -> None:
    """Divide the change of joules per token from window A to window B among its causes.

    A and B are {sources}, each with an optional @BEGIN..END. With A alone its last minutes are compared with
    earlier ones, as of a running sidecar: joulescope diagnose http://localhost:5685 --last 10m --before 1h.

    The parts sum to the change. A cause that is not beyond chance is drawn, and not named.
    """
    if b is not None and (last is not None or before is not None):
        raise click.UsageError("--last and --before go with one source; give B, or them")
    if b is None:
        old, new, names = _of_one(a, last or 600.0, before or 3600.0)
    else:
        old, new, names = read_minutes(a), read_minutes(b), ("A", "B")
    found = diagnose(old, new, engine=engine, names=names, closed_loop=closed_loop)
    if image is not None:
        draw(found, image)
    if as_json:
        click.echo(json.dumps(told(found), allow_nan=False))
    else:
        Console(highlight=False, soft_wrap=False).print(rendered(found))


command.help = (command.help or "").format(sources=SOURCES)


def _of_one(
    source: str, last: float, before: float
) -> tuple[Sequence[EngineMinute], Sequence[EngineMinute], tuple[str, str]]:
    """Two windows of one source."""
    minutes = read_minutes(source)
    end = max(minute.end_wall_seconds for minute in minutes)
    new = [each for each in minutes if each.start_wall_seconds >= end - last]
    old = [each for each in minutes if end - before - last <= each.start_wall_seconds < end - before]
    if not old:
        first = min(minute.start_wall_seconds for minute in minutes)
        raise MinuteError(
            f"{source}: no minute begins {_told(before + last)} to {_told(before)} before the last one's "
            f"end; it tells of {_told(end - first)} in all. Give a shorter --before"
        )
    return old, new, ("before", "now")


def _told(seconds: float) -> str:
    return f"{seconds / 60.0:.0f} min"
