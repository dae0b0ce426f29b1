"""The daemon's part for GPUs: takes what the sampler tells into the accounts, and says what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence

from joulescope.errors import SensorChanged
from joulescope.model import GpuReading
from joulescope.pipeline import Pipeline
from joulescope.sampling.sampler import Sampled, SamplerEvent, SensorDown, SensorOpened
from joulescope.sampling.standstill import Standstill
from joulescope.units import NANOSECONDS_PER_SECOND

_logger = logging.getLogger(__name__)

BREAKS_NS = 60 * NANOSECONDS_PER_SECOND
"""How often it is said of one GPU that its meter broke off."""

_MOST_SAID = 16
"""Different reasons in a row that are logged; more say no more."""

_BREAKS = ("fell, as after a driver reload or a GPU reset", "showed more than the GPU can draw")


class GpuWatch:
    """Feeds the pipeline with a sampler's events, in their order.

    A sensor that can be opened may still tell nothing: it counts as answering from its first reading on.
    Until then what is known to be wrong stands, and is not logged again.
    """

    def __init__(self, pipeline: Pipeline, calibrated: Collection[str] = (), error: str = "") -> None:
        """``calibrated``: GPUs that have a factor; ``error``: what is wrong as long as nothing was heard."""
        self._pipeline = pipeline
        self._calibrated = calibrated
        self._opened: Sequence[str] | None = None
        """GPUs of a sensor that was opened and has not told a reading yet."""
        self._standstill = Standstill()
        self._breaks: dict[str, tuple[tuple[int, int], int]] = {}
        """By GPU the breaks that were told, and when."""
        self._said: set[str] = set()
        """The reasons that were logged since the last reading: each is said once, though they alternate."""
        self.error = error
        """Why no energy is measured; empty when it is."""

    def handle(self, event: SamplerEvent) -> None:
        """Takes one event."""
        if isinstance(event, Sampled):
            self._read(event)
        elif isinstance(event, SensorOpened):
            self._opened = [gpu.gpu for gpu in event.gpus]
            self._pipeline.sensor_down()  # of a sensor that has changed it was not said
            self._pipeline.gpus_found(event.gpus)
        else:
            self._down(event)

    def stopped(self, why: str) -> None:
        """Nothing is read any more, for good."""
        self.error = why
        self._pipeline.sensor_down()
        _logger.error("%s", why)

    def _read(self, event: Sampled) -> None:
        if event.readings and self._opened is not None:
            self._tell(self._opened)
            self._opened, self.error = None, ""
            self._said.clear()
        self._pipeline.read(event.readings, event.read_failures)
        self.heard(event.readings)

    def heard(self, readings: Iterable[GpuReading]) -> None:
        """Says what is wrong with meters; of readings that the pipeline has taken, whoever read them."""
        for reading in readings:
            self._standstill.add(reading)
            self._tell_breaks(reading.gpu, reading.time_ns)

    def _tell_breaks(self, gpu: str, time_ns: int) -> None:
        """Says that a counter fell or leapt; where it does so again and again, once a minute."""
        breaks = self._pipeline.breaks(gpu)
        told, told_ns = self._breaks.get(gpu, ((0, 0), -BREAKS_NS))
        if breaks == told or time_ns - told_ns < BREAKS_NS:
            return
        self._breaks[gpu] = (breaks, time_ns)
        happened = [words for words, now, before in zip(_BREAKS, breaks, told, strict=True) if now > before]
        _logger.warning(
            "the meter of GPU %s %s: what was drawn since it last went on is left out"
            " (%d falls and %d impossible values so far)",
            gpu,
            " and ".join(happened),
            *breaks,
        )

    def _down(self, event: SensorDown) -> None:
        self._opened = None
        self.error = str(event.error)
        if isinstance(event.error, SensorChanged):  # it is back in a moment: nobody is asked to step in
            _logger.info("%s; the sensor is opened anew", event.error)
            return
        if str(event.error) not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(str(event.error))
            _logger.warning("%s (trying again in %.0f s)", event.error, event.retry_seconds)
        self._pipeline.sensor_down()

    def _tell(self, gpus: Sequence[str]) -> None:
        """Says which GPUs are read, and which have a factor and are not: their UUIDs may be mistyped."""
        _logger.info("reading %d GPU(s): %s", len(gpus), ", ".join(gpus))
        strangers = [gpu for gpu in self._calibrated if gpu and gpu not in gpus]
        if strangers:
            _logger.warning(
                "calibration names GPUs that are not read here: %s; if one should be, compare its UUID with "
                "nvidia-smi -L or rocminfo",
                ", ".join(strangers),
            )
