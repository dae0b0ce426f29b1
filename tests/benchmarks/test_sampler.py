"""The benchmark of the sampler: its arithmetic, one short run, and what stands for Zeus."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.meter_loads import Truth
from benchmarks.sampler import cost, errors_of, has_zeus, joined, side_by_side, text_of
from joulescope.model import EnergyInterval

pytestmark = pytest.mark.slow

S = 1_000_000_000

ZEUS = """
import time
class Measurement:
    def __init__(self, joules): self.gpu_energy = {0: joules}
class ZeusMonitor:
    def __init__(self, cpu_indices): self.begun = {}
    def begin_window(self, key, sync_execution): self.begun[key] = time.monotonic()
    def end_window(self, key, sync_execution):
        return Measurement(400.0 * (time.monotonic() - self.begun.pop(key)))
class PowerMonitor:
    def __init__(self, update_period): self.update_period = update_period or 0.0
    def get_energy(self, start, end): return {0: 400.0 * (end - start)}
    def stop(self): pass
"""


def test_errors_of_stretches() -> None:
    """At 100 W a second told as 90 J is off by 10 %, two seconds told as 200 J by nothing."""
    found = errors_of([(0, S, 90.0), (S, 3 * S, 200.0)], Truth(100.0, 100.0, 0.0, 0.0, 0.0))
    assert found is not None
    assert (found["error_max"], found["error_p50"], found["seconds"]) == pytest.approx((10.0, 5.0, 1.5))
    assert errors_of([], Truth(1.0, 1.0, 0.0, 0.0, 0.0)) is None


def test_intervals_join_to_longer_stretches() -> None:
    """Stretches of a second and more hold every joule of their intervals; what is left over is no stretch."""
    intervals = [EnergyInterval("GPU-a", n * S // 2, (n + 1) * S // 2, 50_000_000) for n in range(5)]
    assert joined(intervals, 1.0) == [(0, S, 100.0), (S, 2 * S, 100.0)]


def test_a_short_run_shows_cost_and_punctuality() -> None:
    """Half a second at 50 Hz of two GPUs: some 25 reads, energy and power asked 50 times a second of each."""
    found = cost(2, 50.0, 0.5)
    assert 5 <= found["reads"] <= 30
    assert found["cpu_seconds_per_sample"] > 0
    assert found["late_ms"]["p50"] <= found["late_ms"]["p99"] <= found["late_ms"]["max"]
    assert found["calls_per_second"]["energy"] == pytest.approx(2 * found["reads"] / 0.5, rel=0.4)
    assert "| 2 | 50 |" in text_of({"machine": {}, "seconds": 0.5, "cost": [found]})


def test_without_zeus_its_rows_are_missing_by_name() -> None:
    """joulescope's own row is there; the page says how Zeus is installed."""
    found = side_by_side(str(Path("/nowhere/python")), 1, 0.6)
    assert list(found["rows"]) == ["joulescope, sampler and meters at 20 Hz"]
    page = text_of({"machine": {}, "seconds": 0.6, "zeus": found})
    assert "pip install zeus" in page


def test_zeus_is_run_beside_it_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three rows of Zeus' appear, by a child process that finds a package of that name."""
    package, facts = tmp_path / "zeus", tmp_path / "zeus-9.9.dist-info"
    package.mkdir()
    facts.mkdir()
    (package / "__init__.py").write_text("")
    (package / "monitor.py").write_text(ZEUS)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: zeus\nVersion: 9.9\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert has_zeus(sys.executable)
    found = side_by_side(sys.executable, 1, 1.0)
    assert found["zeus"]["zeus"] == "9.9"
    assert len(found["rows"]) == 4
    assert all(row["short"]["count"] >= 1 for row in list(found["rows"].values())[1:])
