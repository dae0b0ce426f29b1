"""What the setting ``sensor`` means, and what is to be said of the sensors while they run."""

from __future__ import annotations

from collections.abc import Callable

from joulescope.clock import Clock
from joulescope.config import Settings
from joulescope.model import Snapshot
from joulescope.sensors import Sensor
from joulescope.sensors.amd import opener as amd_opener
from joulescope.sensors.nvml import opener as nvml_opener
from joulescope.units import NANOSECONDS_PER_SECOND, ns_from_seconds

NOT_YET = "no sensor has answered yet"
NO_SAMPLER = "no sampler inside an engine has read a GPU yet; one is asked for when its engine connects"

_LEAST_SILENCE_NS = 2 * NANOSECONDS_PER_SECOND
_POLLS_MISSED = 4


def opener(clock: Clock, settings: Settings) -> Callable[[], Sensor] | None:
    """What opens the sensor that the settings name, ``None`` if the sidecar is to have none of its own."""
    gpus = None if settings.gpu_uuids is None else sorted(settings.gpu_uuids)
    if settings.sensor == "nvml":
        return nvml_opener(clock, gpus, settings.mig)
    return amd_opener(clock, gpus) if settings.sensor == "amd" else None


def asks_engines(settings: Settings) -> bool:
    """Whether engines are asked to read GPUs that the sidecar's own sensor does not."""
    return settings.sensor in ("nvml", "engine")


def silence_ns(settings: Settings) -> int:
    """A source of readings that says nothing for longer may be replaced by another."""
    return max(_LEAST_SILENCE_NS, ns_from_seconds(_POLLS_MISSED / settings.sample_hz))


def first_error(settings: Settings, has_sensor: bool) -> str:
    """Why no energy is measured when nothing has happened yet; empty if none is wanted."""
    if settings.sensor == "engine":
        return NO_SAMPLER
    return NOT_YET if has_sensor else ""


def readiness(settings: Settings, snapshot: Snapshot, sensor_error: str, complaint: str) -> tuple[bool, str]:
    """Whether energy is measured, and a sentence that says by what or why not.

    ``complaint`` is what a sampler said last; it counts while a GPU that it could read is not read.
    """
    read = [f"{gpu.info.gpu} by {gpu.info.sensor or 'its sensor'}" for gpu in snapshot.gpus if gpu.up]
    if sensor_error and not any(gpu.up for gpu in snapshot.gpus):
        return False, "; ".join(filter(None, (f"no energy is measured: {sensor_error}", complaint)))
    if settings.sensor == "none" and not read:
        return True, "engines can report; no energy is measured, since sensor is none"
    said = ": ".join(filter(None, ("engines can report and GPUs are read", ", ".join(read))))
    unread = _unread(settings, snapshot)
    if not unread:
        return True, said
    return True, "; ".join(
        filter(None, (said, f"engines use and nobody reads {', '.join(unread)}", complaint))
    )


def _unread(settings: Settings, snapshot: Snapshot) -> list[str]:
    """GPUs that connected engines name and that should be read, and are not. Of MIG instances there is no
    meter."""
    named = {gpu for engine in snapshot.engines if engine.up for gpu in engine.info.gpus}
    wanted = named if settings.gpu_uuids is None else named & settings.gpu_uuids
    up = {gpu.info.gpu for gpu in snapshot.gpus if gpu.up}
    return sorted(gpu for gpu in wanted - up if not gpu.startswith("MIG-"))
