"""A powercap tree in a folder, as Linux lays it out: real folders by device, links by class."""

from __future__ import annotations

import os
from pathlib import Path

RANGE_UJ = 262_143_328_850
"""Of an Intel server: 2**32 - 1 units of 61 microjoules."""


class PowercapTree:
    """Zones that a test adds, moves and takes away."""

    def __init__(self, sysfs: Path) -> None:
        self.sysfs = sysfs
        self._class = sysfs / "class" / "powercap"
        self._devices = sysfs / "devices" / "virtual" / "powercap"
        self._class.mkdir(parents=True)

    def add(self, zone: str, name: str, energy_uj: int | str = 0, range_uj: int | str = RANGE_UJ) -> Path:
        """Adds a zone such as ``intel-rapl:0:1`` and returns its folder."""
        control, *numbers = zone.split(":")
        folder = self._devices / control
        for count in range(1, len(numbers) + 1):
            folder = folder / ":".join([control, *numbers[:count]])
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
        (folder / "energy_uj").write_text(f"{energy_uj}\n")
        for linked in (control, zone):
            target = self._devices / control if linked == control else folder
            if not (self._class / linked).is_symlink():
                (self._class / linked).symlink_to(os.path.relpath(target, self._class))
        return folder

    def set(self, zone: str, energy_uj: int | str) -> None:
        """Moves a zone's counter."""
        (self._class / zone / "energy_uj").write_text(f"{energy_uj}\n")

    def server(self, sockets: int = 2) -> None:
        """Packages with DRAM, and the parts and wholes that must not be added to them."""
        for socket in range(sockets):
            self.add(f"intel-rapl:{socket}", f"package-{socket}", 1_000_000 * (socket + 1))
            self.add(f"intel-rapl:{socket}:0", "core", 5)
            self.add(f"intel-rapl:{socket}:1", "dram", 2_500_000)
        self.add(f"intel-rapl:{sockets}", "psys", 9_000_000)
