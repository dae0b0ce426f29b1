"""The simulated GPU's history."""

from __future__ import annotations

import pytest

from joulescope.sensors.simulated import SimulatedSource
from joulescope.simulation import gpu as gpu_module
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.worlds import H100

SECOND = 1_000_000_000


def test_energy_is_the_integral_of_power() -> None:
    """Idle at 100 W, a step at 500 W, idle again: the counter adds up at every point in between."""
    gpu = SimulatedGpu(H100, 0)
    gpu.append(SECOND, 2 * SECOND, 500.0)
    expected = {0: 0.0, SECOND // 2: 50.0, SECOND: 100.0, 3 * SECOND // 2: 350.0, 2 * SECOND: 600.0}
    expected[4 * SECOND] = 800.0
    for time_ns, joules in expected.items():
        assert gpu.energy_joules_at(gpu.uuid, time_ns) == pytest.approx(joules)
    assert [gpu.power_watts_at(gpu.uuid, at * SECOND // 2) for at in (1, 3, 5)] == [100.0, 500.0, 100.0]


def test_idle_power_rises_with_the_context() -> None:
    """Before a process holds a CUDA context the GPU idles at 69 W and uses no memory."""
    gpu = SimulatedGpu(H100, 0, context_ns=SECOND, memory_used_bytes=10)
    assert gpu.energy_joules_at(gpu.uuid, 2 * SECOND) == pytest.approx(169.0)
    assert gpu.power_watts_at(gpu.uuid, 0) == 69.0
    assert [gpu.memory_used_bytes_at(gpu.uuid, at) for at in (0, SECOND)] == [0, 10]


def test_a_history_cut_off_costs_only_what_had_run() -> None:
    """When the process dies in mid-step, the step's power ends there and later steps never happen."""
    gpu = SimulatedGpu(H100, 0)
    gpu.append(0, 2 * SECOND, 500.0)
    gpu.append(3 * SECOND, 4 * SECOND, 600.0)
    gpu.cut(SECOND)
    assert gpu.energy_joules_at(gpu.uuid, 4 * SECOND) == pytest.approx(500.0 + 3 * 100.0)
    assert gpu.busy_until_ns == SECOND


def test_steps_cannot_overlap() -> None:
    """One GPU runs one step at a time; anything else is a bug of the caller and says so."""
    gpu = SimulatedGpu(H100, 0)
    gpu.append(0, SECOND, 500.0)
    with pytest.raises(ValueError, match="must follow the last one"):
        gpu.append(SECOND - 1, 2 * SECOND, 500.0)


def test_a_bounded_history_keeps_the_counter() -> None:
    """Forgetting old steps changes no answer about recent ones."""
    gpu = SimulatedGpu(H100, 0)
    steps = 2 * gpu_module.HISTORY + 10
    for number in range(steps):
        gpu.append(2 * number * 1000, (2 * number + 1) * 1000, 500.0)
    assert len(gpu._starts) <= 2 * gpu_module.HISTORY
    expected = steps * 1000 * 600.0 / SECOND
    assert gpu.energy_joules_at(gpu.uuid, 2 * steps * 1000) == pytest.approx(expected)


def test_utilisation_is_the_busy_share_of_the_last_fifth_of_a_second() -> None:
    """Half of the window busy reads 0.5, an idle window 0, and a window before the start is not counted."""
    gpu = SimulatedGpu(H100, 0)
    assert gpu.sm_utilization_ratio_at(gpu.uuid, 0) == 0.0
    gpu.append(0, SECOND // 10, 500.0)
    assert gpu.sm_utilization_ratio_at(gpu.uuid, SECOND // 10) == 1.0
    assert gpu.sm_utilization_ratio_at(gpu.uuid, SECOND // 5) == pytest.approx(0.5)
    assert gpu.sm_utilization_ratio_at(gpu.uuid, SECOND) == 0.0


def test_it_is_what_the_sensor_asks_for() -> None:
    """The GPU is a source of the simulated sensor, and its UUID follows from the seed."""
    source: SimulatedSource = SimulatedGpu(H100, 0, seed=3)
    assert source.gpus() == SimulatedGpu(H100, 5, seed=3).gpus()
    assert source.gpus()[0].gpu != SimulatedGpu(H100, 0, seed=4).uuid
    assert source.gpus()[0].power_limit_watts == 700.0
