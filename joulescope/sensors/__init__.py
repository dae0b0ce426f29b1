"""Sensors: what GPUs drew. Millijoules and milliwatts exist only in this room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from joulescope.model import CallTime, GpuInfo, GpuReading


@runtime_checkable
class Sensor(Protocol):
    """Reads a set of GPUs. Implementations are used from one thread at a time."""

    def gpus(self) -> Sequence[GpuInfo]:
        """The GPUs this sensor can read now."""
        ...

    def read(self) -> Sequence[GpuReading]:
        """One reading of every GPU that answers; a GPU that fails is left out and counted.

        Raises:
            SensorLost: if none can be read any more and the sensor must be opened again.
            SensorChanged: if it must be opened again because other GPUs are there.
        """
        ...

    def read_failures(self) -> dict[str, int]:
        """Failed reads so far, by GPU."""
        ...

    def call_times(self) -> Mapping[str, CallTime]:
        """How long its driver took to answer so far, by call; empty where there is none to ask."""
        ...

    def close(self) -> None:
        """Gives back what the sensor holds; a second call does nothing."""
        ...
