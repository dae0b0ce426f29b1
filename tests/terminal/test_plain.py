"""The line of text that pipes and logs get, and the balance as a table."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import lru_cache

import pytest
from rich.console import Console, RenderableType

from joulescope.model import FinishedRequest, Snapshot
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun
from joulescope.terminal.balance import Balance, balance_table, joules_text
from joulescope.terminal.plain import joules_per_output_token, plain_line


@lru_cache(maxsize=1)
def outcome() -> tuple[Snapshot, tuple[FinishedRequest, ...]]:
    """A finished simulated run."""
    replay = Replay(SimulatedRun(8.0, seed=1, rate_per_second=10.0, truth=False).records())
    finished = tuple(replay)
    assert replay.snapshot is not None
    return replay.snapshot, finished


def printed(renderable: RenderableType, width: int = 80, *, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width, legacy_windows=False).print(renderable)
    file.flush()
    return raw.getvalue().decode(encoding)


def test_the_line_is_plain() -> None:
    """No control codes, and every figure with its name."""
    snapshot, _ = outcome()
    line = plain_line(snapshot, None)
    assert line.isprintable()
    for name in ("power ", "running ", "J/token ", "measured ", "unattributed "):
        assert name in line


def test_a_terminal_that_knows_only_ascii_gets_ascii() -> None:
    """The bars are drawn with plain letters where the encoding has no blocks."""
    snapshot, _ = outcome()
    assert "####" in printed(balance_table(snapshot), encoding="ascii")


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
def test_the_line_says_what_is_counted(units: list[str], shown: str) -> None:
    """Engines that paint have joules per image, not per token; a mixture, or a long word, is output."""
    snapshot, _ = outcome()
    (engine,) = snapshot.engines
    engines = tuple(replace(engine, info=replace(engine.info, unit=unit)) for unit in units)
    assert f"J/{shown} " in plain_line(replace(snapshot, engines=engines), None)


def test_rates_are_those_since_the_earlier_snapshot() -> None:
    """J/token divides what came since then; with nothing to divide it says so."""
    snapshot, _ = outcome()
    assert joules_per_output_token(snapshot, snapshot) is None
    assert "J/token -" in plain_line(snapshot, snapshot)
    tokens = snapshot.engines[0].tokens["generated"]
    joules = snapshot.gpus[0].attributed_joules
    assert joules_per_output_token(snapshot, None) == pytest.approx(joules / tokens)


def test_before_anything_is_known_there_is_a_line_too() -> None:
    """No engine, no GPU and no request, and no division by zero."""
    assert "power -" in plain_line(Snapshot(time_ns=0, wall_seconds=0.0), None)


@pytest.mark.parametrize(
    ("joules", "text"),
    [(0.0, "0.0 J"), (9999.94, "9 999.9 J"), (12_345.0, "12.345 kJ"), (12_345_678.0, "12.346 MJ")],
)
def test_joules_are_written_with_a_fitting_prefix(joules: float, text: str) -> None:
    """Four or five figures, whatever the size."""
    assert joules_text(joules) == text
