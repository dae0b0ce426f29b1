"""The terminal table: what it says, and what it never prints."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from functools import lru_cache

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from joulescope.cli.balance import Balance, balance_table, joules_text
from joulescope.cli.live_table import joules_per_output_token, plain_line, render
from joulescope.model import FinishedRequest, GpuReading, GpuStatus, MeterComparison, Snapshot
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun


@lru_cache(maxsize=1)
def outcome() -> tuple[Snapshot, tuple[FinishedRequest, ...]]:
    """A finished simulated run."""
    replay = Replay(SimulatedRun(8.0, seed=1, rate_per_second=10.0, truth=False).records())
    finished = tuple(replay)
    assert replay.snapshot is not None
    return replay.snapshot, finished


def printed(
    renderable: RenderableType, width: int = 80, *, encoding: str = "utf-8", terminal: bool = False
) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width, force_terminal=terminal, legacy_windows=False).print(renderable)
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """At any width every line fits, and the balance and the requests' joules are still there."""
    snapshot, finished = outcome()
    text = printed(render(snapshot, None, finished), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "unattributed" in text
    assert f"{finished[-1].attributed_joules:.2f}" in text


def test_eighty_columns_show_everything() -> None:
    """The usual terminal has all columns, every row whole, and the watts."""
    snapshot, finished = outcome()
    text = printed(render(snapshot, None, finished))
    heading = next(line for line in text.splitlines() if line.startswith("request"))
    assert heading.split() == ["request", "prompt", "cached", "output", "J", "J/token", "marginal", "end"]
    assert "…" not in text
    assert re.search(r" 1\d\d W of 700 W", text)
    assert finished[-1].external_id in text


def test_without_a_terminal_there_are_no_control_codes() -> None:
    """In a pipe or a log the table is plain text; on a terminal it is coloured."""
    snapshot, finished = outcome()
    table = render(snapshot, None, finished)
    assert "\x1b" not in printed(table)
    assert "\x1b[" in printed(table, terminal=True)
    line = plain_line(snapshot, None)
    assert line.isprintable()
    assert "measured" in line


def test_a_terminal_that_knows_only_ascii_gets_ascii() -> None:
    """The bars are drawn with plain letters where the encoding has no blocks."""
    snapshot, _ = outcome()
    assert "####" in printed(balance_table(snapshot), encoding="ascii")


@pytest.mark.parametrize("height", [10, 20, 24, 30, 50])
def test_the_table_fits_the_height_that_is_given(height: int) -> None:
    """A low terminal loses requests from the end, never the balance."""
    snapshot, finished = outcome()
    lines = printed(render(snapshot, None, finished, max_lines=height)).splitlines()
    assert len(lines) <= max(height, 12)
    assert any(line.startswith("residual") for line in lines)


def test_a_clients_request_id_cannot_drive_the_terminal() -> None:
    """Control characters and markup in an id are shown, not obeyed."""
    snapshot, finished = outcome()
    evil = replace(finished[-1], external_id="\x1b[2J[red]x")
    text = printed(render(snapshot, None, [evil]), terminal=True)
    assert "\x1b[2J" not in text
    assert "?[2J[red]x" in text


def test_the_balance_adds_up() -> None:
    """The rows of the table sum to what was measured, and the residual is 0."""
    snapshot, _ = outcome()
    balance = Balance.of(snapshot)
    parts = balance.prefill_joules + balance.decode_joules + balance.idle_joules
    parts += balance.overhead_joules + balance.unattributed_joules
    assert balance.measured_joules > 100
    assert parts == pytest.approx(balance.measured_joules)
    assert "residual" in printed(balance_table(snapshot))
    assert "0 J" in printed(balance_table(snapshot)).splitlines()[-1]


def test_residuals_of_two_gpus_do_not_cancel() -> None:
    """The worst GPU is shown, and a residual that is not 0 is not hidden by rounding."""
    snapshot, _ = outcome()
    (gpu,) = snapshot.gpus
    off = replace(snapshot, gpus=(replace(gpu, residual_joules=1e-6), replace(gpu, residual_joules=-1e-6)))
    assert abs(Balance.of(off).residual_joules) == 1e-6
    assert "1e-06 J" in printed(balance_table(off))


@pytest.mark.parametrize(
    ("units", "shown"),
    [
        (["token"], "token"),
        (["image", "image"], "image"),
        (["image", "token"], "output"),
        (["second of audio"], "output"),
        ([], "token"),
    ],
)
def test_the_table_says_what_is_counted(units: list[str], shown: str) -> None:
    """Engines that paint have joules per image, not per token; a mixture, or a long word, is output."""
    snapshot, finished = outcome()
    (engine,) = snapshot.engines
    engines = tuple(replace(engine, info=replace(engine.info, unit=unit)) for unit in units)
    painted = replace(snapshot, engines=engines)
    assert f"J/{shown} " in plain_line(painted, None)
    requests = [replace(finished[number], unit=unit) for number, unit in enumerate(units)]
    if requests:
        text = printed(render(painted, None, requests))
        assert f"J/{shown} " in text
        assert max(map(cell_len, text.splitlines())) <= 80


def test_rates_are_those_since_the_earlier_snapshot() -> None:
    """J/token divides what came since then; with nothing to divide it says so."""
    snapshot, _ = outcome()
    assert joules_per_output_token(snapshot, snapshot) is None
    assert "J/token -" in plain_line(snapshot, snapshot)
    tokens = snapshot.engines[0].tokens["generated"]
    joules = snapshot.gpus[0].attributed_joules
    assert joules_per_output_token(snapshot, None) == pytest.approx(joules / tokens)


def test_before_anything_is_known_the_table_still_stands() -> None:
    """Right after the start there is no engine, no GPU and no request, and no division by zero."""
    empty = Snapshot(time_ns=0, wall_seconds=0.0)
    assert "waiting for an engine" in printed(render(empty, None, []))
    assert "power -" in plain_line(empty, None)


def test_a_silent_sensor_and_a_gone_engine_are_named() -> None:
    """A GPU that does not answer shows no watts, and an engine that left shows no batch."""
    snapshot, _ = outcome()
    (gpu,) = snapshot.gpus
    silent = replace(snapshot, gpus=(replace(gpu, up=False, reading=None),))
    text = printed(render(silent, None, []))
    assert "no reading" in text
    assert "disconnected" in text


def test_a_meter_to_wonder_about_is_named() -> None:
    """Joules that are integrated power, and meters that differ more than cards do, stand beside the watts."""
    snapshot, _ = outcome()
    (gpu,) = snapshot.gpus
    quiet = printed(render(snapshot, None, []))
    assert "power" not in quiet
    info = replace(gpu.info, energy_source="power")
    assert "integrated power" in printed(render(replace(snapshot, gpus=(replace(gpu, info=info),)), None, []))
    far = replace(gpu, comparison=MeterComparison(187.0, 327.0, 0.572))
    assert "counter/power 0.57" in printed(render(replace(snapshot, gpus=(far,)), None, []))


def test_a_mig_instance_shows_its_activity_and_what_its_joules_are() -> None:
    """It has no watts to show: how busy it is, if that is known, and that its joules are an estimate."""
    snapshot, _ = outcome()
    (gpu,) = snapshot.gpus
    info = replace(gpu.info, name="H100 MIG 3g.40gb", energy_source="mig_gpm", parent="GPU-w")
    for ratio, words in ((0.42, "42 % active"), (None, "activity not known")):
        reading = GpuReading(info.gpu, 0, status=GpuStatus(info.gpu, 0, sm_active_ratio=ratio))
        shown = replace(gpu, info=info, reading=reading, up=True)
        text = printed(render(replace(snapshot, gpus=(shown,)), None, []), 100)
        assert f"H100 MIG 3g.40gb   {words}   split of its GPU, an estimate" in text


@pytest.mark.parametrize(
    ("joules", "text"),
    [(0.0, "0.0 J"), (9999.94, "9 999.9 J"), (12_345.0, "12.345 kJ"), (12_345_678.0, "12.346 MJ")],
)
def test_joules_are_written_with_a_fitting_prefix(joules: float, text: str) -> None:
    """Four or five figures, whatever the size."""
    assert joules_text(joules) == text
