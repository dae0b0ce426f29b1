"""``joulescope estimate``: what a query and a fleet cost where no meter is, and beside one where there is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from joulescope.cli.estimate_flags import Flags, parameters_of
from joulescope.cli.estimate_text import show
from joulescope.cli.minutes_source import SOURCES, read_minutes
from joulescope.errors import ConfigError
from joulescope.insight.estimate.document import to_document
from joulescope.insight.estimate.drawing import draw
from joulescope.insight.estimate.estimate import MIX, estimate
from joulescope.insight.estimate.files import write_document
from joulescope.insight.estimate.measured import measure
from joulescope.insight.estimate.parameters import check
from joulescope.insight.estimate.sensitivity import sensitivity
from joulescope.insight.estimate.told import told
from joulescope.insight.estimate.versus import versus

_DISTRIBUTION = "DISTRIBUTION"
_LENGTH = "[KIND=]DISTRIBUTION"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_OPTIONS: tuple[_Decorator, ...] = (
    click.option("--preset", multiple=True, metavar="v1|v2", help="Parameters of a version of the paper."),
    click.option(
        "--parameters",
        multiple=True,
        type=_FILE,
        metavar="FILE",
        help="YAML file of parameters, as --show prints it; what it leaves out is as in its preset.",
    ),
    click.option("--pue", metavar=_DISTRIBUTION, help="Joules of the building for a joule of the nodes."),
    click.option(
        "--node-power-ratio", metavar=_DISTRIBUTION, help="Power of a serving node, by the most it draws."
    ),
    click.option("--node-max-watts", metavar=_DISTRIBUTION, help="The most that a node draws, all of it."),
    click.option("--gpus-per-node", type=click.IntRange(min=1), help="GPUs in a node."),
    click.option("--tokens-per-second", type=float, metavar="RATE", help="Of a node, for all lengths."),
    click.option(
        "--throughput",
        metavar="FILE|SOURCE",
        help="Fit tokens per second of a node by lengths: a CSV table, results of vllm bench serve (.json), "
        "or minutes of engines.",
    ),
    click.option("--knot", multiple=True, metavar="input=N|output=N", help="Tokens where the fit may bend."),
    click.option("--input-tokens", multiple=True, metavar=_LENGTH, help="Tokens of a prompt."),
    click.option("--output-tokens", multiple=True, metavar=_LENGTH, help="Tokens of an answer."),
    click.option("--lengths", metavar="SOURCE", help="Take lengths from minutes of engines."),
    click.option("--mix", metavar="KIND=SHARE,…", help="Shares of the kinds of query."),
    click.option(
        "--trim/--no-trim", default=True, help="Whether medians leave out the tails, as the paper's do."
    ),
    click.option("--beta", type=float, help="What a fleet takes beyond its busy nodes, as a factor."),
    click.option("--queries-per-day", type=float, help="Queries of the fleet in a day."),
    click.option("--carbon", metavar=_DISTRIBUTION, help="Grams of CO₂e for a kilowatt hour."),
    click.option("--price", metavar=_DISTRIBUTION, help="Money for a kilowatt hour."),
    click.option("--currency", help="Name of that money."),
    click.option(
        "--lever",
        multiple=True,
        metavar="NAME=DISTRIBUTION",
        help="Something that divides joules by a factor.",
    ),
    click.option("--samples", type=int, help="Draws for each model and kind of query."),
    click.option("--seed", type=int, help="Of the draws: the same seed gives the same figures."),
)
"""Flags that change parameters; their names are those of the fields of :class:`Flags`."""


def _flags(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_flags
@click.option("--measured", "source", metavar="SOURCE", help="Lay minutes of engines beside the estimate.")
@click.option("--measured-pue", type=float, help="Joules of the building for a measured joule of GPUs.")
@click.option(
    "--query", default=MIX, show_default=True, help="Kind of query to lay beside what was measured."
)
@click.option("--sensitivity", "tornado", is_flag=True, help="Tell which parameter moves the median most.")
@click.option("--show", "show_only", is_flag=True, help="Print all parameters as a file, and end.")
@click.option("--image", type=click.Path(dir_okay=False, path_type=Path), help="Draw it: png, svg or pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    source: str | None,
    measured_pue: float | None,
    query: str,
    tornado: bool,
    show_only: bool,
    image: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Estimate the joules of a query from throughput, node power and overheads, where no meter is.

    The formula is that of arXiv 2509.20241. Name a preset (--preset v1 or v2), or give parameters.
    """
    parameters, notes = parameters_of(Flags(**given))
    check(parameters)
    if show_only:
        click.echo(write_document(to_document(parameters)), nl=False)
        return
    if measured_pue is not None and (source is None or not 1.0 <= measured_pue < math.inf):
        raise ConfigError("--measured-pue: it is to be 1 or above, and --measured says of what it is")
    found = estimate(parameters)
    beside = None
    if source is not None:
        measured = measure(read_minutes(source), source)
        beside = versus(found, measured, query=query, measured_pue=measured_pue)
    swings = sensitivity(parameters) if tornado else ()
    if image is not None:
        draw(found, image)
    if as_json:
        document = told(found, versus=beside, swings=swings)
        click.echo(json.dumps({**document, "notes": [*document["notes"], *notes]}, allow_nan=False))
    else:
        show(_console(), found, versus=beside, swings=swings, notes=notes)


command.epilog = (
    "DISTRIBUTION is a number, uniform(low, high), triangular(low, mode, high), lognormal(p5=…, p95=…), "
    "exponential(median=…) or empirical(FILE). SOURCE is "
    f"{SOURCES}, each with an optional @BEGIN..END. docs/estimate.md has more."
)


def _console() -> Console:
    """As wide as the terminal; wide enough for every table where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=140)
