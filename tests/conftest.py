"""The order of all tests, in one process and in several."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

from tests.scheduling import RealOnesLast, is_alone

# How long an example takes depends on who else has the machine: it is no failure of what is tested.
settings.register_profile("here", deadline=None)
settings.load_profile("here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that need the machine for themselves come last: what is quick fails first."""
    items.sort(key=lambda item: is_alone(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> RealOnesLast | None:
    """Ours, unless another was asked for by name."""
    return RealOnesLast(config, log) if config.getvalue("dist") == "load" else None
