"""Checks of what joulescope stands on: Python, packages, the clock, the container, the settings."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Iterator

import joulescope
from joulescope.config import CONFIG_VARIABLE, Settings
from joulescope.config.load import load
from joulescope.doctor.findings import Finding, Severity
from joulescope.doctor.place import Place
from joulescope.errors import ConfigError

_INSTALL = "pip install 'joulescope-inference[sidecar]'"
_SIDECAR_PACKAGES = (
    "bcrypt",
    "click",
    "msgspec",
    "numpy",
    "prometheus_client",
    "pynvml",
    "starlette",
    "uvicorn",
    "yaml",
)
_COARSE_SECONDS = 1e-6
_SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies")


def check_python() -> Iterator[Finding]:
    """The interpreter, and whether the sidecar's packages are beside it."""
    yield Finding(
        "python", Severity.OK, f"joulescope {joulescope.__version__} on Python {platform.python_version()}"
    )
    missing = [name for name in _SIDECAR_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        yield Finding(
            "python",
            Severity.NOTE,
            f"only the hook can run here: {', '.join(missing)} not installed. That is as it should be "
            "beside vLLM",
            f"For the sidecar: {_INSTALL}",
        )
    if _has_distribution("pynvml"):
        yield Finding(
            "python",
            Severity.WARNING,
            "the deprecated package pynvml is installed; it can shadow the module of nvidia-ml-py",
            f"{sys.executable} -m pip uninstall -y pynvml && {sys.executable} -m pip install "
            "--force-reinstall "
            "nvidia-ml-py",
        )


def check_clock(place: Place) -> Iterator[Finding]:
    """Engine and sidecar compare instants of CLOCK_MONOTONIC: it must be one clock, and fine enough."""
    offsets = place.text("/proc/self/timens_offsets")
    shifted = [line for line in offsets.splitlines() if line.startswith("monotonic") and _offset(line)]
    if shifted:
        yield Finding(
            "clock",
            Severity.ERROR,
            f"this process is in a time namespace of its own ({shifted[0].split(None, 1)[1].strip()}): its "
            "CLOCK_MONOTONIC is not that of other containers, and steps would be laid over the wrong joules",
            "Start vLLM and the sidecar without a time namespace (no `unshare --time`, no checkpoint "
            "restored "
            "elsewhere), or both in the same one",
        )
    source = place.text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source in _SLOW_CLOCKS:
        yield Finding(
            "clock",
            Severity.WARNING,
            f"the kernel's clock is {source}: reading it takes a microsecond and more, also for vLLM",
            "Look for 'tsc' in the kernel's log to see why it was given up; clocksource=tsc on the "
            "kernel's command "
            "line chooses it where it is stable",
        )
    resolution_seconds = time.clock_getres(time.CLOCK_MONOTONIC)
    if resolution_seconds > _COARSE_SECONDS:
        yield Finding(
            "clock",
            Severity.WARNING,
            f"CLOCK_MONOTONIC moves in steps of {1e3 * resolution_seconds:.3g} ms only",
        )
    if not shifted and source not in _SLOW_CLOCKS:
        yield Finding("clock", Severity.OK, f"one monotonic clock ({source or 'source not told'})")


def check_container(place: Place) -> Iterator[Finding]:
    """Where this runs and as whom: what the other findings are to be read with."""
    where = {"kubernetes": "a Kubernetes pod", "container": "a container", "": "no container"}[
        place.container
    ]
    groups = ", ".join(map(str, sorted({os.getgid(), *os.getgroups()})))
    yield Finding("place", Severity.NOTE, f"in {where}, as user {os.getuid()} of the groups {groups}")


def check_settings(place: Place) -> tuple[Settings, list[Finding]]:
    """The settings as `joulescope serve` would take them from environment and file, or the defaults."""
    try:
        settings, origins = load({}, place.environ)
    except ConfigError as error:
        return Settings(), [
            Finding("settings", Severity.ERROR, f"{error}; looked at the defaults in their place")
        ]
    except ModuleNotFoundError:
        return Settings(), [
            Finding(
                "settings",
                Severity.NOTE,
                f"{CONFIG_VARIABLE} names a file, which cannot be read without the sidecar's packages",
                _INSTALL,
            )
        ]
    changed = sorted(name for name, origin in origins.items() if origin.kind != "default")
    said = f"set: {', '.join(changed)}" if changed else "all at their defaults"
    return settings, [Finding("settings", Severity.OK, said)]


def _offset(line: str) -> bool:
    return any(number not in ("0", "monotonic") for number in line.split())


def _has_distribution(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
