"""The table of faults: what goes wrong with NVIDIA GPUs, what is seen of it, and what it costs.

``docs/sensors.md`` has the same table in words, and ``test_sensors_page.py`` holds one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tests.fake_nvml import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    LIBRARY_MISMATCH,
    NO_PERMISSION,
    PARTS,
    SUCCESS,
    TIMEOUT,
    UNKNOWN,
    FakeGpu,
)
from tests.sensors.nvml_bench import WATTS
from tests.sensors.nvml_tampering import (
    H100,
    NOT_AVAILABLE,
    PASCAL,
    SECOND_H100,
    A,
    B,
    Change,
    add_to_counter,
    catch_up,
    code,
    draw,
    each,
    go_on,
    init,
    lose,
    nothing,
    pause,
    plug_in,
    raw,
    reattach,
    slow,
    stick,
    take_out,
    unload,
    zero,
)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with the last of the GPUs, for a while, and what must be true of it."""

    name: str
    begin: Change
    end: Change | None = None
    """``None``: it is not undone."""
    gpus: tuple[FakeGpu, ...] = (H100,)
    plugged_in: tuple[str, ...] = ()
    """GPUs that the engine names although they are not there at first."""
    at_start: bool = False
    """Whether it is there before the sidecar is."""
    lasts_seconds: float = 3.3
    up: float | None = 1.0
    """``joulescope_sensor_up`` just before it ends; ``None`` where the GPU is not on the page at all."""
    rising: bool = True
    """Whether measured joules still rise then."""
    absent: tuple[str, ...] = ()
    """Metrics that are missing then, without ``joulescope_gpu_``."""
    warnings: tuple[str, ...] = ()
    """Words of the warnings in the log, from beginning to end: each is there once, and there is no other."""
    told: str = ""
    """Words of a line that is no warning."""
    back_seconds: float | None = 1.5
    """So long after it ended all is shown and accounted again; ``None``: never."""
    lost_seconds: float = 0.0
    """What it may cost at most, in seconds of the GPU's power."""
    lost_meanwhile: bool = False
    """Whether what is drawn until the GPU is back is lost too, because nothing tells it afterwards."""
    source: str = "counter"
    """What measures the joules in the end."""


GAUGES = (
    "power_watts",
    "power_limit_watts",
    "memory_used_bytes",
    "sm_utilization_ratio",
    "temperature_celsius",
)
"""What is missing of a GPU that does not answer."""

BREAK_SECONDS = 0.2
"""What a counter that breaks off costs: what was drawn since its last tick, seen a poll late."""


def down(name: str, begin: Change, end: Change | None = None, **more: Any) -> Fault:
    """A fault under which the GPU is on the page, and nothing but its past is known of it."""
    return Fault(
        name, begin, end, **{"up": 0.0, "rising": False, "absent": GAUGES, "back_seconds": 5.5, **more}
    )


def unseen(name: str, begin: Change, end: Change | None = None, **more: Any) -> Fault:
    """A fault that is there before the GPU was ever read: there is nothing of it on the page."""
    at_start = {"at_start": True, "up": None, "rising": False, "absent": GAUGES}
    return Fault(name, begin, end, **{**at_start, "back_seconds": 5.5, **more})


COUNTER = (
    Fault(
        "the counter starts again at 0",
        zero,
        warnings=("fell, as after a driver reload or a GPU reset",),
        lost_seconds=BREAK_SECONDS,
    ),
    Fault(
        "the counter goes back a little",
        add_to_counter(-50.0),
        warnings=("fell, as after a driver reload or a GPU reset",),
        lost_seconds=BREAK_SECONDS,
    ),
    Fault(
        "the counter leaps",
        add_to_counter(1e6),
        warnings=("showed more than the GPU can draw",),
        lost_seconds=BREAK_SECONDS,
    ),
    Fault(
        "the counter stands still and catches up",
        stick,
        catch_up,
        lasts_seconds=15.0,
        rising=False,
        warnings=("has stood still for 10 s",),
        told="runs again",
    ),
    Fault(
        "the counter stands still and goes on from there",
        stick,
        go_on,
        lasts_seconds=15.0,
        rising=False,
        warnings=("has stood still for 10 s",),
        told="runs again",
        lost_meanwhile=True,
    ),
    Fault(
        "the counter shows all ones",
        each(stick, raw(held_mj=NOT_AVAILABLE)),
        catch_up,
        lasts_seconds=8.0,
        warnings=("no GPU answers any more: NVML tells 18446744073709551615 mJ",),
        told="shows an energy counter now",
        lost_seconds=2.5,
    ),
    down(
        "the energy call fails",
        code("energy", TIMEOUT),
        code("energy", SUCCESS),
        warnings=("no GPU answers any more",),
    ),
    Fault(
        "energy may not be read at the start",
        code("energy", NO_PERMISSION),
        code("energy", SUCCESS),
        at_start=True,
        told="no energy counter: its joules are power readings, integrated",
        lost_seconds=0.2,
    ),
)

BESIDE = (
    Fault(
        "the power call fails",
        code("power", TIMEOUT),
        code("power", SUCCESS),
        absent=("power_watts",),
        warnings=("power cannot be read",),
    ),
    Fault(
        "the power reading is nonsense",
        raw(power_mw=2**32 - 1),
        raw(power_mw=300_000),
        gpus=(replace(H100, power_window_seconds=0.0),),
        absent=("power_watts",),
        warnings=("power cannot be read: NVML tells 4294967295 mW",),
    ),
    Fault(
        "instant power cannot be read",
        code("fields", UNKNOWN),
        code("fields", SUCCESS),
        absent=("power_instant_watts",),
        warnings=("fields cannot be read",),
    ),
    Fault(
        "memory cannot be read",
        code("memory", UNKNOWN),
        code("memory", SUCCESS),
        absent=("memory_used_bytes",),
        warnings=("memory cannot be read",),
    ),
    Fault(
        "performance counters cannot be read",
        code("gpm", UNKNOWN),
        code("gpm", SUCCESS),
        absent=("sm_active_ratio", "dram_active_ratio"),
        warnings=("gpm cannot be read",),
        back_seconds=2.5,
    ),
    Fault(
        "the power limit cannot be read",
        code("power_limit", UNKNOWN),
        code("power_limit", SUCCESS),
        absent=("power_limit_watts",),
        warnings=("power limit cannot be read",),
    ),
    Fault("the power limit is lowered", draw(200.0, 250.0), draw(WATTS, 700.0)),
    Fault("the power limit is raised", draw(900.0, 1000.0), draw(WATTS, 700.0)),
    Fault("the driver is slow", slow(0.2), slow(0.0), lasts_seconds=20.0, back_seconds=2.5),
    Fault(
        "the clock stands still for a minute",
        pause(60.0),
        warnings=("showed more than the GPU can draw",),
        lost_seconds=60.0 + BREAK_SECONDS,
    ),
)

GONE = (
    down(
        "the GPU is lost and comes back",
        lose(GPU_IS_LOST),
        reattach,
        warnings=("no GPU answers any more: NVML says 'GPU is lost'", "its UUID cannot be read: GPU is lost"),
    ),
    down(
        "one of two GPUs is lost",
        lose(GPU_IS_LOST, B),
        gpus=(H100, SECOND_H100),
        lasts_seconds=20.0,
        warnings=("GPU GPU-b cannot be read",),
        back_seconds=None,
    ),
    unseen(
        "one of two GPUs does not answer at the start",
        lose(GPU_IS_LOST, B),
        lose(SUCCESS, B),
        gpus=(H100, SECOND_H100),
        warnings=("GPU index 1 is not read: its UUID cannot be read",),
        told="tells its UUID now",
        back_seconds=11.5,
    ),
    down(
        "the driver is unloaded and loaded later",
        each(unload, init(DRIVER_NOT_LOADED)),
        init(SUCCESS),
        warnings=(
            "no GPU answers any more: NVML says 'Uninitialized'",
            "Load the kernel module (modprobe nvidia)",
        ),
    ),
    Fault(
        "the driver is reloaded at idle, without persistence mode",
        each(unload, zero),
        gpus=(replace(H100, persistence=False, power_watts=70.0),),
        warnings=(
            "no GPU answers any more: NVML says 'Uninitialized'",
            "fell, as after a driver reload or a GPU reset",
        ),
        lost_seconds=1.0 + BREAK_SECONDS,
    ),
    down(
        "a daemon-reload takes the devices away",
        each(lose(UNKNOWN), init(UNKNOWN)),
        each(lose(SUCCESS), init(SUCCESS)),
        lasts_seconds=120.0,
        warnings=("no GPU answers any more: NVML says 'Unknown Error'", "the GPU driver cannot be reached"),
        back_seconds=31.5,
    ),
    down(
        "the driver is upgraded under its library",
        each(lose(LIBRARY_MISMATCH), init(LIBRARY_MISMATCH)),
        each(lose(SUCCESS), init(SUCCESS)),
        warnings=("no GPU answers any more: NVML says 'RM has detected", "the GPU driver cannot be reached"),
    ),
    unseen(
        "there is no permission at the start",
        init(NO_PERMISSION),
        init(SUCCESS),
        warnings=("read and write /dev/nvidiactl",),
    ),
    unseen(
        "the driver cannot be reached for a minute",
        init(DRIVER_NOT_LOADED),
        init(SUCCESS),
        lasts_seconds=60.0,
        warnings=("Load the kernel module (modprobe nvidia)",),
        back_seconds=31.5,
    ),
    unseen(
        "neither energy nor power may be read at the start",
        each(code("energy", NO_PERMISSION), code("power", NO_PERMISSION)),
        each(code("energy", SUCCESS), code("power", SUCCESS)),
        warnings=("it has neither an energy counter nor a power reading",),
    ),
    unseen(
        "a vGPU shows nothing",
        nothing,
        gpus=(replace(PARTS["vgpu"], uuid=A),),
        warnings=("it has neither an energy counter nor a power reading",),
        back_seconds=None,
    ),
    unseen(
        "a GPU is plugged in",
        nothing,
        plug_in,
        plugged_in=(B,),
        told="shows 2 GPU(s) and showed 1 before",
        back_seconds=11.5,
    ),
    down(
        "a GPU is taken out",
        take_out,
        gpus=(H100, SECOND_H100),
        lasts_seconds=20.0,
        warnings=("GPU GPU-b cannot be read",),
        told="shows 1 GPU(s) and showed 2 before",
        back_seconds=None,
        lost_seconds=0.2,
    ),
    Fault(
        "MIG is switched on",
        raw(mig_mode=1),
        raw(mig_mode=0),
        lasts_seconds=15.0,
        told="the MIG instances of GPU GPU-a have changed",
    ),
    down(
        "power is all there is, and fails",
        code("power", TIMEOUT),
        code("power", SUCCESS),
        gpus=(PASCAL,),
        warnings=("no GPU answers any more",),
        source="power",
        lost_meanwhile=True,
    ),
)

FAULTS = (*COUNTER, *BESIDE, *GONE)
