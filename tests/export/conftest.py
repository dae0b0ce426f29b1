"""A receiver of OTLP, and an environment that says nothing of one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.otlp_receiver import Receiver, otlp_receiver


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK reads ``OTEL_*`` by itself: what the machine has set must not reach a test."""
    for name in ("ENDPOINT", "HEADERS", "COMPRESSION", "CERTIFICATE"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with otlp_receiver() as running:
        yield running
