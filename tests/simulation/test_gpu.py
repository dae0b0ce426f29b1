"""The simulated GPU's history."""

from __future__ import annotations

from dataclasses import replace

import pytest

from joulescope.sensors.simulated import SimulatedSource
from joulescope.simulation import gpu as gpu_module
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.parts import Thermal
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


def test_between_steps_clocks_stay_up_until_the_engine_is_idle() -> None:
    """A GPU with a power for gaps draws that after a step, and idle power from when it is told."""
    gpu = SimulatedGpu(replace(H100, gap_watts=130.0), 0)
    gpu.append(SECOND, 2 * SECOND, 500.0)
    gpu.idle(4 * SECOND)
    assert [gpu.power_watts_at(gpu.uuid, at * SECOND // 2) for at in (1, 3, 5, 9)] == [
        100.0,
        500.0,
        130.0,
        100.0,
    ]
    assert gpu.energy_joules_at(gpu.uuid, 5 * SECOND) == pytest.approx(100.0 + 500.0 + 2 * 130.0 + 100.0)


def test_leakage_follows_power_with_its_time_constant() -> None:
    """After a long hot stretch a GPU draws more than it will once it has cooled, and less and less."""
    thermal = Thermal(time_constant_seconds=10.0, leak_per_watt=0.05)
    gpu = SimulatedGpu(replace(H100, thermal=thermal), 0)
    cool = gpu.power_watts_at(gpu.uuid, 0)
    for number in range(100):
        gpu.append(number * SECOND, (number + 1) * SECOND, 650.0)
    watts = [gpu.power_watts_at(gpu.uuid, (100 + after) * SECOND) for after in (0, 10, 300)]
    assert watts[0] - watts[2] == pytest.approx(0.05 * 550.0, rel=0.1)
    assert (watts[1] - watts[2]) / (watts[0] - watts[2]) == pytest.approx(0.39, abs=0.03)
    assert cool < watts[2] + 3.0
    assert gpu.leak_watts_at(100 * SECOND) == pytest.approx(watts[0] - H100.idle_watts)


def test_the_counter_of_a_cooling_gpu_is_the_integral_of_its_power() -> None:
    """Where power relaxes, energy between two instants is the sum of the power in small pieces."""
    gpu = SimulatedGpu(replace(H100, thermal=Thermal(time_constant_seconds=5.0)), 0)
    gpu.append(0, 20 * SECOND, 690.0)
    pieces = [gpu.power_watts_at(gpu.uuid, 20 * SECOND + piece * SECOND // 100) for piece in range(1001)]
    integral = (sum(pieces) - (pieces[0] + pieces[-1]) / 2) / 100
    drawn = gpu.energy_joules_at(gpu.uuid, 30 * SECOND) - gpu.energy_joules_at(gpu.uuid, 20 * SECOND)
    assert drawn == pytest.approx(integral, rel=1e-6)


def test_it_is_what_the_sensor_asks_for() -> None:
    """The GPU is a source of the simulated sensor, and its UUID follows from the seed."""
    source: SimulatedSource = SimulatedGpu(H100, 0, seed=3)
    assert source.gpus() == SimulatedGpu(H100, 5, seed=3).gpus()
    assert source.gpus()[0].gpu != SimulatedGpu(H100, 0, seed=4).uuid
    assert source.gpus()[0].power_limit_watts == 700.0
