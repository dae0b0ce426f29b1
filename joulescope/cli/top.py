"""``joulescope top``: the live view of a sidecar that runs elsewhere."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import click

from joulescope.cli.view import show
from joulescope.clock import Clock, SystemClock
from joulescope.model import Snapshot
from joulescope.terminal.plain import plain_line
from joulescope.terminal.source import HttpSource, Source
from joulescope.terminal.target import target_of
from joulescope.terminal.tty import is_usable

RATES_NS = 5_000_000_000
"""Rates are taken over so long: joules are settled half a second at a time."""

_FILE = click.Path(exists=True, dir_okay=False)


@click.command()
@click.option(
    "--url",
    default="http://127.0.0.1:5685",
    show_default=True,
    envvar="JOULESCOPE_TOP_URL",
    show_envvar=True,
    help="Where the sidecar serves its pages.",
)
@click.option("--interval-seconds", type=click.FloatRange(0.1, 60.0), default=1.0, show_default=True)
@click.option("--count", type=click.IntRange(min=1), help="End after so many readings.")
@click.option(
    "--ascii/--unicode", "ascii_only", default=None, help="Which letters; default: as the locale says."
)
@click.option("--plain", is_flag=True, help="A line of text a reading, as without a terminal.")
@click.option("--ca-file", type=_FILE, help="Authorities that an https sidecar's certificate may be of, PEM.")
@click.option("--client-cert", type=_FILE, help="Certificate to show to a sidecar that wants one, PEM.")
@click.option("--client-key", type=_FILE, help="Its key, if it is not in the same file.")
@click.option("--password-file", type=_FILE, help="Its first line is the password of the URL's user.")
@click.option(
    "--netrc",
    "netrc_file",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Take user and password from this file; without a name from $NETRC or ~/.netrc.",
)
def command(
    url: str,
    interval_seconds: float,
    count: int | None,
    ascii_only: bool | None,
    plain: bool,
    ca_file: str | None,
    client_cert: str | None,
    client_key: str | None,
    password_file: str | None,
    netrc_file: str | None,
) -> None:
    """Show GPUs, engines and running requests of a sidecar, live.

    Press ? for the keys. Without a terminal it prints a line of text a reading.
    """
    target = target_of(
        url,
        ca_file=ca_file,
        client_cert=client_cert,
        client_key=client_key,
        netrc_file=_netrc(netrc_file),
        password_file=None if password_file is None else Path(password_file),
    )
    source = HttpSource(target)
    if plain or not is_usable(os.environ):
        for snapshot, earlier in _readings(source, interval_seconds, count, SystemClock()):
            print(plain_line(snapshot, earlier), flush=True)
        return
    sys.exit(show(source, interval_seconds=interval_seconds, count=count, ascii_only=ascii_only))


def _netrc(given: str | None) -> Path | None:
    """The file that ``--netrc`` means; ``None`` without the option."""
    if given is None:
        return None
    return Path(given or os.environ.get("NETRC") or Path.home() / ".netrc")


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
