"""``joulescope diagnose``: why tokens cost more, or less, in one window than in another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from joulescope.cli.diagnose_text import rendered
from joulescope.cli.minutes_source import SOURCES, policy_of_settings, read_minutes
from joulescope.cli.options import task_options
from joulescope.errors import MinuteError
from joulescope.insight.diagnosis.diagnosis import diagnose
from joulescope.insight.diagnosis.drawing import draw
from joulescope.insight.diagnosis.recent import BEFORE_SECONDS, LAST_SECONDS, NAMES, two_windows
from joulescope.insight.diagnosis.told import told
from joulescope.minute_model import EngineMinute
from joulescope.units import seconds_of_stretch


def _span(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """A stretch of time in seconds."""
    try:
        return None if text is None else seconds_of_stretch(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


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
@task_options
def command(
    a: str,
    b: str | None,
    last: float | None,
    before: float | None,
    engine: str | None,
    closed_loop: bool | None,
    image: Path | None,
    as_json: bool,
    **tasks: str | None,
) -> None:
    """Divide the change of joules per token from window A to window B among its causes.

    A and B are {sources}, each with an optional @BEGIN..END. With A alone its last minutes are compared with
    earlier ones, as of a running sidecar: joulescope diagnose http://localhost:5685 --last 10m --before 1h.

    The parts sum to the change. A cause that is not beyond chance is drawn, and not named.

    The flags of tasks are for traces: minutes that are made have the task classes of their sidecar.
    """
    if b is not None and (last is not None or before is not None):
        raise click.UsageError("--last and --before go with one source; give B, or them")
    policy = policy_of_settings(tasks)
    first, *others = [read_minutes(each, policy=policy) for each in (a, b) if each is not None]
    if any(tasks.values()):
        _refuse_without_tasks([first, *others], [a, b or a])
    if others:
        found = diagnose(first, *others, engine=engine, closed_loop=closed_loop)
    else:
        windows = two_windows(a, first, last or LAST_SECONDS, before or BEFORE_SECONDS)
        found = diagnose(*windows, engine=engine, names=NAMES, closed_loop=closed_loop)
    if image is not None:
        draw(found, image)
    if as_json:
        click.echo(json.dumps(told(found), allow_nan=False))
    else:
        Console(highlight=False, soft_wrap=False).print(rendered(found))


def _refuse_without_tasks(windows: Sequence[Sequence[EngineMinute]], sources: Sequence[str]) -> None:
    """Raises where tasks were to be told apart and are not, as in minutes that a sidecar made without."""
    for minutes, source in zip(windows, sources, strict=False):
        if not any(cell.task for minute in minutes for cell in minute.tasks):
            raise MinuteError(
                f"{source}: no task is told apart in it; --task-from and the like are for traces, and "
                "minutes have the task classes of the sidecar that made them"
            )


command.help = (command.help or "").format(sources=SOURCES)
