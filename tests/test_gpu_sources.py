"""Who is believed of a GPU: the sidecar's own sensor, a sampler in the GPU's engine, and nobody else."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from joulescope.clock import WallAnchor
from joulescope.hook import wire
from joulescope.model import GpuInfo, GpuReading, GpuTotals
from joulescope.pipeline import Pipeline, Scope
from tests import worlds
from tests.worlds import GPU, MS, SECOND

STRANGER = "GPU-stranger"
ENGINE, SAMPLER = 1, 2
WATTS = 300.0


def sampler_hello(instance: str = "i") -> wire.Hello:
    return wire.Hello(time_ns=0, role="sampler", sampler=wire.SamplerFacts(instance_id=instance))


def sample(time_ns: int, gpu: str = GPU, watts: float = WATTS, **more: object) -> wire.Sample:
    told = {"energy_joules": watts * time_ns / SECOND, "power_watts": watts, **more}
    return wire.Sample(gpu=gpu, time_ns=time_ns, **told)  # type: ignore[arg-type]


def readings(begin_ns: int, end_ns: int, gpu: str = GPU, watts: float = WATTS) -> list[GpuReading]:
    return [
        GpuReading(gpu, at, energy_joules=watts * at / SECOND, power_watts=watts)
        for at in range(begin_ns, end_ns + 1, 100 * MS)
    ]


def samples(begin_ns: int, end_ns: int, gpu: str = GPU, watts: float = WATTS) -> list[wire.AnyRecord]:
    return [sample(at, gpu, watts) for at in range(begin_ns, end_ns + 1, 100 * MS)]


def pipeline(scope: Scope | None = None, *, gpus: Sequence[str] = (GPU,), instance: str = "i") -> Pipeline:
    """An engine that names ``gpus``, and a sampler that has said hello."""
    made = Pipeline(scope=scope, wall=WallAnchor(0, 0))
    made.take(ENGINE, [worlds.hello(gpus=gpus)])
    made.take(SAMPLER, [sampler_hello(instance)])
    return made


def only(made: Pipeline, now_ns: int) -> GpuTotals:
    (gpu,) = made.snapshot(now_ns).gpus
    return gpu


def test_a_sampler_measures_the_gpu_of_its_engine() -> None:
    """Its samples become the joules of the GPU, which is shown as read by the engine."""
    made = pipeline()
    made.take(SAMPLER, [wire.Gpu(gpu=GPU, name="H100"), *samples(0, 2 * SECOND)])
    made.finish(2 * SECOND)
    gpu = only(made, 2 * SECOND)
    assert gpu.measured_joules == pytest.approx(2 * WATTS)
    assert (gpu.info.sensor, gpu.info.name, gpu.up) == ("engine", "H100", True)


@pytest.mark.parametrize("instance", ["i", "j"])
def test_a_stranger_s_gpu_is_refused(instance: str) -> None:
    """A sampler that speaks of a GPU that no engine of its own instance names is not believed, whether it is
    the neighbour's or nobody's; nothing of it is shown, and it is counted."""
    made = pipeline(Scope(all_gpus=True), instance=instance)
    made.take(3, [worlds.hello(gpus=[STRANGER], instance="k")])
    told = [wire.Gpu(gpu=STRANGER), *samples(0, SECOND, STRANGER), wire.GpuStatus(gpu=STRANGER, time_ns=0)]
    made.take(SAMPLER, told)
    snapshot = made.snapshot(SECOND)
    assert snapshot.gpus == ()
    assert snapshot.sidecar.rejected_records["stranger_gpu"] == len(told)


def test_a_sampler_may_come_before_its_engine() -> None:
    """It says only once what its GPU is; its samples count from when the engine names the GPU."""
    made = Pipeline(scope=Scope(), wall=WallAnchor(0, 0))
    made.take(SAMPLER, [sampler_hello()])
    made.take(SAMPLER, [wire.Gpu(gpu=GPU, name="H100"), *samples(0, SECOND)])
    assert made.snapshot(SECOND).gpus == ()
    made.take(ENGINE, [worlds.hello(gpus=(GPU,))])
    made.take(SAMPLER, samples(2 * SECOND, 3 * SECOND))
    made.finish(3 * SECOND)
    gpu = only(made, 3 * SECOND)
    assert (gpu.info.name, gpu.measured_joules) == ("H100", pytest.approx(WATTS))


def test_only_samplers_may_speak_of_gpus() -> None:
    """An engine's own connection, and one that never said hello, are refused as before."""
    made = pipeline()
    made.take(ENGINE, [wire.Gpu(gpu=GPU), *samples(0, SECOND)])
    made.take(9, [wire.Gpu(gpu=GPU), *samples(0, SECOND)])
    assert made.snapshot(SECOND).gpus == ()


def test_a_sampler_is_nothing_else() -> None:
    """It cannot become an engine, nor report steps."""
    made = pipeline()
    made.take(SAMPLER, [worlds.hello(instance="x"), worlds.step(0, 0, SECOND, [1])])
    rejected = made.snapshot(SECOND).sidecar.rejected_records
    assert rejected["repeated_hello"] == 1
    assert rejected["before_hello"] == 1
    assert len(made.snapshot(SECOND).engines) == 1


def test_a_listed_gpu_may_come_from_any_engine() -> None:
    """What the operator lists is meant, though an engine that cannot tell its GPUs names none."""
    made = pipeline(Scope(uuids={GPU}), gpus=())
    made.take(SAMPLER, [wire.Gpu(gpu=GPU), *samples(0, SECOND)])
    assert only(made, SECOND).up


def test_the_own_sensor_wins_and_joules_count_once() -> None:
    """While both read, the sampler's readings are counted and dropped."""
    made = pipeline()
    made.gpus_found([GpuInfo(GPU, sensor="nvml")])
    made.take(SAMPLER, [wire.Gpu(gpu=GPU)])
    for at in range(0, 2 * SECOND, SECOND):
        made.read(readings(at, at + 900 * MS))
        made.take(SAMPLER, samples(at, at + 900 * MS, watts=7 * WATTS))
    made.finish(2 * SECOND)
    gpu = only(made, 1900 * MS)
    assert gpu.measured_joules == pytest.approx(1.9 * WATTS)
    assert (gpu.info.sensor, gpu.counter_resets, gpu.rejected_intervals) == ("nvml", 0, 0)
    assert made.snapshot(2 * SECOND).sidecar.rejected_records["spare_sample"] == 20


def test_a_sampler_takes_over_after_two_seconds_of_silence() -> None:
    """The driver's counter is the same for all its clients, so the meter goes on and misses no joule; when
    the own sensor comes back it wins again."""
    made = pipeline()
    made.gpus_found([GpuInfo(GPU, sensor="nvml")])
    made.take(SAMPLER, [wire.Gpu(gpu=GPU)])
    made.read(readings(0, SECOND))
    made.take(SAMPLER, samples(1100 * MS, 5 * SECOND))
    assert only(made, 5 * SECOND).info.sensor == "engine"
    assert made.snapshot(5 * SECOND).sidecar.rejected_records["spare_sample"] == 20
    made.read(readings(5100 * MS, 6 * SECOND))
    made.finish(6 * SECOND)
    gpu = only(made, 6 * SECOND)
    assert (gpu.info.sensor, gpu.counter_resets) == ("nvml", 0)
    assert gpu.measured_joules == pytest.approx(6 * WATTS)


def test_a_lost_sensor_leaves_at_once() -> None:
    """When the own sensor says itself that it is down, the sampler need not wait."""
    made = pipeline()
    made.gpus_found([GpuInfo(GPU, sensor="nvml")])
    made.read(readings(0, SECOND))
    made.sensor_down()
    made.take(SAMPLER, [wire.Gpu(gpu=GPU), *samples(1100 * MS, 1200 * MS)])
    assert only(made, 1200 * MS).info.sensor == "engine"


def test_one_of_two_samplers_is_believed_until_it_goes() -> None:
    """Two engines that share a GPU may both send it: it is measured once."""
    made = pipeline()
    made.take(3, [sampler_hello()])
    for session in (SAMPLER, 3):
        made.take(session, [wire.Gpu(gpu=GPU, name=f"by {session}"), *samples(0, SECOND)])
    assert made.snapshot(SECOND).sidecar.rejected_records["spare_sample"] == 11
    made.close_session(SAMPLER, SECOND, "disconnected")
    assert not only(made, SECOND).up
    made.take(3, samples(1100 * MS, 2 * SECOND))
    made.finish(2 * SECOND)
    gpu = only(made, 2 * SECOND)
    assert (gpu.info.name, gpu.measured_joules) == ("by 3", pytest.approx(2 * WATTS))


def test_a_source_that_measures_otherwise_gets_another_meter() -> None:
    """Power in place of a counter: what both measured stays, and nothing is made up in between."""
    made = pipeline()
    made.gpus_found([GpuInfo(GPU, sensor="nvml")])
    made.read(readings(0, SECOND))
    made.sensor_down()
    told = [sample(at, energy_joules=None) for at in range(2 * SECOND, 3 * SECOND + 1, 100 * MS)]
    made.take(SAMPLER, [wire.Gpu(gpu=GPU, energy_source="power"), *told])
    made.finish(3 * SECOND)
    gpu = only(made, 3 * SECOND)
    assert gpu.info.energy_source == "power"
    assert gpu.measured_joules == pytest.approx(2 * WATTS)


def test_samples_of_another_clock_are_refused() -> None:
    """An instant that is not now, as a time namespace makes, would be laid over other steps."""
    made = pipeline()
    made.take(SAMPLER, [wire.Gpu(gpu=GPU)])
    for odd_ns in (100 * SECOND + 2 * SECOND, 2**62, 30 * SECOND, -SECOND):
        made.take(SAMPLER, [sample(odd_ns)], 100 * SECOND)
    made.take(SAMPLER, samples(99 * SECOND, 100 * SECOND), 100 * SECOND)
    assert made.snapshot(100 * SECOND).sidecar.rejected_records["wrong_clock"] == 4
    assert only(made, 100 * SECOND).up


def test_nonsense_of_a_sampler_does_not_come_through() -> None:
    """A GPU without a description, one with another kind of meter, a factor of its own, and figures that are
    none: refused or left out, while the joules go on."""
    made = pipeline()
    made.take(SAMPLER, [sample(0), wire.Gpu(gpu=GPU, energy_source="magic"), sample(0)])
    made.take(
        SAMPLER,
        [
            wire.Gpu(
                gpu=GPU,
                name="x" * 9999,
                calibration_factor=-1.0,
                power_limit_watts=math.nan,
                instances=["MIG-mine"],
            ),
            *samples(0, SECOND),
            wire.GpuStatus(gpu=GPU, time_ns=SECOND, temperature_celsius=math.inf, sm_clock_hertz=1e9),
            sample(
                1100 * MS,
                power_watts=math.nan,
                clock_error_seconds=math.nan,
                sm_utilization_ratio=7.0,
                memory_used_bytes=-1,
            ),
        ],
    )
    gpu = only(made, 1100 * MS)
    assert (gpu.info.calibration_factor, gpu.info.power_limit_watts, gpu.info.instances) == (1.0, None, ())
    assert len(gpu.info.name) == 256
    reading = gpu.reading
    assert reading is not None
    assert (reading.power_watts, reading.sm_utilization_ratio, reading.memory_used_bytes) == (
        None,
        None,
        None,
    )
    assert reading.status is not None
    assert (reading.status.temperature_celsius, reading.status.sm_clock_hertz) == (None, 1e9)
    rejected = made.snapshot(1100 * MS).sidecar.rejected_records
    assert (rejected["before_gpu"], rejected["malformed_gpu"]) == (2, 1)


def test_a_sampler_stays_until_the_own_sensor_reads() -> None:
    """A sensor that was opened may still tell nothing: until it does, the sampler is needed."""
    made = pipeline()
    made.sensor_down()
    made.take(SAMPLER, [wire.Gpu(gpu=GPU), *samples(0, SECOND)], SECOND)
    made.gpus_found([GpuInfo(GPU, sensor="nvml")])
    assert not made.sources.own_reads(GPU, SECOND)
    made.read(readings(1100 * MS, 1100 * MS))
    assert made.sources.own_reads(GPU, 1100 * MS)


def test_a_sampler_cannot_describe_an_instance_nor_an_impossible_limit() -> None:
    """It reads whole GPUs: what it says of parents and slices is dropped, texts are cut, and a power limit
    that is none is not known, whether it comes with the description or with a status."""
    made = pipeline()
    told = wire.Gpu(
        gpu=GPU,
        energy_split="gpm",
        parent=STRANGER,
        slices=-3,
        slices_total=1,
        capabilities={"architecture": "x" * 10_000},
    )
    status = wire.GpuStatus(gpu=GPU, time_ns=0, power_limit_watts=-100.0, temperature_celsius=50.0)
    made.take(SAMPLER, [told, status, *samples(0, SECOND)])
    gpu = only(made, SECOND)
    assert (gpu.info.parent, gpu.info.energy_split, gpu.info.slices) == ("", "", None)
    assert gpu.info.power_limit_watts is None
    assert len(gpu.info.capabilities.architecture) == 256
    assert gpu.reading is not None
    assert gpu.reading.status is not None
    assert gpu.reading.status.temperature_celsius == 50.0


def test_an_engine_that_returns_late_does_not_bring_a_stranger_s_joules() -> None:
    """A sampler ends with its engine, so that nobody reads the GPU meanwhile. What it drew in more than a
    minute without an engine is not ours, and a shorter restart is seen whole."""
    for away_seconds, drawn_seconds in ((50, 52), (70, 2)):
        made = pipeline()
        made.take(SAMPLER, [wire.Gpu(gpu=GPU), *samples(0, SECOND)], SECOND)
        made.settle(SECOND)
        for session in (SAMPLER, ENGINE):
            made.close_session(session, SECOND, "closed")
        back_ns = (1 + away_seconds) * SECOND
        made.settle(back_ns - SECOND)
        made.take(8, [worlds.hello(gpus=[GPU])], back_ns)
        made.take(9, [sampler_hello()], back_ns)
        told = [wire.Gpu(gpu=GPU), *samples(back_ns, back_ns + SECOND)]
        made.take(9, told, back_ns + SECOND)
        made.finish(back_ns + SECOND)
        assert only(made, back_ns + SECOND).measured_joules == pytest.approx(drawn_seconds * WATTS)


def test_an_outage_under_a_connected_engine_is_bridged() -> None:
    """While an engine names the GPU, also by an instance of it, the counter's rise over minutes without a
    reading is ours."""
    for named, info in ((GPU, GpuInfo(GPU)), ("MIG-1", GpuInfo(GPU, instances=("MIG-1",)))):
        made = pipeline(gpus=[named])
        made.gpus_found([info])
        made.read(readings(0, 0))
        made.sensor_down()
        for second in range(120):
            made.settle(second * SECOND)
        made.gpus_found([info])
        made.read(readings(120 * SECOND, 120 * SECOND))
        made.finish(120 * SECOND)
        assert only(made, 120 * SECOND).measured_joules == pytest.approx(120 * WATTS)


def test_another_measurement_begins_where_the_former_ended() -> None:
    """The sidecar's sensor, which had a counter, is lost, and a sampler that integrates power steps in. What
    it read before is late: an interval from there would overlap what is accounted, and be refused whole."""
    made = pipeline(Scope(uuids={GPU}))
    made.gpus_found([GpuInfo(GPU, sensor="nvml")])
    made.take(SAMPLER, [wire.Gpu(gpu=GPU, energy_source="power")])
    made.read(readings(0, SECOND))
    made.sensor_down()
    made.take(SAMPLER, samples(500 * MS, 2 * SECOND))
    made.finish(2 * SECOND)
    assert only(made, 2 * SECOND).measured_joules == pytest.approx(1.9 * WATTS)
    assert "late_interval" not in made.snapshot(2 * SECOND).sidecar.rejected_records


def test_who_read_a_gpu_is_forgotten_with_the_sensor() -> None:
    """MIG instances get another name whenever they are made: what is kept of each must not fill memory."""
    made = pipeline(Scope(all_gpus=True))
    for number in range(100):
        part = GpuInfo(f"MIG-{number}", energy_source="mig_gpm", parent=GPU, slices=1, slices_total=7)
        made.sensor_down()
        made.gpus_found([GpuInfo(GPU), part])
        made.read([GpuReading(part.gpu, number * SECOND), *readings(number * SECOND, number * SECOND)])
    assert len(made.sources._elected) == 2
