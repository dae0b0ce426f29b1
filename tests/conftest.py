"""The order of all tests, in one process and in several."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import settings

from tests.scheduling import RealOnesLast, is_alone

# How long an example takes depends on who else has the machine: it is no failure of what is tested.
settings.register_profile("here", deadline=None)
settings.load_profile("here")

# Python looks for garbage after 700 new objects, and now and then among all there are: with thousands of
# tests in memory that took a twelfth of the time of a run.
gc.set_threshold(5_000, 10, 10)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that need the machine for themselves come last: what is quick fails first."""
    items.sort(key=lambda item: is_alone(item.nodeid))


def pytest_collection_finish() -> None:
    """What was collected stays to the end: it is not searched for garbage again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> RealOnesLast | None:
    """Ours, unless another was asked for by name."""
    return RealOnesLast(config, log) if config.getvalue("dist") == "load" else None
