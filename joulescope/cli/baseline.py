"""``joulescope baseline``: what the work of an engine used to cost, as files that can be kept and pinned."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

import click

from joulescope.attribution.baseline import PINNED, Baseline
from joulescope.attribution.efficiencies import LEARN_SECONDS, Efficiencies
from joulescope.attribution.reference import reference_steps
from joulescope.baselines.file import decode_baselines, read_baseline, write_baseline
from joulescope.baselines.store import SUFFIX, BaselineFolder
from joulescope.cli.access import target_options
from joulescope.clock import WallAnchor
from joulescope.errors import BaselineError
from joulescope.ingest.trace import TraceReader
from joulescope.replay import Replay
from joulescope.terminal.source import HttpSource
from joulescope.terminal.target import Target

BASELINES_PATH = "/api/baselines"

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_FOLDER_THAT_IS_THERE = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Make, show, compare and pin baselines: what the work of an engine used to cost.

    The sidecar learns one by itself and compares with it; see docs/baselines.md.
    """


@command.command()
@click.argument("trace", type=_FILE)
@click.option("-o", "--output", type=_FOLDER, required=True, help="Folder for one file an engine.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=1.0),
    default=LEARN_SECONDS,
    show_default=True,
    help="Busy time, per GPU, to learn from.",
)
def learn(trace: Path, output: Path, seconds: float) -> None:
    """Learn baselines from TRACE, one for each engine in it."""
    with TraceReader(trace) as reader:
        replay = Replay(reader)
        efficiencies = replay.efficiencies = Efficiencies(
            learn_seconds=seconds,
            wall_seconds=lambda time_ns: (replay.wall or WallAnchor(0, 0)).wall_of(time_ns) / 1e9,
        )
        engines = {request.engine for request in replay}
    learned = efficiencies.drain_learned()
    if not learned:
        raise BaselineError(f"{trace}: {_shortage(efficiencies, engines, seconds)}")
    _write([(baseline.name, baseline) for baseline in learned], output)


@command.command()
@target_options
@click.option("-o", "--output", type=_FOLDER, required=True, help="Folder for one file an engine.")
def save(target: Target, output: Path) -> None:
    """Write what a running sidecar compares its engines with: /api/baselines, one file for each."""
    source = HttpSource(target)
    try:
        found = decode_baselines(source.fetch(BASELINES_PATH), f"{source.place}{BASELINES_PATH}")
    finally:
        source.close()
    if not found:
        raise BaselineError(
            f"{source.place}: no engine has a baseline yet; joulescope_baseline_learned_ratio tells how far "
            "they are"
        )
    _write(found.items(), output)


def _write(named: Iterable[tuple[str, Baseline]], folder: Path) -> None:
    """One file for each, under its name, and a number where another has the name already."""
    _make_folder(folder)
    taken: Counter[str] = Counter()
    for name, baseline in named:
        slug = _slug(name) or "baseline"
        taken[slug.lower()] += 1
        number = taken[slug.lower()]
        path = folder / f"{slug}{f'-{number}' if number > 1 else ''}{SUFFIX}"
        write_baseline(path, baseline)
        click.echo(path)


def _shortage(efficiencies: Efficiencies, engines: set[str], seconds: float) -> str:
    """Why nothing was learned, in busy seconds where there were some."""
    found = [totals for engine in engines if (totals := efficiencies.totals(engine)) is not None]
    ratios = [totals.learned_ratio for totals in found if totals.learned_ratio is not None]
    if not ratios:
        return (
            "there is nothing to learn from: no engine's work was measured in it, or its engines do not say "
            "what their steps take"
        )
    most = max(ratios) * seconds
    return (
        f"its engines were busy for {most:.0f} s at most, and {seconds:.0f} s are asked for; record longer, "
        "or ask for less with --seconds"
    )


@command.command("list")
@click.argument("folder", type=_FOLDER_THAT_IS_THERE)
def list_command(folder: Path) -> None:
    """List the baselines in FOLDER, as the sidecar would read it."""
    folder_of = BaselineFolder(folder, log=lambda text: click.echo(text, err=True))
    headings = ("source", "made", "model", "GPUs", "version", "J/token", "name")
    _print_table([headings, *map(_row, folder_of.look())])


def _row(baseline: Baseline) -> tuple[str, ...]:
    identity = baseline.identity
    decode = next(step for step in reference_steps(baseline) if step.requests == 64)
    return (
        baseline.source,
        _time_text(baseline.created_wall_seconds),
        identity.model,
        f"{identity.gpu_count} × {identity.gpu_name or '?'}",
        baseline.version or "?",
        f"{decode.joules_per_token:.3f}",
        baseline.name,
    )


@command.command()
@click.argument("file", type=_FILE)
def show(file: Path) -> None:
    """Print what FILE holds: whose work, how well it is known, and what some steps should cost."""
    baseline = read_baseline(file)
    identity = baseline.identity
    facts = {
        "name": baseline.name,
        "source": baseline.source,
        "made": _time_text(baseline.created_wall_seconds),
        "model": f"{identity.model} {identity.dtype} {identity.quantization}".strip(),
        "parallel": f"tensor {identity.tensor_parallel}, pipeline {identity.pipeline_parallel}",
        "GPUs": f"{identity.gpu_count} × {identity.gpu_name or '?'}, limit {baseline.limit_watts:.0f} W",
        "software": f"{baseline.software} {baseline.version}".strip(),
        "method": f"{baseline.method} {baseline.method_version}",
        "learned from": f"{baseline.busy_seconds:.0f} s of work",
        "scatter": f"{baseline.scatter:.2%} from half minute to half minute",
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")
    click.echo()
    _print_steps([baseline], ["J/token"])


@command.command()
@click.argument("before", type=_FILE)
@click.argument("after", type=_FILE)
def compare(before: Path, after: Path) -> None:
    """Print what the same steps cost by BEFORE and by AFTER, and by what factor that changed."""
    baselines = [read_baseline(before), read_baseline(after)]
    left, right = (each.identity for each in baselines)
    if left != right:
        click.echo(f"note: different kinds of engines: {left} and {right}", err=True)
    _print_steps(baselines, ["J/token before", "J/token after"])


def _print_steps(baselines: Sequence[Baseline], headings: Sequence[str]) -> None:
    several = len(baselines) > 1
    rows = [("step", *headings, "factor" if several else "ms a step")]
    for steps in zip(*map(reference_steps, baselines), strict=True):
        joules = [step.joules_per_token for step in steps]
        last = f"{joules[-1] / joules[0]:.3f}" if several else f"{1e3 * steps[0].seconds:.1f}"
        rows.append((steps[0].name, *(f"{each:.4f}" for each in joules), last))
    _print_table(rows, right=True)


def _print_table(rows: Sequence[Sequence[str]], *, right: bool = False) -> None:
    """Columns as wide as they need, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<", *([">" if right else "<"] * (len(widths) - 1))]
    for row in rows:
        cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@command.command()
@click.argument("file", type=_FILE)
@click.argument("folder", type=_FOLDER)
@click.option("--name", help="What it is called in metrics; default: its own name.")
def pin(file: Path, folder: Path, name: str | None) -> None:
    """Copy FILE into FOLDER (the sidecar's baseline_dir) as a pinned baseline.

    A pinned one is preferred to a learned one, and of several the one made with the engine's own version,
    then the newest. A running sidecar takes it within seconds.
    """
    baseline = read_baseline(file)
    pinned = replace(baseline, source=PINNED, name=name or baseline.name)
    _make_folder(folder)
    path = _pinned_path(folder, pinned)
    write_baseline(path, pinned)
    click.echo(path)


def _pinned_path(folder: Path, pinned: Baseline) -> Path:
    """Named after it, and a number where an engine of another kind has the name; pinning again replaces."""
    slug = _slug(pinned.name) or str(int(time.time()))
    for number in count(1):
        path = folder / f"pinned-{slug}{f'-{number}' if number > 1 else ''}{SUFFIX}"
        if not path.exists() or read_baseline(path).identity == pinned.identity:
            break
    return path


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BaselineError(f"{folder}: cannot be made: {error.strerror or error}") from error


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:120]


def _time_text(wall_seconds: float) -> str:
    return f"{datetime.fromtimestamp(wall_seconds, timezone.utc):%Y-%m-%d %H:%M}Z"
