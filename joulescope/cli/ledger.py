"""``joulescope ledger``: what a ledger says of joules, money and carbon, and the bill as FOCUS rows."""

from __future__ import annotations

import functools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from joulescope.cli import ledger_compact
from joulescope.cli.ledger_print import print_csv, print_json, print_note, print_table
from joulescope.cli.options import settings_options
from joulescope.config import TABLE, Settings
from joulescope.errors import ConfigError
from joulescope.insight.queries import (
    DIMENSIONS,
    PERIODS,
    SPREADS,
    chargeback,
    dearest,
    distribution,
    focus,
    reports,
    usage,
)
from joulescope.insight.queries.distribution import SORTS
from joulescope.insight.queries.ledger import Opened, open_root
from joulescope.insight.queries.money import Prices
from joulescope.insight.queries.span import parse_span

PRICES = ("electricity_price", "currency", "pue", "carbon_intensity")
FORMATS = ("csv", "parquet")


@click.group()
def command() -> None:
    """Ask a ledger: joules, money and carbon by model, tenant, LoRA, task, hour, day or month.

    ROOT is the folder or the URL where the ledger is kept. A request belongs to the span in which it ended.
    See docs/chargeback.md.
    """


command.add_command(ledger_compact.compact_command, "compact")


def _by(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _asking(default_by: str | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What all questions have in common: the ledger, the span, the prices, and how to print."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def question(
            root: str, since: str | None, until: str | None, settings: Settings, **rest: Any
        ) -> None:
            rest.pop("origins")
            span = parse_span(since, until, time.time_ns())
            with open_root(root, span, spool=rest.pop("spool"), verify=rest.pop("verify")) as opened:
                for path, reason in opened.rejected:
                    print_note(f"left out: {path}: {reason}")
                function(opened, _prices(settings), **rest)

        others = [name for name in TABLE if name not in PRICES]
        asked: Callable[..., Any] = settings_options(exclude=others)(question)
        if default_by is not None:
            asked = click.option(
                "--by",
                default=default_by,
                show_default=bool(default_by),
                callback=_by,
                metavar="NAME,...",
                help=f"What to tell apart: {', '.join((*DIMENSIONS, *PERIODS))}.",
            )(asked)
        asked = click.option("--verify", is_flag=True, help=_VERIFY)(asked)
        asked = click.option("--spool", type=click.Path(file_okay=False), help=_SPOOL)(asked)
        for name, text in (("--until", "End, not in it; likewise."), ("--since", _SINCE)):
            asked = click.option(name, metavar="INSTANT", help=text)(asked)
        return click.argument("root")(asked)

    return decorate


_VERIFY = "Hold every byte of local files against its checksum first."
_SPOOL = "Where ROOT is a URL: the local folder of what is not yet there."
_SINCE = "Begin: 2026-01-31, 2026-01-31T12:00Z, an age such as 7d, or now.  [default everything]"


def _printing(function: Callable[..., None]) -> Callable[..., None]:
    function = click.option("--csv", "as_csv", is_flag=True, help="Print rows as CSV.")(function)
    return click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")(function)


def _prices(settings: Settings) -> Prices:
    intensity = settings.carbon_intensity
    if isinstance(intensity, str):
        print_note(f"no carbon figures: {intensity} changes, and a ledger has one span: give a number")
        intensity = None
    return Prices(settings.electricity_price, settings.currency, settings.pue, intensity)


@command.command()
@_asking("")
@_printing
def summary(opened: Opened, prices: Prices, by: tuple[str, ...], as_json: bool, as_csv: bool) -> None:
    """Where the measured joules went, what they cost, and how much is known.

    With --by, what finished requests used as well, told apart by that.
    """
    one_way(as_json, as_csv)
    rows = reports.usage_rows(opened.tables.rows(usage(opened.tables, by)), prices) if by or as_csv else []
    if as_csv:
        print_csv(rows)
        return
    whole = reports.whole(opened.tables, prices)
    spread = reports.distribution_rows(opened.tables.rows(distribution(opened.tables)))
    if as_json:
        print_json(opened, prices, **whole, distribution=spread, by=list(by), rows=rows)
        return
    for line in reports.whole_lines(opened.where, whole, prices):
        click.echo(line)
    print_table(spread, "Joules of a request, and of each token or image that came out")
    if by:
        print_table(rows, f"Finished requests by {', '.join(by)}")


@command.command()
@_asking("tenant")
@click.option(
    "--spread",
    type=click.Choice(SPREADS),
    default="apart",
    show_default=True,
    help="Idle and overhead on lines of their own, or by attributed joules over those who used the engine.",
)
@_printing
def tenants(
    opened: Opened, prices: Prices, by: tuple[str, ...], spread: str, as_json: bool, as_csv: bool
) -> None:
    """Chargeback: lines by tenant, or by what --by names, that add up to the measured joules exactly."""
    one_way(as_json, as_csv)
    rows = reports.bill_rows(opened.tables.rows(chargeback(opened.tables, by, spread)), prices)
    if as_csv:
        print_csv(rows)
    elif as_json:
        print_json(
            opened, prices, by=list(by), spread=spread, total=reports.bill_total(rows, prices), rows=rows
        )
    else:
        print_table(
            reports.bill_in_columns(rows), f"Measured joules {opened.where}, by {', '.join(by) or 'part'}"
        )
        click.echo(reports.total_line(reports.bill_total(rows, prices), prices))


@command.command()
@_asking("")
@click.option(
    "--top", type=click.IntRange(0, 100_000), default=20, show_default=True, help="How many requests."
)
@click.option(
    "--sort", type=click.Choice(list(SORTS)), default="joules", show_default=True, help="Dearest by this."
)
@_printing
def requests(
    opened: Opened,
    prices: Prices,
    by: tuple[str, ...],
    top: int,
    sort: str,
    as_json: bool,
    as_csv: bool,
) -> None:
    """The dearest requests, and how joules are spread over requests, told apart by what --by names."""
    one_way(as_json, as_csv)
    rows = reports.request_rows(opened.tables.rows(dearest(opened.tables, top, sort)), prices)
    if as_csv:
        print_csv(rows)
        return
    spread = reports.distribution_rows(opened.tables.rows(distribution(opened.tables, by)))
    if as_json:
        print_json(opened, prices, by=list(by), distribution=spread, sort=sort, rows=rows)
        return
    if not spread:
        print_note(f"no request ended of which joules are known: {opened.where}")
    print_table(spread, f"Joules of a request, and of each token or image that came out, {opened.where}")
    print_table(reports.short_requests(rows), f"The dearest requests by {sort}")


@command.command(name="focus")
@_asking(None)
@click.option("--per", type=click.Choice(focus.PERIODS_OF_FOCUS), default="day", show_default=True)
@click.option("--spread", type=click.Choice(SPREADS), default="attributed", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), default="-")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="As the name of the output ends, else csv."
)
@click.option("--account", default="self-hosted", show_default=True, help="BillingAccountId.")
@click.option("--account-name", help="BillingAccountName.")
@click.option("--provider", default="self-hosted", show_default=True, help="Who serves, hosts and bills.")
@click.option("--service", default="LLM inference", show_default=True, help="ServiceName.")
def focus_command(
    opened: Opened,
    prices: Prices,
    per: str,
    spread: str,
    output: Path,
    form: str | None,
    account: str,
    account_name: str | None,
    provider: str,
    service: str,
) -> None:
    """Rows of FOCUS 1.4, Cost and Usage, by tenant, model, LoRA and task, for tools that read cloud bills.

    Needs --electricity-price and --currency. docs/chargeback.md has the columns.
    """
    rows = focus.Focus(
        opened.tables, prices, per, spread, focus.Issuer(account, account_name, provider, service)
    )
    form = form or ("parquet" if output.suffix == ".parquet" else "csv")
    if str(output) != "-":
        count = rows.write_parquet(output) if form == "parquet" else rows.write_csv(output)
        print_note(f"{count} rows of FOCUS {focus.FOCUS_VERSION} to {output}")
        return
    if form == "parquet":
        raise ConfigError("Parquet is not written to standard output: name a file with --output")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "focus.csv")
        count = rows.write_csv(whole)
        with open(whole, encoding="utf-8", newline="") as file:
            shutil.copyfileobj(file, sys.stdout)
    print_note(f"{count} rows of FOCUS {focus.FOCUS_VERSION} to standard output")


def one_way(as_json: bool, as_csv: bool) -> None:
    """Raises ConfigError where both are asked for."""
    if as_json and as_csv:
        raise ConfigError("--json and --csv cannot both be printed: leave one out")
