"""The stand-in driver library of the sensors' tests, for processes that load it."""

from __future__ import annotations

from tests.sensors.conftest import libraries, library

__all__ = ["libraries", "library"]
