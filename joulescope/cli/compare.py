"""``joulescope compare``: joules, watts and times of several runs side by side, at the same load."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table as RichTable

from joulescope.cli.compare_sources import Reading, only, read_sources, renamed
from joulescope.errors import ComparisonError
from joulescope.insight.compare.compare import compare
from joulescope.insight.compare.figures import FIGURES
from joulescope.insight.compare.imports.fields import Skipped
from joulescope.insight.compare.match import Wish, parse_wish
from joulescope.insight.compare.sides import sides_of
from joulescope.insight.compare.tables import Table, tables_of, turned, width
from joulescope.insight.compare.values import Comparison
from joulescope.insight.compare.written import as_csv, as_json, as_markdown, remarks

MOST_SIDES = 24
"""More than these cannot be read in a table; a leaderboard has hundreds."""
_QUANTILES = tuple(name for name in FIGURES if name.startswith(("tpot_p", "itl_p", "ttft_p", "e2e_p")))
MOST_TURNED = 6
"""Rows that become columns where there is not room enough."""
_WIDTH = 220
"""Of tables that go to a file or a pipe."""


def _wishes(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[Wish, ...]:
    return tuple(parse_wish(text) for text in texts)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="[NAME=]SOURCE...")
@click.option(
    "--match",
    "wishes",
    multiple=True,
    callback=_wishes,
    metavar="FIGURE[=VALUE,...]",
    help="What the sides are brought to: batch, itl=20ms, ttft_p90=500ms, e2e=5s; may be repeated.  "
    "[default: batch, else itl]",
)
@click.option("--by", type=click.Choice(["task"]), help="One side for each task class.")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only requests of this task class.")
@click.option(
    "--only", "words", multiple=True, metavar="WORD", help="Only sides with WORD in name, model, GPU, …."
)
@click.option(
    "--show",
    multiple=True,
    type=click.Choice(_QUANTILES),
    metavar="FIGURE",
    help="A quantile too: ttft_p90, ….",
)
@click.option("--points", is_flag=True, help="Every operating point too.")
@click.option("--json", "form", flag_value="json", help="Print JSON (joules, watts, seconds).")
@click.option("--csv", "form", flag_value="csv", help="Print CSV: every side, point and match.")
@click.option("--markdown", "form", flag_value="markdown", help="Print Markdown.")
@click.option("--image", type=click.Path(dir_okay=False, path_type=Path), help="Draw it: .png, .svg or .pdf.")
def command(
    sources: tuple[str, ...],
    wishes: tuple[Wish, ...],
    by: str | None,
    tasks: tuple[str, ...],
    words: tuple[str, ...],
    show: tuple[str, ...],
    points: bool,
    form: str | None,
    image: Path | None,
) -> None:
    """Compare runs: J/token, J/request, W, throughput and latency, at the same batch or latency.

    A SOURCE is a trace, a ledger, a file of minutes or a running sidecar, with an optional span
    (@BEGIN..END); or results of the ML.ENERGY benchmark, of `vllm bench serve --save-result`, or of GuideLLM,
    as a file or a folder. The first side is what the others are held against. See docs/compare.md.
    """
    skipped = Skipped()
    quantiles = bool(show) or any(wish.figure in _QUANTILES for wish in wishes)
    reading = Reading(by_task=by == "task", tasks=tasks, quantiles=quantiles)
    found = only(renamed(read_sources(sources, reading, skipped)), words)
    if len(found) > MOST_SIDES and form != "csv":
        raise ComparisonError(
            f"{len(found)} sides are too many for a table; choose with --only MODEL --only GPU, or take --csv"
        )
    comparison = compare(sides_of(found), wishes, show=show, skipped=skipped.lines())
    if image is not None:
        from joulescope.insight.compare.picture import draw

        draw(comparison, image)
    _PRINTERS[form](comparison, points)


def _print_text(comparison: Comparison, points: bool) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    for table in tables_of(comparison, points=points):
        narrow = width(table) > console.width and len(table.rows) <= MOST_TURNED
        console.print(_rich(turned(table) if narrow else table))
        console.print()
    lines = remarks(comparison)
    if lines:
        console.print("Before you compare:", style="bold")
    for line in lines:
        console.print(f"• {line}", markup=False, soft_wrap=True)


def _rich(table: Table) -> RichTable:
    made = RichTable(
        title=table.title, title_justify="left", title_style="bold", header_style="", show_edge=False
    )
    for place, heading in enumerate(table.headings):
        made.add_column(heading, justify="right" if place else "left", no_wrap=False)
    for row in table.rows:
        made.add_row(*map(_escaped, row))
    return made


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")


def _print_json(comparison: Comparison, points: bool) -> None:
    click.echo(json.dumps(as_json(comparison), indent=2, allow_nan=False))


def _print_csv(comparison: Comparison, points: bool) -> None:
    click.echo(as_csv(comparison), nl=False)
    _warn(remarks(comparison))


def _print_markdown(comparison: Comparison, points: bool) -> None:
    click.echo(as_markdown(comparison, points=points), nl=False)


def _warn(lines: Sequence[str]) -> None:
    """On standard error, where the output is for programs that cannot take it."""
    for line in lines:
        click.echo(f"note: {line}", err=True)


_PRINTERS: dict[str | None, Callable[[Comparison, bool], None]] = {
    None: _print_text,
    "json": _print_json,
    "csv": _print_csv,
    "markdown": _print_markdown,
}
