"""Lines of an exposition, written by the library once for each series and then only given new values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from joulescope.export.metric import Metric, Point
from joulescope.model import HistogramState

Encode = Callable[[Collector], bytes]

_number: Callable[[float], str] = floatToGoString
_EOF = "# EOF\n"
_ZERO = " 0.0"


class _Given(Collector):
    """Hands the encoder one family."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterator[Family]:
        yield self._family


class Lines:
    """The families without histograms, in one format.

    From page to page the same series come again with other values. What stands before the value is what the
    library wrote of it the first time; labels that are gone are forgotten with the page that lacks them.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._heads: dict[str, str] = {}
        self._names: dict[str, dict[tuple[str, ...], str]] = {}

    def of(self, metric: Metric, empty: Family, points: Sequence[Point]) -> str:
        """Help, type and samples of a metric; nothing where it has no point.

        Args:
            metric: no histogram.
            empty: its family, without a sample.
            points: what it tells now.
        """
        if not points:
            self._names.pop(metric.name, None)
            return ""
        if metric.name not in self._heads:
            self._heads[metric.name] = self._written(empty)
        known = self._names.get(metric.name, {})
        strange = [point.labels for point in points if point.labels not in known]
        if strange:
            known = known | self._write(metric, empty, strange)
        self._names[metric.name] = {point.labels: known[point.labels] for point in points}
        lines = [
            f"{known[point.labels]} {_number(point.value)}\n"
            for point in points
            if not isinstance(point.value, HistogramState)
        ]
        return self._heads[metric.name] + "".join(lines)

    def _write(
        self, metric: Metric, empty: Family, labels: Sequence[tuple[str, ...]]
    ) -> dict[tuple[str, ...], str]:
        """Name and labels of series as the library writes them."""
        family = Family(empty.name, empty.documentation, empty.type, empty.unit)
        for values in labels:
            family.add_sample(metric.name, dict(zip(metric.labels, values, strict=True)), 0.0)
        written = self._written(family).removeprefix(self._heads[metric.name]).split("\n")[:-1]
        return {values: line.removesuffix(_ZERO) for values, line in zip(labels, written, strict=True)}

    def _written(self, family: Family) -> str:
        return self._encode(_Given(family)).decode("utf-8").removesuffix(_EOF)
