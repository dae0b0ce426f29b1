"""``joulescope record``: the live path, written to a trace file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from joulescope.cli.logs import set_up_logging
from joulescope.cli.options import settings_options
from joulescope.cli.serve import run
from joulescope.config import Settings
from joulescope.config.load import Origins
from joulescope.daemon.daemon import Daemon


@click.command()
@click.argument("trace", type=click.Path(dir_okay=False, path_type=Path))
@settings_options(exclude=("record",))
def command(trace: Path, settings: Settings, origins: Origins) -> None:
    """Serve as always, and write all records and samples to TRACE (.jsonl, .jsonl.gz, .jsonl.zst).

    Ends with SIGINT or SIGTERM. The trace holds no prompt, no output and no token ids;
    `joulescope replay TRACE` accounts for it again.
    """
    set_up_logging(settings.log_level, settings.log_format)
    run(Daemon.build(replace(settings, record=str(trace))))
