"""Fixtures: an engine on the bench, with and without a sidecar that listens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sdk.bench import Bench


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Bench]:
    """An engine that nobody listens to yet."""
    bench = Bench(tmp_path / "js.sock")
    yield bench
    bench.engine.close()
    if bench.sidecar is not None:
        bench.sidecar.close()


@pytest.fixture
def bench(lonely: Bench) -> Bench:
    """An engine whose sidecar listens."""
    lonely.listen()
    return lonely
