"""The stand-in driver library of the sensors' tests, for the doctor."""

from __future__ import annotations

from tests.sensors.conftest import libraries, library, make_driver

__all__ = ["libraries", "library", "make_driver"]
