"""Whether AMD's libraries fit together, and whether an energy counter can be believed.

In releases before ROCm 7 the counter went back, stood still, or was off by what looked like a factor of a
hundred (issues 115, 22 and 38 of ROCm/amdsmi). One that is not believed is not used: power is integrated
instead, which is coarser and true. See decision 12.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from joulescope.clock import Clock
from joulescope.errors import SensorError
from joulescope.sensors.amd_faults import meaning_of
from joulescope.sensors.amd_probe import Found, nothing_found
from joulescope.sensors.amd_values import energy_joules, power_watts
from joulescope.units import seconds_from_ns

_logger = logging.getLogger(__name__)

TRUSTED_ROCM = 7
TRUSTED_LIBRARY = 26
"""Major versions of ROCm and of libamd_smi.so from which the counter may be believed; 26.0 came with 7.0."""

_NUMBERED_LIKE_LIBRARY = 20
"""ROCm's own copy of the Python package has the library's number, 23 and up; PyPI's has ROCm's."""

TRIAL_STEPS = 10
TRIAL_STEP_SECONDS = 0.1
"""The trial of counters when the sensor is opened: so many looks, so far apart."""

LEAST_TRIAL_SECONDS = 0.5
"""What the first and the last good look must lie apart for the trial to say anything."""

LEAST_RATIO, MOST_RATIO = 0.5, 2.0
"""A counter may rise so much for each joule of power: wide enough for a load that changes within the trial,
whose power is averaged, and far from the known errors, which are powers of ten or nothing at all."""

RESTART_RATIO = 0.5
"""A counter that falls below this part of itself was restarted, as by a reload of the driver. One that falls
by less than that cannot have been."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Releases as (major, minor), ``None`` where not even that is told."""

    package: tuple[int, int] | None
    """Of the Python package: PyPI numbers it like ROCm, ROCm's own copy like the library."""
    library: tuple[int, int] | None
    rocm: tuple[int, int] | None

    def __str__(self) -> str:
        named = {"amdsmi": self.package, "libamd_smi.so": self.library, "ROCm": self.rocm}
        return ", ".join(f"{name} {'.'.join(map(str, it)) if it else '?'}" for name, it in named.items())


def versions(api: ModuleType) -> Versions:
    """The releases at hand; ``api`` is ``amdsmi``, initialised: before, the library does not tell its own."""
    try:
        package = _release(importlib.metadata.version("amdsmi"))
    except importlib.metadata.PackageNotFoundError:
        package = None
    return Versions(package, _library(api), _rocm(api))


def check_fit(found: Versions) -> None:
    """Refuses PyPI's package beside a library of another release: their structures differ in size.

    ROCm's own copy of the package fits the library that it comes with, and is not checked.

    Raises:
        SensorError: if the major versions differ. A call would overwrite memory that is not its own.
    """
    if found.package is None or found.package[0] >= _NUMBERED_LIKE_LIBRARY:
        return
    if found.rocm is not None:
        wanted, alike = f"'amdsmi=={found.rocm[0]}.{found.rocm[1]}.*'", found.rocm[0] == found.package[0]
    else:
        wanted, alike = "the release of your ROCm", found.library is None or _trusted(found)
    mending = f"install {wanted}, or ROCm's own copy: pip install /opt/rocm/share/amd_smi (here: {found})"
    if not alike:
        raise SensorError(f"the Python package amdsmi does not fit the library that it loads: {mending}")
    if found.rocm is not None and found.rocm != found.package:
        _logger.warning("the Python package amdsmi is of another minor release than ROCm: %s", mending)


def release_doubt(found: Versions) -> str:
    """Why no counter of this release is believed; empty if it may be."""
    return "" if _trusted(found) else f"before ROCm {TRUSTED_ROCM} it is known to be wrong ({found})"


@dataclass(slots=True)
class Verdicts:
    """What has been found out about counters, by UUID. Outlives the sensor, which may be opened often."""

    passed: set[str] = field(default_factory=set)
    """Those that stood their trial: they need not stand it again after a lost connection."""
    lied: dict[str, str] = field(default_factory=dict)
    """Those that went back afterwards, and how."""

    def condemn(self, gpu: str, reason: str) -> None:
        """Ends belief in a counter for as long as the process runs."""
        self.passed.discard(gpu)
        self.lied[gpu] = reason


@dataclass(slots=True)
class _Trial:
    """One counter beside the integral of power."""

    handle: Any
    counts_joules: list[float] = field(default_factory=list)
    drawn_joules: float = 0.0
    watts: float = 0.0
    start_ns: int = 0
    seen_ns: int = 0
    failure: str = "it or power was not told"

    def look(self, api: ModuleType, now_ns: int) -> None:
        """A look that fails leaves a gap, over which power is held to be even."""
        try:
            joules = energy_joules(api.amdsmi_get_energy_count(self.handle))
            watts = power_watts(api.amdsmi_get_power_info(self.handle))
        except api.AmdSmiException as error:
            self.failure = meaning_of(error)
            return
        if joules is None or watts is None:
            return
        if self.counts_joules:
            self.drawn_joules += (self.watts + watts) / 2 * seconds_from_ns(now_ns - self.seen_ns)
        else:
            self.start_ns = now_ns
        self.counts_joules.append(joules)
        self.watts, self.seen_ns = watts, now_ns

    def doubt(self) -> str:
        """Why the counter is not believed; empty if it is."""
        if seconds_from_ns(self.seen_ns - self.start_ns) < LEAST_TRIAL_SECONDS:
            return f"it could not be tried: {self.failure}"
        if self.counts_joules != sorted(self.counts_joules):
            return "it went back while it was watched"
        counted = self.counts_joules[-1] - self.counts_joules[0]
        if LEAST_RATIO * self.drawn_joules <= counted <= MOST_RATIO * self.drawn_joules:
            return ""
        return f"it rose by {counted:.3g} J where the power readings come to {self.drawn_joules:.3g} J"


def settle_sources(api: ModuleType, clock: Clock, found: Found, release: str, verdicts: Verdicts) -> None:
    """Decides for each GPU whether its counter is believed, and says so where it is not.

    Args:
        release: why no counter is believed, empty if they may be.

    Raises:
        SensorError: if no GPU is left.
    """
    counting = [gpu for gpu in found.gpus if gpu.counts]
    doubts = {gpu.info.gpu: release or verdicts.lied.get(gpu.info.gpu, "") for gpu in counting}
    new = [gpu for gpu in counting if not doubts[gpu.info.gpu] and gpu.info.gpu not in verdicts.passed]
    doubts.update(_try_counters(api, clock, {gpu.info.gpu: gpu.handle for gpu in new}))
    verdicts.passed.update(gpu for gpu, doubt in doubts.items() if not doubt)
    for gpu in counting:
        name, doubt = gpu.info.gpu, doubts[gpu.info.gpu]
        if doubt and gpu.tells_power:
            gpu.info = replace(gpu.info, energy_source="power")
            _logger.warning("GPU %s: its energy counter is not believed, power is used: %s", name, doubt)
        elif doubt:
            found.skipped[name] = f"its counter is not believed ({doubt}), and it shows no power"
    visible = [gpu.info.gpu for gpu in found.gpus]
    found.gpus = [gpu for gpu in found.gpus if gpu.info.gpu not in found.skipped]
    if not found.gpus:
        raise nothing_found(visible, found.skipped)


def _try_counters(api: ModuleType, clock: Clock, handles: Mapping[str, Any]) -> dict[str, str]:
    """Watches the counters of all these GPUs at once, for a second; the doubts by GPU, empty where none."""
    trials = {gpu: _Trial(handle) for gpu, handle in handles.items()}
    for step in range(TRIAL_STEPS + 1 if trials else 0):
        if step:
            clock.sleep(TRIAL_STEP_SECONDS)
        for trial in trials.values():
            trial.look(api, clock.now_ns())
    return {gpu: trial.doubt() for gpu, trial in trials.items()}


def fell(before_joules: float | None, joules: float) -> bool:
    """Whether a counter went back in a way that no restart explains."""
    return before_joules is not None and RESTART_RATIO * before_joules < joules < before_joules


def _trusted(found: Versions) -> bool:
    return (found.rocm is not None and found.rocm[0] >= TRUSTED_ROCM) or (
        found.library is not None and found.library[0] >= TRUSTED_LIBRARY
    )


def _release(text: str) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _library(api: ModuleType) -> tuple[int, int] | None:
    try:
        answer = api.amdsmi_get_lib_version()
        return int(answer["major"]), int(answer["minor"])
    except (api.AmdSmiException, ValueError, KeyError):
        return None


def _rocm(api: ModuleType) -> tuple[int, int] | None:
    """From librocm-core.so, which a container may lack; asked by the package since 6.4."""
    ask = getattr(api, "amdsmi_get_rocm_version", None)
    told, text = ask() if ask is not None else (False, "")
    return _release(text) if told else None
