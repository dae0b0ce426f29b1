"""A sensor that hands out readings made beforehand: by a test, or read from a trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from joulescope.errors import SensorLost
from joulescope.model import CallTime, GpuInfo, GpuReading


class ReplayedSensor:
    """Answers each read with the next batch, unchanged; at the end it is lost.

    ``batches`` may be any iterable, a generator that raises :class:`SensorLost` on its way included.
    A GPU that is missing from a batch counts as one failed read.
    """

    def __init__(self, gpus: Sequence[GpuInfo], batches: Iterable[Sequence[GpuReading]]) -> None:
        self._gpus = tuple(replace(info, sensor="replayed") for info in gpus)
        self._batches = iter(batches)
        self._failures = {info.gpu: 0 for info in self._gpus}

    def gpus(self) -> Sequence[GpuInfo]:
        return self._gpus

    def read(self) -> Sequence[GpuReading]:
        """Raises SensorLost after the last batch."""
        try:
            batch = next(self._batches)
        except StopIteration:
            raise SensorLost("the recording is over: there is no further reading to replay") from None
        for gpu in self._failures.keys() - {reading.gpu for reading in batch}:
            self._failures[gpu] += 1
        return batch

    def read_failures(self) -> dict[str, int]:
        return dict(self._failures)

    def call_times(self) -> Mapping[str, CallTime]:
        return {}

    def close(self) -> None:
        """Ends the recording."""
        self._batches = iter(())
