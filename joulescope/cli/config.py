"""``joulescope config``: what the settings are, where they came from, and a file to start with."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import click

from joulescope.cli.options import settings_options
from joulescope.clock import WallAnchor
from joulescope.config import TABLE, Settings
from joulescope.config.load import Origins
from joulescope.export.web_config_file import Sources
from joulescope.export.web_config_report import facts, warnings
from joulescope.export.web_config_rules import read_rules


@click.group()
def command() -> None:
    """Show where each setting comes from, and whether files that settings name will do."""


@command.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of the table.")
@settings_options()
def show(as_json: bool, settings: Settings, origins: Origins) -> None:
    """Print each setting, its value and where it came from, as `serve` would see them."""
    rows = [
        (name, setting.text(getattr(settings, name)), str(origins[name])) for name, setting in TABLE.items()
    ]
    if as_json:
        click.echo(json.dumps({name: {"value": value, "origin": origin} for name, value, origin in rows}))
        return
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, origin in rows:
        click.echo(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}")


@command.command()
def example() -> None:
    """Print a YAML file of all settings at their defaults, each with a comment."""
    click.echo(example_yaml(), nl=False)


@command.command("check-web")
@click.argument("file", type=click.Path(path_type=Path))
def check_web(file: Path) -> None:
    """Tell what a web configuration file comes to, before a sidecar gets it.

    Ends with 0 if it can be used and 2 if not; warnings go to standard error.
    """
    rules = read_rules(file, Sources())
    for fact in facts(rules):
        click.echo(fact)
    for warning in warnings(rules, WallAnchor.now().wall_ns / 1e9):
        click.echo(f"warning: {warning}", err=True)


def example_yaml() -> str:
    """Every setting at its default and commented out, so that the file as printed changes nothing."""
    parts = ["# Settings of joulescope. A flag or variable of the same name wins over this file.\n"]
    for setting in TABLE.values():
        comment = textwrap.fill(setting.help, 100, initial_indent="# ", subsequent_indent="# ")
        parts.append(f"{comment}\n#{setting.name}: {setting.text(setting.default)}\n")
    return "\n".join(parts)
