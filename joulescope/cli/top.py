"""``joulescope top``: the live table of a sidecar that runs elsewhere."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from joulescope.cli.live_table import plain_line, render
from joulescope.clock import Clock, SystemClock
from joulescope.errors import JoulescopeError
from joulescope.export.snapshot_json import decode_snapshot
from joulescope.model import Snapshot

RATES_NS = 5_000_000_000
"""Rates are taken over so long: joules are settled half a second at a time."""

_TIMEOUT_SECONDS = 5.0


@click.command()
@click.option(
    "--url",
    default="http://127.0.0.1:5685",
    show_default=True,
    help="Where the sidecar serves its pages.",
)
@click.option("--interval-seconds", type=click.FloatRange(0.1, 60.0), default=1.0, show_default=True)
@click.option("--count", type=click.IntRange(min=1), help="End after so many readings; default: on Ctrl-C.")
def command(url: str, interval_seconds: float, count: int | None) -> None:
    """Show power, balance and queues of a running sidecar; a line of text a reading without a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        for snapshot, earlier in _readings(url, interval_seconds, count, SystemClock()):
            console.print(Text(plain_line(snapshot, earlier)), soft_wrap=True)
        return
    with Live(console=console, auto_refresh=False, screen=True) as screen:
        for snapshot, earlier in _readings(url, interval_seconds, count, SystemClock()):
            screen.update(render(snapshot, earlier, (), max_lines=console.size.height - 1), refresh=True)


def _readings(
    url: str, interval_seconds: float, count: int | None, clock: Clock
) -> Iterator[tuple[Snapshot, Snapshot]]:
    """The latest snapshot and an earlier one, from which rates are taken."""
    history: deque[Snapshot] = deque()
    taken = 0
    while True:
        snapshot = _fetch(url)
        history.append(snapshot)
        while snapshot.time_ns - history[0].time_ns > RATES_NS:
            history.popleft()
        yield snapshot, history[0]
        taken += 1
        if taken == count:
            return
        clock.sleep(interval_seconds)


def _fetch(url: str) -> Snapshot:
    """The sidecar's snapshot.

    Raises:
        JoulescopeError: if nobody answers there, or somebody else.
    """
    address = f"{url.rstrip('/')}/api/snapshot"
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as answer:
            return decode_snapshot(answer.read())
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise JoulescopeError(
            f"no sidecar answers at {address}: {reason}; start one with joulescope serve, or name another "
            "with --url"
        ) from error
    except ValueError as error:
        raise JoulescopeError(f"{address} is not a sidecar of this version: {error}") from error
