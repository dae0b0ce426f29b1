"""The benchmark of the meter, on meters whose ways are known."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from benchmarks.gpu.characterise import (
    Series,
    characterise_hardware,
    characterise_nvml,
    characterise_simulated,
    not_looked_at,
    report_of,
    slug,
    watch,
)
from benchmarks.gpu.sensor_page import text_of
from benchmarks.gpu.stand_in import characterise_stand_in
from joulescope.clock import ManualClock
from joulescope.simulation.worlds import H100_LLAMA_8B
from tests.fake_nvml import NOT_SUPPORTED, FakeDriver, FakeGpu
from tests.sensors.conftest import MakeDriver

START_NS = 1_000_000_000


@dataclass
class Driven(ManualClock):
    """A clock that tells the driver's counter how far to be whenever time passes."""

    on_time: Callable[[int], None] = lambda time_ns: None

    def advance(self, duration_seconds: float) -> None:
        super().advance(duration_seconds)
        self.on_time(self.time_ns)


def counting(driver: FakeDriver, tick_ns: int, watts: float) -> Callable[[int], None]:
    def on_time(time_ns: int) -> None:
        seen_ns = time_ns - time_ns % tick_ns
        driver.set_counter("GPU-a", int(watts * seen_ns / 1e6))

    return on_time


def test_a_real_pynvml_shows_tick_and_idle_power(make_driver: MakeDriver) -> None:
    """Through pynvml on the stand-in driver: 50 ms ticks, 85 W by counter and by power, a unit in mJ."""
    driver = make_driver(FakeGpu("GPU-a", power_watts=85.0))
    clock = Driven(START_NS, on_time=counting(driver, 50_000_000, 85.0))
    found = characterise_nvml("GPU-a", 3.0, clock)
    assert found["gpu"]["name"] == "NVIDIA H100 80GB HBM3"
    assert found["counter_tick_ms"]["p50"] == pytest.approx(50.0, abs=1e-6)
    assert found["counter_resolution_mj"] == 4250
    assert found["watts"] == pytest.approx(85.0)
    assert found["counter_to_integrated_power"] == pytest.approx(1.0)
    assert found["power_watts"]["power"]["p50"] == 85.0
    json.dumps(found)


def test_what_the_driver_lacks_is_named_and_not_invented(make_driver: MakeDriver) -> None:
    """Calls that the library lacks or refuses are listed, and their figures are absent, never 0."""
    driver = make_driver(FakeGpu("GPU-a", power_watts=60.0))
    for function in ("energy", "fields", "clock"):
        driver.set_code("GPU-a", function, NOT_SUPPORTED)
    found = characterise_nvml(None, 0.1, ManualClock(START_NS))
    assert found["gpu"]["cannot_tell"] == ["energy", "power_average", "power_instant", "sm_clock"]
    assert found["counter_tick_ms"] is None
    assert found["counter_watts"] is None
    assert found["counter_to_integrated_power"] is None
    assert found["watts"] == 60.0
    assert found["state"]["before"]["sm_mhz"] is None


def test_the_probe_leaves_nvml_closed(make_driver: MakeDriver) -> None:
    """NVML is shut down afterwards, also when the GPU asked for is not there."""
    driver = make_driver(FakeGpu("GPU-a"))
    characterise_nvml("GPU-a", 0.01, ManualClock(START_NS))
    with pytest.raises(Exception, match="Not Found"):
        characterise_nvml("GPU-x", 0.01, ManualClock(START_NS))
    assert driver.open_users() == 0


def test_a_frozen_counter_has_no_period() -> None:
    """A counter that never moves shows no tick, no unit and no power."""
    calls: dict[str, Callable[[], float | None]] = {"energy": lambda: 5.0, "power": lambda: 70.0}
    found = report_of(watch(calls, ManualClock(START_NS), 1.0))
    assert found["counter_tick_ms"] is None
    assert found["counter_resolution_mj"] is None
    assert found["counter_watts"] is None
    assert found["watts"] == 70.0


def test_a_counter_that_disagrees_with_power_shows() -> None:
    """Half the joules by the counter are a ratio of one half."""
    clock = ManualClock(START_NS)
    calls: dict[str, Callable[[], float | None]] = {
        "energy": lambda: (clock.time_ns // 100_000_000) * 5.0,
        "power": lambda: 100.0,
    }
    found = report_of(watch(calls, clock, 5.0))
    assert found["counter_watts"] == pytest.approx(50.0)
    assert found["counter_to_integrated_power"] == pytest.approx(0.5)


def test_calls_are_timed() -> None:
    """Each call's time is what the clock says passed in it; slow calls are made seldom."""
    clock = ManualClock(START_NS)

    def slow() -> float:
        clock.advance(20e-6)
        return 1.0

    series = watch({"energy": slow, "memory": slow}, clock, 1.0)
    assert set(series["energy"].took_ns) == {20_000}
    assert len(series["energy"].took_ns) > 400
    assert len(series["memory"].took_ns) == pytest.approx(10, abs=1)
    assert report_of(series)["call_us"]["energy"]["p50"] == pytest.approx(20.0)


def test_an_answer_that_fails_now_and_then_leaves_a_hole() -> None:
    """What a call could not tell is no value; that it was made still counts."""
    series = Series()
    for place, value in enumerate((1.0, None, 2.0)):
        series.add(place, place + 2, value)
    assert (series.values, series.times_ns) == (array("d", [1.0, 2.0]), array("q", [1, 3]))
    assert len(series.took_ns) == 3
    assert series.changes().tolist() == [1]


def test_the_simulated_meter_is_what_it_is_said_to_be() -> None:
    """The simulated sensor ticks every 100 ms and idles at its world's power."""
    quiet = replace(H100_LLAMA_8B, hardware=replace(H100_LLAMA_8B.hardware, idle_watts=88.0))
    found = characterise_simulated(quiet, 0, 4.0)
    assert found["idle_watts"] == pytest.approx(88.0, rel=1e-3)
    assert found["idle"]["counter_tick_ms"]["p50"] == pytest.approx(100.0, abs=2.1)
    assert found["load"]["counter_watts"] == pytest.approx(700.0 * 0.75, rel=0.01)
    assert found["idle"]["call_us"] is None
    page = text_of({"machine": {}, **found})
    assert "| counter ticks every, ms (median) | 100 | 100 |" in page


@pytest.mark.parametrize(
    ("part", "windows_ms"),
    [("h100", {"power": 1000, "power_instant": 25, "power_average": 1000}), ("pascal", {"power": 10})],
)
def test_bursts_show_what_each_reading_averages(part: str, windows_ms: dict[str, float]) -> None:
    """The windows that the stand-in driver is known to have are found from steps of load, to 3 ms or 2 %."""
    found = characterise_stand_in(part, 1.0)
    windows = found["bursts"]["windows"]
    assert {name: window["window_ms"] for name, window in windows.items()} == {
        name: pytest.approx(window_ms, abs=3, rel=0.02) for name, window_ms in windows_ms.items()
    }
    assert "context" in found["not_looked_at"]
    json.dumps(found)
    page = text_of({"machine": {}, **found})
    assert f"| power | {windows['power']['window_ms']:g} | 0 |" in page
    assert "- context: the stand-in driver has no CUDA" in page


def test_gpm_and_the_buffer_are_looked_at_where_they_are() -> None:
    """Samples of GPM nearer than 100 ms tell nothing; the buffer holds 100 samples, one every 20 ms."""
    found = characterise_stand_in("h100", 0.5)["load"]
    answered = found["gpm"]["answered"]
    assert {gap: answered[gap] for gap in ("10", "50", "100", "500")} == {
        "10": 0,
        "50": 0,
        "100": 1,
        "500": 1,
    }
    assert (found["buffer"]["count"], found["buffer"]["tick_ms"]) == (100, 20)
    assert found["buffer"]["clock"] == "monotonic"
    assert found["buffer"]["watts"] == pytest.approx(700 * 0.55, rel=0.02)


def test_without_torch_the_loads_are_named_as_not_looked_at(make_driver: MakeDriver) -> None:
    """On a machine without a load the rest is found out, and what is missing says why."""
    make_driver(FakeGpu("GPU-a", power_watts=60.0, gpm=(), codes=(("samples", NOT_SUPPORTED),)))
    found = characterise_hardware("GPU-a", 0.05, burn=False)
    assert set(found["not_looked_at"]) == {"context", "bursts", "load", "gpm", "buffer"}
    assert "--burn" in found["not_looked_at"]["load"]
    assert found["idle_watts"] == 60.0


def test_a_window_that_could_not_be_told_is_named() -> None:
    """A reading that never followed a burst is no window of 0 ms, but one that was not seen."""
    found = {"gpu": {}, "idle": {"gpm": {}, "buffer": {}}, "context": {}, "load": {}}
    lacks = not_looked_at({**found, "bursts": {"windows": {"power": None}}}, "")
    assert list(lacks) == ["window of power"]


def test_names_become_file_names() -> None:
    """A GPU's name is made of letters, digits and underscores."""
    assert slug("NVIDIA H100 80GB HBM3 (simulated)") == "nvidia_h100_80gb_hbm3_simulated"
