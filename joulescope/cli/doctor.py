"""``joulescope doctor``: what is wrong, and what mends it."""

from __future__ import annotations

import click

from joulescope.doctor.findings import EXIT_CODES, worst
from joulescope.doctor.place import Place
from joulescope.doctor.report import WATCH_SECONDS, examine, json_of, text_of


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of the text.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600),
    default=WATCH_SECONDS,
    show_default=True,
    help="How long to watch the meters.",
)
def command(as_json: bool, seconds: float) -> None:
    """Tell what is wrong with this installation, in plain words, and what mends it.

    Settings are taken from the environment and JOULESCOPE_CONFIG, as `serve` takes them. Run it beside the
    sidecar and in vLLM's container: there it needs no more than the hook. Ends with 0 if nothing is wrong, 10
    if joulescope works and tells less than it could, 20 if it cannot work here.
    """
    findings = examine(Place(), seconds)
    click.echo(json_of(findings) if as_json else text_of(findings), nl=as_json)
    raise click.exceptions.Exit(EXIT_CODES[worst(findings)])
