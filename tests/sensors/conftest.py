"""Fixtures: a stand-in driver library, loaded here, and drivers whose state a test owns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fake_nvml import FakeDriver, FakeGpu, build, load_here

MakeDriver = Callable[..., FakeDriver]


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where libraries are built, once for all tests."""
    return tmp_path_factory.mktemp("libraries")


@pytest.fixture(scope="session")
def library(libraries: Path) -> Path:
    """The stand-in library."""
    return build(libraries)


@pytest.fixture
def make_driver(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeDriver]:
    """Makes the driver that pynvml finds in this process until the test ends."""
    load_here(library)
    made: list[FakeDriver] = []

    def make(*gpus: FakeGpu) -> FakeDriver:
        driver = FakeDriver(tmp_path / f"state{len(made)}", gpus)
        monkeypatch.setenv("FAKE_NVML_STATE", str(driver.path))
        made.append(driver)
        return driver

    yield make
    for driver in made:
        assert driver.open_users() == 0, "a sensor was left open"
        driver.close()
