"""``joulescope replay``: what it says of the meters behind its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from joulescope.cli.replay import command
from joulescope.hook import wire
from joulescope.ingest.trace import TraceWriter
from tests.worlds import GPU, SECOND, by_time, end, hello, samples, start, step


def trace(directory: Path, **gpu: object) -> Path:
    """A GPU that shows 300 W for two seconds, and serves one request meanwhile."""
    path = directory / "trace.jsonl"
    writer = TraceWriter(path)
    writer.write([wire.Gpu(gpu=GPU, **gpu)])  # type: ignore[arg-type]
    engine = [hello(0), start(1, 0), step(0, 0, 2 * SECOND, [1]), end(1, 2 * SECOND, 0)]
    writer.write(by_time(engine, samples(2 * SECOND, 300.0)))
    writer.close()
    return path


def replay(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, [str(path), *arguments])


def test_a_plain_counter_needs_no_remark(tmp_path: Path) -> None:
    """The usual meter is not spoken of."""
    assert replay(trace(tmp_path)).stdout.splitlines()[0] == f"{GPU}: measured 600.000 J"


def test_another_meter_is_named(tmp_path: Path) -> None:
    """Integrated power and a calibration stand beside what was measured."""
    path = trace(tmp_path, energy_source="power", calibration_factor=1.1)
    first = replay(path).stdout.splitlines()[0]
    assert first == f"{GPU}: measured 660.000 J  (integrated from power readings, calibrated by 1.1)"


def test_factors_can_be_given_anew(tmp_path: Path) -> None:
    """``--calibration`` stands in place of the trace's factor; JSON tells it and how the meters compare."""
    path = trace(tmp_path, calibration_factor=1.1)
    (gpu,) = json.loads(replay(path, "--calibration", f"{GPU}=1.05", "--json").stdout)["gpus"].values()
    assert gpu["measured_joules"] == pytest.approx(630)
    assert (gpu["energy_source"], gpu["calibration_factor"]) == ("counter", 1.05)
    assert gpu["counter_to_power_ratio"] == pytest.approx(1.0)


def test_a_factor_that_is_none_is_refused(tmp_path: Path) -> None:
    """The same words as for the setting, and the exit code of a wrong command line."""
    result = replay(trace(tmp_path), "--calibration", "5")
    assert result.exit_code == 2
    assert "the factor of all GPUs lies between 0.5 and 2" in " ".join(result.stderr.split())


def test_who_pays_can_be_chosen_anew(tmp_path: Path) -> None:
    """The settings of ``serve`` that say who pays are flags here; without them idle time stays nobody's."""
    path = tmp_path / "trace.jsonl"
    writer = TraceWriter(path)
    engine = [hello(0), start(1, 0), step(0, 0, SECOND // 4, [1]), end(1, SECOND // 4, 0)]
    writer.write(by_time(engine, samples(SECOND // 2, 300.0)))
    writer.close()
    idle = []
    for arguments in ((), ("--idle-to", "request")):
        (gpu,) = json.loads(replay(path, "--json", *arguments).stdout)["gpus"].values()
        assert gpu["attributed_joules"] + gpu["idle_joules"] == pytest.approx(gpu["measured_joules"])
        idle.append(gpu["idle_joules"])
    assert idle[0] > 10.0
    assert idle[1] == 0.0
    assert replay(path, "--idle-to", "nobody").exit_code == 2


def test_tasks_are_told_by_the_settings_of_serve(tmp_path: Path) -> None:
    """The class stands in the line of a request; without the flags none is told, and what cannot be used is
    refused as in a configuration."""
    path = trace(tmp_path)
    rule = ("--task-from", "lengths", "--task-lengths", "short: output <= 4")
    tasks = [
        json.loads(replay(path, "--requests", "-", *arguments).stdout)["task"] for arguments in ((), rule)
    ]
    assert tasks == ["", "short"]
    refused = replay(path, "--task-from", "lengths")
    assert refused.exit_code != 0
    assert "task_lengths is none" in str(refused.exception)
