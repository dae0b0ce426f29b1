"""Latent figures as counters: the sums of minutes, those that are open among them, that never fall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from joulescope.clock import ManualClock, WallAnchor
from joulescope.daemon.daemon import Daemon
from joulescope.daemon.latent_keeper import LOOK_NS, LatentKeeper
from joulescope.diagnosis_model import LatentTotals
from joulescope.insight.diagnosis.latents import latents_of
from joulescope.insight.diagnosis.window import window_of
from joulescope.minute_model import EngineMinute, Kind, Load, Steps
from joulescope.minutes import merge, read_lines
from joulescope.model import GpuInfo
from joulescope.sampling.sampler import SensorOpened
from tests import worlds
from tests.daemon.test_daemon import Bench, Sink, reading, settings_in
from tests.insight.diagnosis.windows import minutes
from tests.worlds import GPU, MS, SECOND


def _minute(engine: str, memory_seconds: float, used_seconds: float = 0.0) -> EngineMinute:
    steps = Steps(memory_bound_seconds=memory_seconds)
    return EngineMinute(Kind(engine), 0.0, 60.0, decode_steps=steps, load=Load(kv_usage_seconds=used_seconds))


def _open(*found: EngineMinute) -> Callable[[int], Sequence[EngineMinute]]:
    return lambda now_ns: found


def _memory(totals: Sequence[LatentTotals]) -> dict[str, float]:
    return {each.engine: each.bound_seconds["memory"] for each in totals}


def test_they_are_what_a_diagnosis_reads_off_the_same_minutes() -> None:
    """Ratios of the counters are the latents of the window, figure by figure."""
    window = window_of(minutes(), "A", None)
    keeper = LatentKeeper()
    keeper.take(minutes())
    (told,) = keeper.look(0, _open())
    latents = latents_of(window)
    pace = {name: seconds for name, seconds in told.bound_seconds.items() if name != "host"}
    busy = sum(pace.values())
    assert latents.memory_bound_ratio == pytest.approx(pace["memory"] / busy, abs=1e-9)
    assert latents.compute_bound_ratio == pytest.approx(pace["compute"] / busy, abs=1e-9)
    assert latents.power_bound_ratio == pytest.approx(pace["power"] / busy, abs=1e-9)
    waited = told.bound_seconds["host"]
    assert latents.waited_ratio == pytest.approx(waited / (busy + waited), rel=1e-6)
    assert latents.arithmetic_intensity == pytest.approx(told.flops / sum(told.read_bytes.values()))
    joules = told.modelled_joules
    assert latents.static_joules_ratio == pytest.approx(joules["static"] / sum(joules.values()))
    assert latents.kv_usage_ratio == pytest.approx(told.kv_usage_seconds / told.kv_known_seconds)
    assert latents.kv_full_ratio == pytest.approx(told.kv_full_seconds / told.kv_known_seconds)


def test_open_minutes_count_as_they_stand_and_once() -> None:
    """A minute that ends is no leap; figures are looked at anew after five seconds, or when one has ended."""
    keeper = LatentKeeper()
    assert _memory(keeper.look(0, _open(_minute("a", 10.0), _minute("", 5.0)))) == {"a": 10.0}
    assert _memory(keeper.look(LOOK_NS - 1, _open(_minute("a", 20.0)))) == {"a": 10.0}
    assert _memory(keeper.look(LOOK_NS, _open(_minute("a", 20.0)))) == {"a": 20.0}
    keeper.take([_minute("a", 30.0)])
    found = _memory(keeper.look(LOOK_NS + 1, _open(_minute("a", 1.0), _minute("b", 2.0))))
    assert found == {"a": 31.0, "b": 2.0}


def test_what_is_taken_back_is_no_fall() -> None:
    """To whoever reads a counter, a fall is a restart; each figure stands still until it is reached again."""
    keeper = LatentKeeper()
    keeper.look(0, _open(_minute("a", 10.0, 8.0)))
    (told,) = keeper.look(LOOK_NS, _open(_minute("a", 11.0, 5.0)))
    assert (told.bound_seconds["memory"], told.kv_usage_seconds) == (11.0, 8.0)
    (told,) = keeper.look(2 * LOOK_NS, _open(_minute("a", 12.0, 9.0)))
    assert (told.bound_seconds["memory"], told.kv_usage_seconds) == (12.0, 9.0)


def test_a_running_sidecar_tells_them_within_the_minute(tmp_path: Path) -> None:
    """They grow while a minute is open, and come to the sums of its lines in the end."""
    clock, sink = ManualClock(), Sink()
    settings = replace(settings_in(tmp_path), diagnosis_seconds=0.0)
    daemon = Daemon(
        settings, open_sensor=None, clock=clock, sinks=[sink], wall=WallAnchor(0, 1_800_000_000 * SECOND)
    )
    bench = Bench(settings, daemon, clock, sink)
    daemon.deliver(SensorOpened(0, [GpuInfo(GPU, power_limit_watts=700.0)]))
    bench.tell([worlds.hello(), worlds.start(1)])
    seen = []
    for at in range(0, 70, 10):
        steps = [worlds.step(each, each * SECOND, (each + 1) * SECOND, [1]) for each in range(at, at + 10)]
        bench.tell(steps)
        bench.read([reading((10 * at + tenth) * 100 * MS) for tenth in range(1, 101)])
        bench.at((at + 10) * SECOND)
        daemon.publish()
        seen += [sum(each.bound_seconds.values()) for each in daemon.snapshot().latents]
    assert seen == sorted(seen)
    assert 0.0 < seen[2] < seen[-1]
    bench.peer.close()
    (told,) = daemon.close(0.1).latents
    (whole,) = merge(read_lines(daemon._minutes.ring.lines(0.0, None, 1 << 20), "the ring"))
    both = (whole.decode_steps, whole.prefill_steps)
    assert told.bound_seconds["memory"] == pytest.approx(sum(each.memory_bound_seconds for each in both))
    assert told.flops == pytest.approx(sum(each.flops for each in both))
    assert told.modelled_joules["static"] == pytest.approx(sum(each.static_joules for each in both))
