"""``joulescope replay``: a trace through the same accounting, as fast as it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from joulescope.attribution.policy import Policy
from joulescope.cli.options import TASK_SETTINGS, task_options
from joulescope.cli.summary import summary_lines
from joulescope.clock import WallAnchor
from joulescope.config import TABLE, Settings
from joulescope.config.load import load
from joulescope.daemon.label_rules import label_rules
from joulescope.errors import TraceError
from joulescope.export.records import finished_line
from joulescope.ingest.trace import TraceReader
from joulescope.minute_model import EngineMinute
from joulescope.minutes import json_line
from joulescope.replay import Replay
from joulescope.units import ns_from_seconds

_CALIBRATION = TABLE["calibration"].kind
_PAYERS = ("recompute_to", "rejected_to", "dummy_to", "idle_to", "lost_to")


def _factors(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> Callable[[str], float] | None:
    """The factor of each GPU, read as the setting of the same name is."""
    if text is None:
        return None
    try:
        return Settings(calibration=_CALIBRATION.parse(text)).calibration_factor
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


def _payers(command: Callable[..., None]) -> Callable[..., None]:
    """A flag for each setting that says who pays, as in `serve`."""
    for name in reversed(_PAYERS):
        setting = TABLE[name]
        command = click.option(
            setting.flag,
            type=click.Choice(setting.kind.metavar.split("|")),
            default=setting.default,
            show_default=True,
            help=setting.help,
        )(command)
    return command


@click.command()
@click.argument("trace", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--requests",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Write one JSON line for each finished request here; - for standard output.",
)
@click.option(
    "--minutes",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Write one JSON line for each engine and minute here; - for standard output.",
)
@click.option("--window-seconds", type=click.FloatRange(0.001, 60.0), default=0.5, show_default=True)
@_payers
@task_options
@click.option(
    "--calibration",
    metavar=_CALIBRATION.metavar,
    callback=_factors,
    help="True joules for each that a GPU shows, in place of the trace's own factors; as in `serve`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    trace: Path,
    requests: Path | None,
    minutes: Path | None,
    window_seconds: float,
    calibration: Callable[[str], float] | None,
    as_json: bool,
    **given: str,
) -> None:
    """Account for TRACE again and print what was measured, attributed, idle, overhead and unattributed.

    Lines that cannot be read are skipped, counted and named at the end.
    """
    tasks, _ = load({name: given[name] for name in TASK_SETTINGS}, {})
    with ExitStack() as stack:
        if str(requests) == str(minutes) == "-":
            raise click.UsageError("--requests and --minutes cannot both go to standard output")
        out = None if requests is None else _open_out(requests, "--requests", stack)
        minutes_out = None if minutes is None else _open_out(minutes, "--minutes", stack)
        reader = stack.enter_context(TraceReader(trace))
        progress = _progress(stack)
        size = trace.stat().st_size
        task = progress.add_task(trace.name, total=size if _is_plain(trace) else None)
        replay = Replay(
            reader,
            Policy(
                recompute_to=given["recompute_to"],
                rejected_to=given["rejected_to"],
                dummy_to=given["dummy_to"],
                idle_to=given["idle_to"],
                lost_to=given["lost_to"],
                labels=label_rules(tasks),
            ),
            window_ns=ns_from_seconds(window_seconds),
            calibration=calibration,
            on_minute=None if minutes_out is None else lambda each: _write_minute(each, minutes_out),
            on_progress=lambda _: progress.update(task, completed=reader.bytes_read),
        )
        wall = WallAnchor(0, 0)
        for request in replay:
            wall = replay.wall or wall
            if out is not None:
                out.write(finished_line(request, wall))
        progress.update(task, completed=size)
    to_stderr = "-" in (str(requests), str(minutes))
    for line in summary_lines(replay, reader, as_json):
        click.echo(line, err=to_stderr)


def _is_plain(trace: Path) -> bool:
    return trace.suffix not in (".gz", ".zst")


def _write_minute(minute: EngineMinute, out: BinaryIO) -> None:
    out.write(json_line(minute).encode())


def _open_out(path: Path, option: str, stack: ExitStack) -> BinaryIO:
    if str(path) == "-":
        stack.callback(sys.stdout.buffer.flush)
        return sys.stdout.buffer
    try:
        return stack.enter_context(open(path, "wb"))
    except OSError as error:
        raise TraceError(
            f"cannot write {path}: {error.strerror}; choose another file with {option}"
        ) from error


def _progress(stack: ExitStack) -> Progress:
    """On standard error, and only where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return stack.enter_context(
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    )
