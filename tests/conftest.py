"""The order of all tests, in one process and in several."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scheduling import RealOnesLast, is_alone


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that need the machine for themselves come last: what is quick fails first."""
    items.sort(key=lambda item: is_alone(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> RealOnesLast | None:
    """Ours, unless another was asked for by name."""
    return RealOnesLast(config, log) if config.getvalue("dist") == "load" else None
