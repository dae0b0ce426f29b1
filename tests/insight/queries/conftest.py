"""A ledger of made numbers, written once, with what it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from joulescope.insight.queries import ALWAYS, Span, Tables, open_duckdb
from tests.made_ledger import Recipe, files_of, write

RECIPE = Recipe(requests=3000)


@dataclass(frozen=True, eq=False)
class Made:
    """Where the ledger is, and its requests and minutes as columns of all days."""

    root: Path
    requests: dict[str, np.ndarray]
    minutes: dict[str, np.ndarray]

    @cache  # noqa: B019 - one ledger a session
    def tables(self, span: Span = ALWAYS) -> Tables:
        return open_duckdb(files_of(self.root, "requests"), files_of(self.root, "minutes"), span)

    @property
    def measured_uj(self) -> int:
        names = ("engine", "start_ns", "generated", "wasted_abort")
        return int(sum(column.sum() for name, column in self.minutes.items() if name not in names))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("ledger")
    days = list(write(root, RECIPE))
    requests, minutes = (
        {name: np.concatenate([day[table][name] for day in days]) for name in days[0][table]}
        for table in (0, 1)
    )
    return Made(root, requests, minutes)
