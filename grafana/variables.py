"""What Grafana puts in place of variables, for checks and pictures that do without it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")


@dataclass(frozen=True)
class Shown:
    """The time that a dashboard shows, and how finely a panel asks for it."""

    end_seconds: float
    range_seconds: int
    step_seconds: int
    scrape_seconds: float = 15.0
    """The interval of scrapes that is set at the data source."""

    @property
    def values(self) -> dict[str, str]:
        """Values of Grafana's own variables."""
        rate_seconds = max(self.step_seconds + self.scrape_seconds, 4 * self.scrape_seconds)
        return {
            "__rate_interval": f"{round(rate_seconds * 1000)}ms",
            "__interval": f"{self.step_seconds}s",
            "__interval_ms": f"{self.step_seconds * 1000}",
            "__range": f"{self.range_seconds}s",
            "__range_s": f"{self.range_seconds}",
        }


def chosen(board: Mapping[str, Any]) -> dict[str, str]:
    """Values of a dashboard's variables as it opens: all, or the first choice."""
    found = {}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found[variable["name"]] = variable["allValue"]
        elif variable["type"] == "custom":
            found[variable["name"]] = variable["current"]["value"]
    return found


def interpolated(expression: str, values: Mapping[str, str]) -> str:
    """The expression with each variable's value.

    Raises:
        KeyError: it names a variable that has none.
    """
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], expression)
