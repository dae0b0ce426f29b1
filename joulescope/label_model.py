"""Labels: what may stand in one, and what an engine's figures come to by an open one.

Open are those whose values others choose: adapters, tenants, task classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BASE_ADAPTER = "base"
"""Label of requests that use no adapter."""

NO_TENANT = "none"
"""Label of requests of which no tenant is known."""

OTHER = "other"
"""Label of all values that got no series of their own."""

TENANT_GROUP = "tenant"
"""Group of the operator's pattern that is the tenant."""

NO_TASK = "none"
"""Label of requests that no source gives a task class."""

TASK_GROUP = "task"
"""Group of the operator's other pattern, that is the task class."""

TASK_SOURCES = ("header", "route", "lora", "request_id", "lengths")
"""What may say of which task class a request is; see ``docs/task-classes.md``."""


def clean(text: str) -> str:
    """A text that any exposition and any JSON can carry: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class LabelTotals:
    """What the requests of one adapter, tenant or task used: the engine's own figures, told once more."""

    joules: Mapping[str, float]
    """Attributed, by phase."""
    generated_tokens: int = 0
    requests_finished: int = 0


Bounds = tuple[int, int | None]
"""Least and most, both included; ``None`` is without end."""

ANY: Bounds = (0, None)


@dataclass(frozen=True, slots=True)
class LengthRule:
    """A task class told by lengths. Prompts and outputs are counted as the engine counts them (tokens)."""

    name: str
    prompt: Bounds = ANY
    output: Bounds = ANY
    """Of what came out in the end."""
    max_output: Bounds = ANY
    """Of what the client allows to come out; a request without such a limit is in no bounds."""

    def holds(
        self, prompt: int, max_output: int | None, generated: int, most_output: int | None
    ) -> bool | None:
        """Whether it holds of a request; ``None`` while the end of its output may still decide that.

        Args:
            prompt: length of the prompt.
            max_output: limit that the client set, if any.
            generated: what came out so far: there will be no less in the end.
            most_output: there will be no more; ``None`` where that is not known.
        """
        if not _within(prompt, self.prompt):
            return False
        if self.max_output != ANY and (max_output is None or not _within(max_output, self.max_output)):
            return False
        least, most = self.output
        if (most is not None and generated > most) or (most_output is not None and most_output < least):
            return False
        surely_short = most is None or (most_output is not None and most_output <= most)
        return True if generated >= least and surely_short else None


def _within(value: int, bounds: Bounds) -> bool:
    return value >= bounds[0] and (bounds[1] is None or value <= bounds[1])
