"""Checks of the GPUs: that they can be read, by what, and whether their two meters tell the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from joulescope.clock import Clock
from joulescope.config import Settings
from joulescope.doctor.findings import Finding, Severity
from joulescope.doctor.place import Place
from joulescope.errors import MissingExtra, SensorError
from joulescope.model import GpuInfo, GpuReading
from joulescope.sampling.ticks import TickClock
from joulescope.sensors.amd import AmdSensor
from joulescope.sensors.nvml import NvmlSensor
from joulescope.sensors.nvml_capabilities import missing

_POLL_SECONDS = 0.01
_SLOW_CALL_SECONDS = 0.005
_USUAL_RATIO, _WRONG_RATIO = 0.1, 0.5
"""Counter and power may differ by so much over a few seconds, since power is a mean of the second before;
from the second on one of them is wrong."""

_MIG_LINE = (
    "Unset JOULESCOPE_MIG where its joules as a whole will do; else mend that, or sudo nvidia-smi -i N -mig 0"
)
_MIG_SECONDS = 2.0
"""A first mean of activity is there so long after the sensor was opened, at the latest."""

_NODES = ("/dev/nvidiactl", "/dev/nvidia0")


def check_gpus(settings: Settings, place: Place, seconds: float) -> Iterator[Finding]:
    """Opens the sensor as the sidecar would, and watches the meters for a few seconds."""
    if settings.sensor == "none":
        yield Finding("gpu", Severity.NOTE, "sensor is none: no joules are measured, by choice")
        return
    if settings.sensor == "engine":
        yield Finding(
            "gpu",
            Severity.NOTE,
            "sensor is engine: GPUs are read inside vLLM's container; run the doctor there",
        )
        return
    is_amd = settings.sensor == "amd"
    if not is_amd:
        yield from _nodes(place)
    wanted = None if settings.gpu_uuids is None else sorted(settings.gpu_uuids)
    try:
        sensor: NvmlSensor | AmdSensor
        if is_amd:
            sensor = AmdSensor.open(place.clock, wanted)
        else:
            sensor = NvmlSensor.open(place.clock, wanted, settings.mig)
    except MissingExtra as error:
        package = "amdsmi" if is_amd else "pynvml"
        yield Finding(
            "driver",
            Severity.NOTE,
            f"{package} is not installed here, so GPUs were not looked at",
            str(error),
        )
        return
    except SensorError as error:
        yield Finding("driver", Severity.ERROR, str(error), "" if is_amd else _container_line(place))
        return
    try:
        yield from _skipped(sensor)
        yield from _watched(sensor, place.clock, seconds)
    finally:
        sensor.close()


def _nodes(place: Place) -> Iterator[Finding]:
    """Device files that are there and may not be used: the commonest reason why a driver does not answer."""
    for name in _NODES:
        path = place.path(name)
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            yield Finding(
                "devices",
                Severity.ERROR,
                f"user {os.getuid()} may not read and write {name}",
                f"sudo chmod a+rw {name}, or give the container the device (--gpus all, nvidia.com/gpu)",
            )
    visible = place.environ.get("NVIDIA_VISIBLE_DEVICES")
    if visible in ("", "none", "void"):
        yield Finding(
            "devices",
            Severity.WARNING,
            f"NVIDIA_VISIBLE_DEVICES={visible}: the NVIDIA runtime gives this container no GPU",
            "env: [{name: NVIDIA_VISIBLE_DEVICES, value: all}], beside runtimeClassName: nvidia",
        )


def _container_line(place: Place) -> str:
    if place.container == "kubernetes":
        return (
            "For a sidecar: runtimeClassName: nvidia and env NVIDIA_VISIBLE_DEVICES=all, "
            "NVIDIA_DRIVER_CAPABILITIES=utility"
        )
    return "docker run --gpus all …" if place.container else ""


def _skipped(sensor: NvmlSensor | AmdSensor) -> Iterator[Finding]:
    for gpu, reason in sensor.skipped.items():
        yield Finding("gpu", Severity.WARNING, f"{gpu} is not read: {reason}")
    for gpu, reason in sensor.unsplit.items():
        yield Finding(
            "mig", Severity.WARNING, f"{gpu}: mig is gpm, but its joules are not split: {reason}", _MIG_LINE
        )


@dataclass
class _Watch:
    """What was seen of one GPU while the doctor looked."""

    ticks: TickClock = field(default_factory=TickClock)
    changes: int = 0
    first: tuple[int, float] | None = None
    last: tuple[int, float] | None = None
    before: GpuReading | None = None
    active_ratio: float | None = None
    watts: list[float] = field(default_factory=list)

    def see(self, reading: GpuReading) -> None:
        if reading.status is not None:
            self.active_ratio = reading.status.sm_active_ratio
        if reading.power_watts is not None:
            self.watts.append(reading.power_watts)
        joules, before = reading.energy_joules, self.before
        self.before = reading
        if joules is None or before is None or before.energy_joules is None or joules == before.energy_joules:
            return
        self.changes += 1
        self.last = (self.ticks.saw(before.time_ns, reading.time_ns), joules)
        self.first = self.first or self.last

    @property
    def counted_watts(self) -> float | None:
        """Mean power by the counter, from its first change to its last."""
        if self.first is None or self.last is None or self.last[0] <= self.first[0]:
            return None
        return (self.last[1] - self.first[1]) * 1e9 / (self.last[0] - self.first[0])


def _watched(sensor: NvmlSensor | AmdSensor, clock: Clock, seconds: float) -> Iterator[Finding]:
    gpus = sensor.gpus()
    seen = {info.gpu: _Watch() for info in gpus}
    until_ns = clock.now_ns() + round(1e9 * seconds)
    try:
        while clock.now_ns() < until_ns:
            for reading in sensor.read():
                seen[reading.gpu].see(reading)
            clock.sleep(_POLL_SECONDS)
    except SensorError as error:
        yield Finding("gpu", Severity.ERROR, f"while it was watched: {error}")
    for info in gpus:
        if info.parent:
            yield from _instance(info, seen[info.gpu], seconds)
        else:
            split = bool(info.energy_split) or info.gpu in sensor.unsplit
            yield from _told(info, seen[info.gpu], seconds, but_mig=split)
        failures = sensor.read_failures()[info.gpu]
        if failures:
            yield Finding("gpu", Severity.WARNING, f"{info.gpu}: {failures} of its calls failed meanwhile")
    yield from _latency(sensor)


def _told(info: GpuInfo, seen: _Watch, seconds: float, *, but_mig: bool) -> Iterator[Finding]:
    name = f"GPU {'?' if info.index is None else info.index} {info.gpu}"
    yield Finding(
        "gpu",
        Severity.OK,
        f"{name}: {info.name}, driver {info.driver_version or 'of unknown version'}, measured by its "
        + ("energy counter" if info.energy_source == "counter" else "power readings"),
    )
    for lack in missing(info.capabilities, but_mig=but_mig):
        severity = Severity.WARNING if lack.costs_accuracy else Severity.NOTE
        yield Finding(lack.name, severity, f"{name}: {lack.said}", lack.mend)
    if info.energy_source == "counter":
        yield from _meters(name, seen, seconds)
    elif info.capabilities.energy_counter:
        yield Finding(
            "counter",
            Severity.WARNING,
            f"{name}: its energy counter is not believed, so its joules are power readings, integrated",
            "Install ROCm 7 or later; docs/sensors-amd.md says by what a counter is judged",
        )
    status = seen.before.status if seen.before is not None else None
    if status is not None and status.throttle_reasons:
        yield Finding(
            "throttle",
            Severity.NOTE,
            f"{name}: its clocks are held back: {', '.join(sorted(status.throttle_reasons))}",
        )


def _instance(info: GpuInfo, seen: _Watch, seconds: float) -> Iterator[Finding]:
    """A MIG instance that gets a share of its GPU's joules, if it tells how busy it is."""
    name = f"{info.gpu}: {info.name}, {info.slices} of {info.slices_total} slices of {info.parent}"
    if seen.active_ratio is not None:
        said = (
            f"{name}, its joules are an estimate by performance counters ({seen.active_ratio:.0%} active now)"
        )
        yield Finding("mig", Severity.NOTE, said)
    elif seconds >= _MIG_SECONDS:
        said = f"{name}, tells no SM activity, or an impossible one: nothing on that GPU is split"
        yield Finding("mig", Severity.WARNING, said, _MIG_LINE)


def _meters(name: str, seen: _Watch, seconds: float) -> Iterator[Finding]:
    """The counter's tick, and the counter against power."""
    if not seen.changes:
        yield Finding(
            "counter",
            Severity.WARNING,
            f"{name}: its energy counter stood still for {seconds:g} s",
            "Compare with `nvidia-smi -q -d POWER`; if it never moves, this driver's counter is broken",
        )
        return
    period_ns = seen.ticks.period_ns
    if period_ns is not None:
        yield Finding(
            "counter", Severity.OK, f"{name}: its energy counter ticks every {period_ns / 1e6:.0f} ms"
        )
    counted = seen.counted_watts
    if counted is None or not seen.watts or not sum(seen.watts):
        return
    told = sum(seen.watts) / len(seen.watts)
    ratio = counted / told
    said = f"{name}: {counted:.1f} W by the counter, {told:.1f} W by power readings"
    if abs(ratio - 1.0) <= _USUAL_RATIO:
        yield Finding("counter", Severity.OK, said)
    else:
        yield Finding(
            "counter",
            Severity.ERROR if abs(ratio - 1.0) >= _WRONG_RATIO else Severity.WARNING,
            f"{said}: they differ by {abs(ratio - 1.0):.0%}",
            "Look again under steady load with --seconds 30; where it stays, watch "
            "joulescope_gpu_meters_ratio, and "
            "set JOULESCOPE_CALIBRATION from an external meter",
        )


def _latency(sensor: NvmlSensor | AmdSensor) -> Iterator[Finding]:
    told = sensor.call_times()
    slow = {name: told[name].seconds / told[name].calls for name in ("energy", "power") if name in told}
    for name, mean_seconds in slow.items():
        if mean_seconds > _SLOW_CALL_SECONDS:
            yield Finding(
                "driver",
                Severity.WARNING,
                f"the driver takes {1e3 * mean_seconds:.1f} ms to tell {name}: its lock is held, also "
                "against vLLM",
                "sudo nvidia-smi -pm 1; and look for other monitors that poll it, DCGM or nvidia-smi "
                "in a loop",
            )
    if slow and max(slow.values()) <= _SLOW_CALL_SECONDS:
        words = ", ".join(f"{name} in {1e6 * mean:.0f} µs" for name, mean in slow.items())
        yield Finding("driver", Severity.OK, f"it answers quickly: {words}")
