"""NVIDIA Grace CPUs through Linux's hwmon tree, where their power meters are shown.

Facts, from the kernel's ``Documentation/hwmon/acpi_power_meter`` and from those who read these meters on
Grace and Grace Hopper: each meter is a ``hwmonN`` whose ``power1_oem_info`` says what it measures and whose
``power1_average`` is microwatts, the mean of the meter's own averaging time; there is no counter of energy.
``Grace Power Socket N`` is the whole socket with its memory, ``CPU`` and ``SysIO`` are parts of it, and
``Module`` is all of a Grace Hopper module, the GPU and its memory included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from joulescope.clock import Clock
from joulescope.host_model import HostDomain
from joulescope.units import NANOSECONDS_PER_SECOND

SENSOR = "hwmon"

CLASS_FOLDER = Path("class/hwmon")

HOLD_NS = 5 * NANOSECONDS_PER_SECOND
"""Power is not taken to hold over a longer silence: what was drawn in it is not known."""

PART_OF_SOCKET = "its joules are in those of its Grace socket already"
CONTAINS_GPU = "it contains the GPU, whose joules its own counter tells"

_INFO = re.compile(r"(?P<what>Grace|CPU|SysIO|Module) Power Socket (?P<socket>\d+)")
_WHY_NOT = {"CPU": PART_OF_SOCKET, "SysIO": PART_OF_SOCKET, "Module": CONTAINS_GPU}
_MAX_UW = 10**10


@dataclass(slots=True)
class _Course:
    """The power of one socket, integrated."""

    joules: float = 1.0
    """Above 0 from the start, so that it can fall."""
    watts: float = 0.0
    seen_ns: int | None = None

    def add(self, now_ns: int, watts: float) -> float:
        """Joules so far, by a straight line from the power before to this one.

        After a silence they fall, so that a meter takes it for a reset and leaves it out.
        """
        if self.seen_ns is not None and now_ns - self.seen_ns > HOLD_NS:
            self.joules *= 0.5
        elif self.seen_ns is not None:
            self.joules += 0.5 * (self.watts + watts) * (now_ns - self.seen_ns) / NANOSECONDS_PER_SECOND
        self.seen_ns, self.watts = now_ns, watts
        return self.joules


class GraceSensor:
    """Shows the power of Grace sockets as counters of energy, which it keeps itself.

    ``skipped`` says by meter why one that is there is not read. Counters go on when meters are looked for
    again.
    """

    def __init__(self, clock: Clock, sysfs: Path = Path("/sys")) -> None:
        self._clock = clock
        self._sysfs = sysfs
        self._files: dict[str, tuple[HostDomain, Path]] = {}
        self._courses: dict[str, _Course] = {}
        self.skipped: dict[str, str] = {}

    def look(self) -> bool:
        """Finds the meters that can be read now; false if there is none."""
        self._files, self.skipped = {}, {}
        for zone, what, socket, file in _meters(self._sysfs):
            if what in _WHY_NOT:
                self.skipped[zone] = _WHY_NOT[what]
                continue
            try:
                _watts(file)
            except (OSError, ValueError) as error:
                self.skipped[zone] = f"{file}: {error}"
                continue
            domain = f"grace-{socket}"
            self._files.setdefault(domain, (HostDomain(domain, zone, None, SENSOR), file))
        return bool(self._files)

    def domains(self) -> list[HostDomain]:
        """What this sensor reads."""
        return [domain for domain, _ in self._files.values()]

    def read(self) -> tuple[Mapping[str, float], Mapping[str, str]]:
        """Joules by domain, of which only differences mean anything, and by domain that failed why."""
        joules: dict[str, float] = {}
        failed: dict[str, str] = {}
        for domain, (_, file) in self._files.items():
            try:
                watts = _watts(file)
            except (OSError, ValueError) as error:
                failed[domain] = f"{file}: {error}"
            else:
                course = self._courses.setdefault(domain, _Course())
                joules[domain] = course.add(self._clock.now_ns(), watts)
        return joules, failed


def _meters(sysfs: Path) -> Iterator[tuple[str, str, str, Path]]:
    """Name, kind, socket and power file of each meter of Grace; files lie in its folder or its device's."""
    for folder in sorted((sysfs / CLASS_FOLDER).glob("hwmon*")):
        for place in (folder, folder / "device"):
            try:
                told = _INFO.fullmatch((place / "power1_oem_info").read_text("ascii").strip())
            except (OSError, ValueError):
                continue
            if told is not None:
                yield folder.name, told["what"], told["socket"], place / "power1_average"
                break


def _watts(file: Path) -> float:
    """The power in a file of microwatts.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it holds anything else.
    """
    text = file.read_text("ascii").strip()
    if not text.isdecimal() or int(text) >= _MAX_UW:
        raise ValueError(f"{text[:32]!r} is no number of microwatts")
    return int(text) / 1e6
