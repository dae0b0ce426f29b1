"""What the pictures are drawn from: a simulated fleet whose figures are the sidecar's own."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from grafana.draw.recording import _ADAPTERS, SCRAPE_SECONDS, SITES, Told, _write
from joulescope.model import Snapshot

SECONDS = 30.0
WALL_NS = 1_700_000_000_000_000_000
SAMPLE = re.compile(r'(\w+)\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\} (\S+) (\S+)')


@pytest.fixture(scope="module")
def snapshots() -> list[Snapshot]:
    """Half a minute of the first sidecar."""
    return list(Told(SITES[0], SECONDS, WALL_NS).snapshots())


def test_there_is_a_snapshot_for_each_scrape(snapshots: list[Snapshot]) -> None:
    """They come at the interval of scrapes, told in wall time."""
    assert [snapshot.wall_seconds - WALL_NS / 1e9 for snapshot in snapshots] == pytest.approx(
        [0.0, SCRAPE_SECONDS, 2 * SCRAPE_SECONDS]
    )


def test_requests_are_served_and_joules_add_up(snapshots: list[Snapshot]) -> None:
    """Requests have finished, and what was measured is divided without rest."""
    (engine,), (gpu,) = snapshots[-1].engines, snapshots[-1].gpus
    assert sum(engine.requests_finished.values()) > 0
    assert gpu.measured_joules > 0
    assert gpu.residual_joules == 0


def test_adapters_tenants_and_tasks_are_told_apart(snapshots: list[Snapshot]) -> None:
    """Requests have the adapters of the list, and the services of the simulation are tenants and tasks."""
    (engine,) = snapshots[-1].engines
    assert {name for name, _ in _ADAPTERS if name} <= set(engine.adapters)
    assert {"chat", "code"} <= set(engine.tenants)
    assert set(engine.tasks) == set(engine.tenants)


def test_what_is_made_up_is_physical(snapshots: list[Snapshot]) -> None:
    """Ratios are ratios, and the GPU is neither frozen nor molten."""
    for snapshot in snapshots[1:]:
        reading = snapshot.gpus[0].reading
        assert reading is not None
        assert reading.status is not None
        assert 0 <= (reading.status.sm_active_ratio or 0) <= 1
        assert 0 <= (reading.status.dram_active_ratio or 0) <= 1
        assert 20 < (reading.status.temperature_celsius or 0) < 90


def test_the_text_is_what_promtool_reads(tmp_path: Path) -> None:
    """Every line is a sample with the target's labels and a time, and a series has each time once."""
    path = tmp_path / "part.txt"
    _write(SITES[3], SECONDS, WALL_NS, path)
    times = defaultdict(list)
    for line in path.read_text().splitlines():
        found = SAMPLE.fullmatch(line)
        assert found is not None, line
        assert 'instance="node-d:5685"' in found[2]
        times[found[1], found[2]].append(float(found[4]))
    assert len(times) > 50
    for series in times.values():
        assert series == sorted(set(series))
