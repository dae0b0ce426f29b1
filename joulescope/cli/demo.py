"""``joulescope demo``: the whole live path on a simulated GPU and engine.

Everything but the two ends is what ``serve`` runs: the socket, the accounting, the pages, the exporters. The
engine reports through the hook's emitter, and the GPU is read through the same sampler as a real one.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from joulescope.cli.logs import set_up_logging
from joulescope.cli.options import settings_options
from joulescope.cli.view import show
from joulescope.clock import SystemClock
from joulescope.config import Settings
from joulescope.config.load import Origins
from joulescope.daemon.daemon import Daemon
from joulescope.export.requests_json import RequestsView
from joulescope.model import FinishedRequest, Snapshot
from joulescope.sensors.simulated import SimulatedSensor
from joulescope.simulation.changes import KINDS, PlannedChange
from joulescope.simulation.comparison import Comparison, compare
from joulescope.simulation.live import LiveSimulation
from joulescope.terminal.balance import balance_table
from joulescope.terminal.history import RATES_NS
from joulescope.terminal.plain import plain_line
from joulescope.terminal.source import Reading
from joulescope.terminal.tty import is_usable
from joulescope.units import ns_from_seconds

_DECIDED_HERE = ("socket", "socket_mode", "gpus", "sensor", "host", "host_sysfs")
_LOCAL = "127.0.0.1"
_VIEW_SECONDS, _LINE_SECONDS = 0.5, 1.0
_COMPARISON_NOTE = (
    "Errors: mean of |figure − true| / true over finished requests. The last two are those of"
    " dividing each step by the tokens computed, or by the tokens that came out."
)

_MAX_COMPARED = 20_000
"""Requests that are compared with the truth at the end, the latest."""

_TASK_PATTERN = "(?P<task>[a-z]+)-"
"""The simulation's request ids begin with the kind of service."""

_LEARN_SECONDS = 60.0
"""A demo is not watched for half an hour until there is a baseline."""

_SETTLE_SECONDS = 0.25
"""Between the engine's last step and its goodbye: the GPU's counter ticks, the last records arrive."""


def _changes(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[PlannedChange, ...]:
    try:
        return tuple(PlannedChange.parse(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="End after so long; default: on Ctrl-C."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Decides what the clients do.")
@click.option(
    "--rate",
    type=click.FloatRange(0.01, 1000),
    default=16.0,
    show_default=True,
    help="Mean arrivals of requests a second.",
)
@click.option(
    "--change",
    "changes",
    callback=_changes,
    multiple=True,
    metavar="KIND[=SIZE]@SECONDS",
    help="Makes something otherwise after so long, as a regression or another load would; may be repeated. "
    + "; ".join(f"{name}: {kind.meaning} ({kind.usual:g})" for name, kind in KINDS.items())
    + ".",
)
@click.option("--no-table", is_flag=True, help="A line of text a second instead of the live view.")
@settings_options(exclude=_DECIDED_HERE)
def command(
    seconds: float | None,
    seed: int,
    rate: float,
    changes: tuple[PlannedChange, ...],
    no_table: bool,
    settings: Settings,
    origins: Origins,
) -> None:
    """Run the sidecar on a simulated H100 that serves a simulated service, and show what it says.

    The pages are served as by `serve`. At the end the energy balance is printed, and how near the
    joules of the requests came to what the simulation knows to be true.
    """
    console = Console(highlight=False)
    live = is_usable(os.environ) and not no_table
    quiet = origins["log_level"].kind == "default"
    set_up_logging("warning" if quiet else settings.log_level, settings.log_format)
    with tempfile.TemporaryDirectory(prefix="joulescope-") as folder:
        settings = _demo_settings(settings, origins, Path(folder))
        demo = _Demo(settings, seed, rate, changes)
        demo.run(console, seconds, live)


def _demo_settings(settings: Settings, origins: Origins, folder: Path) -> Settings:
    """A socket of its own, a baseline soon, and an address that is free unless one was asked for."""
    listen = settings.listen
    if origins["listen"].kind == "default":
        listen = f"{_LOCAL}:{settings.listen_port if _is_free(settings.listen_port) else 0}"
    learn_seconds = settings.baseline_learn_seconds
    if origins["baseline_learn_seconds"].kind == "default":
        learn_seconds = _LEARN_SECONDS
    if origins["task_from"].kind == "default":
        settings = replace(settings, task_from=("request_id",), task_pattern=_TASK_PATTERN)
    return replace(
        settings,
        baseline_learn_seconds=learn_seconds,
        socket=str(folder / "joulescope.sock"),
        gpus="engine",
        sensor="none",
        host="off",  # real joules beside a simulated GPU's would say nothing
        listen=listen,
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOCAL, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


class _Demo:
    """One run: starts both ends, shows what happens, closes, and takes stock."""

    def __init__(self, settings: Settings, seed: int, rate: float, changes: Sequence[PlannedChange]) -> None:
        self._clock = SystemClock()
        self._simulation = LiveSimulation(
            settings.socket, self._clock, seed=seed, rate_per_second=rate, changes=changes
        )
        self._daemon = Daemon.build(settings, open_sensor=self._open_sensor, clock=self._clock)
        self.place = ""
        self._finished: dict[str, FinishedRequest] = {}
        self._snapshots: deque[Snapshot] = deque()

    def _open_sensor(self) -> SimulatedSensor:
        return SimulatedSensor(self._simulation.gpu, self._clock)

    def run(self, console: Console, seconds: float | None, live: bool) -> None:
        """Runs for ``seconds``, or until a signal asks to stop, and prints the outcome."""
        stop = threading.Event()
        with _stopped_by_signals(stop):
            self._daemon.start()
            try:
                self._simulation.start()
                _announce(console, self._daemon, seconds)
                end_ns = None if seconds is None else self._clock.now_ns() + ns_from_seconds(seconds)
                if live:
                    self.place = "simulated H100, http://{}:{}".format(*self._daemon.address)
                    show(self, interval_seconds=_VIEW_SECONDS, clock=self._clock, end_ns=end_ns)
                else:
                    self._print_lines(console, stop, end_ns)
            finally:
                self._simulation.quiesce()
                self._clock.sleep(_SETTLE_SECONDS)
                self._simulation.stop()
                final = self._daemon.close()
            self._note_finished()
        _report(console, final, compare(self._finished.values(), self._simulation.truth))

    def read(self) -> Reading:
        """The figures of now, for the live view; see :class:`joulescope.terminal.source.Source`."""
        self._note_finished()
        snapshot = self._daemon.snapshot()
        requests = RequestsView.of(snapshot, self._daemon.open_requests(), self._daemon.recent_requests())
        ready, reason = self._daemon.ready()
        return Reading(snapshot, requests, complaint="" if ready else reason)

    def _print_lines(self, console: Console, stop: threading.Event, end_ns: int | None) -> None:
        while not stop.is_set():
            left_seconds = _LINE_SECONDS
            if end_ns is not None:
                left_seconds = min((end_ns - self._clock.now_ns()) / 1e9, _LINE_SECONDS)
            if left_seconds <= 0 or stop.wait(left_seconds):
                return
            self._note_finished()
            snapshot = self._daemon.snapshot()
            self._snapshots.append(snapshot)
            while snapshot.time_ns - self._snapshots[0].time_ns > RATES_NS:
                self._snapshots.popleft()
            console.print(Text(plain_line(snapshot, self._snapshots[0])), soft_wrap=True)

    def _note_finished(self) -> None:
        for request in self._daemon.recent_requests():
            self._finished[request.request_id] = request
        while len(self._finished) > _MAX_COMPARED:
            del self._finished[next(iter(self._finished))]


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set ``stop``; afterwards they mean again what they meant before."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, lambda *_: stop.set())
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _announce(console: Console, daemon: Daemon, seconds: float | None) -> None:
    ending = "Ctrl-C ends it" if seconds is None else f"ends after {seconds:g} s"
    console.print(f"A simulated H100 serves Llama-3.1-8B to simulated clients; {ending}.")
    console.print(Text(f"Metrics: {daemon.url}/metrics"), soft_wrap=True)


def _report(console: Console, final: Snapshot, comparisons: list[Comparison]) -> None:
    console.print()
    console.print(balance_table(final))
    if comparisons[-1].requests:
        console.print()
        console.print(_comparison_table(comparisons))
        console.print(_COMPARISON_NOTE, style="bright_black")


def _comparison_table(comparisons: list[Comparison]) -> Table:
    """Finished requests against the truth, by class."""
    table = Table(
        box=None,
        padding=(0, 2, 0, 0),
        title="Joules per request against the simulation's truth",
        title_justify="left",
        title_style="bold",
    )
    columns: dict[str, Callable[[Comparison], str]] = {
        "requests": lambda each: str(each.requests),
        "true": lambda each: f"{each.true_joules / each.requests:.1f} J",
        "joulescope": lambda each: f"{each.attributed_joules / each.requests:.1f} J",
        "error": lambda each: _percent(each.error("attributed")),
        "by tokens": lambda each: _percent(each.error("by_tokens")),
        "by output": lambda each: _percent(each.error("by_output")),
    }
    table.add_column("class", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for each in comparisons:
        cells = (text(each) for text in columns.values())
        table.add_row(each.name, *cells, style="bold" if each.name == "all" else None)
    return table


def _percent(ratio: float) -> str:
    return f"{ratio:.0%}".replace("%", " %")
