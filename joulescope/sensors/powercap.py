"""CPU packages and DRAM through Linux's powercap tree, where RAPL counters of Intel and AMD are shown.

Facts, from the kernel's ``Documentation/power/powercap`` and ``drivers/powercap``: each zone is a folder
with ``name``, ``energy_uj`` and ``max_energy_range_uj``, after which the counter begins again at 0. A zone's
folder is named by its control type and hexadecimal numbers, ``intel-rapl:0:1`` inside ``intel-rapl:0``.
``intel-rapl`` is read from registers of the CPU, AMD's too; ``intel-rapl-mmio`` shows the same packages a
second time. ``core`` and ``uncore`` are parts of their package, ``psys`` contains everything, and ``dram``
stands beside the package whose child it is. Since Linux 5.10 only root may read ``energy_uj``
(CVE-2020-8694), and container runtimes since 2023 hide the tree (GHSA-jq35-85cj-fj4p).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from joulescope.errors import SensorError
from joulescope.host_model import HostDomain
from joulescope.units import joules_from_uj

SENSOR = "powercap"

CLASS_FOLDER = Path("class/powercap")
DEVICE_FOLDER = Path("devices/virtual/powercap")

_CONTROL_TYPES = ("intel-rapl", "intel-rapl-mmio")
"""In the order in which a domain that both show is taken."""

_ZONE = re.compile(r"(?P<control>[a-z-]+)(?P<numbers>(?::[0-9a-f]+)+)")
_PACKAGE = re.compile(r"package-(?P<which>\d+(?:-die-\d+)?)")
_MAX_ZONES = 256
_MAX_UJ = 2**63

PART_OF_PACKAGE = "its joules are in those of its package already"
CONTAINS_ALL = "it contains the packages, whose joules would be counted twice"


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone of the tree, as its files describe it."""

    folder: Path
    zone: str
    name: str
    parent_name: str = ""

    @property
    def domain(self) -> str:
        """Label of the domain that it measures; empty if it measures none that may be added to others."""
        package = _PACKAGE.fullmatch(self.parent_name or self.name)
        if package is None:
            return ""
        if not self.parent_name:
            return self.name
        return f"dram-{package['which']}" if self.name == "dram" else ""

    @property
    def why_not(self) -> str:
        """Why a zone without a domain is left out."""
        if self.name == "psys":
            return CONTAINS_ALL
        return PART_OF_PACKAGE if self.parent_name else f"a zone named {self.name!r} is not known"


class PowercapSensor:
    """Reads the energy counters of the host's packages and their DRAM.

    ``skipped`` says by zone why one that is there is not read.
    """

    def __init__(self, zones: Mapping[str, tuple[HostDomain, Path]], skipped: Mapping[str, str]) -> None:
        """Use :meth:`open`. ``zones`` has each domain with its ``energy_uj`` file."""
        self._zones = dict(zones)
        self.skipped = dict(skipped)

    @classmethod
    def open(cls, sysfs: Path = Path("/sys")) -> PowercapSensor:
        """Finds the zones below ``sysfs`` that can be read now.

        Raises:
            SensorError: if there is none; the message says how there might be.
        """
        found: dict[str, tuple[HostDomain, Path]] = {}
        skipped: dict[str, str] = {}
        denied: Path | None = None
        for zone in find_zones(sysfs):
            if not zone.domain:
                skipped[zone.zone] = zone.why_not
                continue
            if zone.domain in found:
                skipped[zone.zone] = f"{found[zone.domain][0].zone} measures the same"
                continue
            file = zone.folder / "energy_uj"
            try:
                _whole(file)
            except (OSError, ValueError) as error:
                skipped[zone.zone] = f"{file}: {_reason(error)}"
                denied = denied or (file if isinstance(error, PermissionError) else None)
                continue
            found[zone.domain] = (_describe(zone), file)
        if not found:
            raise _nothing(sysfs, denied, skipped)
        return cls(found, skipped)

    def domains(self) -> list[HostDomain]:
        """What this sensor reads."""
        return [domain for domain, _ in self._zones.values()]

    def read(self) -> tuple[dict[str, float], dict[str, str]]:
        """Joules by domain, and by domain that failed why."""
        joules: dict[str, float] = {}
        failed: dict[str, str] = {}
        for domain, (_, file) in self._zones.items():
            try:
                joules[domain] = joules_from_uj(_whole(file))
            except (OSError, ValueError) as error:
                failed[domain] = f"{file}: {_reason(error)}"
        return joules, failed


def find_zones(sysfs: Path) -> list[Zone]:
    """Every RAPL zone below ``sysfs``, those that are preferred first.

    The class folder holds links into the device folder; where only the latter is mounted it will do.
    """
    zones = []
    for folder in _folders(sysfs):
        match = _ZONE.fullmatch(folder.name)
        if match is None or match["control"] not in _CONTROL_TYPES:
            continue
        parent = folder.name.rpartition(":")[0] if match["numbers"].count(":") > 1 else ""
        name = _text(folder / "name")
        if name:
            rank = _CONTROL_TYPES.index(match["control"])
            zones.append((rank, folder.name, Zone(folder, folder.name, name), parent))
    names = {zone.zone: zone.name for _, _, zone, _ in zones}
    zones.sort(key=lambda each: each[:2])
    return [
        Zone(zone.folder, zone.zone, zone.name, names.get(parent, "?") if parent else "")
        for _, _, zone, parent in zones[:_MAX_ZONES]
    ]


def _folders(sysfs: Path) -> Iterator[Path]:
    """Folders that may be zones, each once."""
    seen = set()
    for pattern in (
        f"{CLASS_FOLDER}/*:*",
        f"{DEVICE_FOLDER}/*/*:*",
        f"{DEVICE_FOLDER}/*/*:*/*:*:*",
    ):
        for folder in sorted(sysfs.glob(pattern)):
            if folder.name not in seen and (folder / "energy_uj").exists():
                seen.add(folder.name)
                yield folder


def _describe(zone: Zone) -> HostDomain:
    try:
        range_uj = _whole(zone.folder / "max_energy_range_uj")
    except (OSError, ValueError):
        range_uj = 0
    return HostDomain(
        domain=zone.domain,
        zone=zone.zone,
        energy_range_joules=joules_from_uj(range_uj) if range_uj else None,
        sensor=SENSOR,
    )


def _whole(file: Path) -> int:
    """The microjoules in a file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it holds anything else.
    """
    text = file.read_text("ascii").strip()
    if not text.isdecimal() or not 0 <= int(text) < _MAX_UJ:
        raise ValueError(f"{text[:32]!r} is no number of microjoules")
    return int(text)


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _nothing(sysfs: Path, denied: Path | None, skipped: Mapping[str, str]) -> SensorError:
    if denied is not None:
        return SensorError(
            f"host energy is not measured: {denied} may be read by root only, as Linux has it since "
            "CVE-2020-8694. Give the sidecar's group read access (chgrp and chmod g+r, by a udev rule so "
            "that it lasts), or the process the capability CAP_DAC_READ_SEARCH; docs/host-energy.md has both."
        )
    if any(zone.startswith(_CONTROL_TYPES) for zone in skipped):
        reasons = "; ".join(f"{zone}: {reason}" for zone, reason in list(skipped.items())[:4])
        return SensorError(
            f"host energy is not measured: no zone in {sysfs / CLASS_FOLDER} will do: {reasons}"
        )
    return SensorError(
        f"host energy is not measured: there is no RAPL zone in {sysfs / CLASS_FOLDER}. Virtual machines and "
        "ARM have none. On Intel and AMD, load the kernel module (modprobe intel_rapl_msr). In a container, "
        f"mount the host's /sys/{DEVICE_FOLDER} read-only at another place and name it with host_sysfs; "
        "docs/host-energy.md shows how."
    )
