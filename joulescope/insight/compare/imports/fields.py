"""Looking into documents that others wrote: what is missing or odd is named by its path.

A :class:`Fields` is a mapping with its place, for messages: ``results.json: results[3].itl``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from joulescope.errors import ComparisonError


@dataclass
class Skipped:
    """What was passed over, by reason, with the first example of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: str) -> None:
        self.counts[reason] += 1
        self.examples.setdefault(reason, example)

    def lines(self) -> dict[str, int]:
        """Reasons, each with its first example, and how often."""
        return {f"{reason} (first: {self.examples[reason]})": count for reason, count in self.counts.items()}


@dataclass(frozen=True, slots=True)
class Fields:
    """An object of a document."""

    values: Mapping[str, Any]
    place: str
    """The file, and after it where in the file."""
    producer: str
    """Who writes such documents, for messages."""

    def wrong(self, name: str, what: str, mend: str = "") -> ComparisonError:
        """An error about one of the fields."""
        advice = f"; {mend}" if mend else f"; write the file again with {self.producer}"
        return ComparisonError(f"{self.place}: {self._path(name)} {what}{advice}")

    def number(self, name: str) -> float:
        """A finite number that must be there, at least 0."""
        value = self.number_or_none(name)
        if value is None:
            raise self.wrong(name, "is missing")
        return value

    def number_or_none(self, name: str) -> float | None:
        """The same; ``None`` where it is absent or null."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, f"is {value!r:.60} and no number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or number < 0:
            raise self.wrong(name, f"is {value!r:.60}: it must be finite and at least 0")
        return number

    def positive(self, name: str) -> float:
        value = self.number(name)
        if value == 0:
            raise self.wrong(name, "is 0: nothing was done in this run", "leave the file out")
        return value

    def count_or_none(self, name: str) -> int | None:
        value = self.number_or_none(name)
        return None if value is None else round(value)

    def text(self, name: str) -> str:
        """A text; empty where it is absent or null."""
        value = self.values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(name, f"is {value!r:.60} and no text")
        return value

    def inner(self, name: str) -> Fields:
        """An object that must be there."""
        found = self.inner_or_none(name)
        if found is None:
            raise self.wrong(name, "is missing")
        return found

    def inner_or_none(self, name: str) -> Fields | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(name, f"is {value!r:.60} and no object")
        return Fields(value, self._place(name), self.producer)

    def listed(self, name: str) -> Iterator[Fields]:
        """The objects of a list; none where it is absent or null."""
        value = self.values.get(name)
        if value is None:
            return
        if not isinstance(value, list):
            raise self.wrong(name, f"is {value!r:.60} and no list")
        for number, each in enumerate(value):
            if not isinstance(each, Mapping):
                raise self.wrong(f"{name}[{number}]", f"is {each!r:.60} and no object")
            yield Fields(each, self._place(f"{name}[{number}]"), self.producer)

    def energy_of_gpus(self, name: str) -> tuple[float, int] | None:
        """Joules of Zeus's ``gpu_energy``, an object of joules by GPU, and the number of GPUs."""
        found = self.inner_or_none(name)
        if found is None or not found.values:
            return None
        return math.fsum(found.number(gpu) for gpu in found.values), len(found.values)

    def deep(self, *path: str) -> Any:
        """What stands at a path, or ``None``; for facts that only make the result more readable."""
        value: Any = self.values
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def _path(self, name: str) -> str:
        return f"field {name}"

    def _place(self, name: str) -> str:
        return f"{self.place} {name}" if ": " in self.place else f"{self.place}: {name}"
