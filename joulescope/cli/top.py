"""``joulescope top``: the live view of a sidecar that runs elsewhere."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator

import click

from joulescope.cli.access import target_options
from joulescope.cli.view import show
from joulescope.clock import Clock, SystemClock
from joulescope.model import Snapshot
from joulescope.terminal.history import RATES_NS
from joulescope.terminal.plain import plain_line
from joulescope.terminal.source import HttpSource, Source
from joulescope.terminal.target import Target
from joulescope.terminal.tty import is_usable


@click.command()
@target_options
@click.option("--interval-seconds", type=click.FloatRange(0.1, 60.0), default=1.0, show_default=True)
@click.option("--count", type=click.IntRange(min=1), help="End after so many readings.")
@click.option(
    "--ascii/--unicode", "ascii_only", default=None, help="Which letters; default: as the locale says."
)
@click.option("--plain", is_flag=True, help="A line of text a reading, as without a terminal.")
def command(
    target: Target, interval_seconds: float, count: int | None, ascii_only: bool | None, plain: bool
) -> None:
    """Show GPUs, engines and running requests of a sidecar, live.

    Press ? for the keys. Without a terminal it prints a line of text a reading.
    """
    source = HttpSource(target)
    if plain or not is_usable(os.environ):
        for snapshot, earlier in _readings(source, interval_seconds, count, SystemClock()):
            print(plain_line(snapshot, earlier), flush=True)
        return
    sys.exit(show(source, interval_seconds=interval_seconds, count=count, ascii_only=ascii_only))


def _readings(
    source: Source, interval_seconds: float, count: int | None, clock: Clock
) -> Iterator[tuple[Snapshot, Snapshot]]:
    """The latest snapshot and an earlier one, from which rates are taken."""
    history: deque[Snapshot] = deque()
    taken = 0
    while True:
        snapshot = source.read().snapshot
        history.append(snapshot)
        while snapshot.time_ns - history[0].time_ns > RATES_NS:
            history.popleft()
        yield snapshot, history[0]
        taken += 1
        if taken == count:
            return
        clock.sleep(interval_seconds)
