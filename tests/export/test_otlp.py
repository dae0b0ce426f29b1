"""The standard switches of OTLP."""

from __future__ import annotations

import logging

import pytest

from joulescope.export.otlp import metrics_enabled, timeout_seconds, traces_enabled


@pytest.mark.parametrize(
    ("environ", "enabled"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "console, otlp"}, True),
    ],
)
def test_the_standard_variables_switch_traces(environ: dict[str, str], enabled: bool) -> None:
    """Spans are sent exactly when an endpoint is named and nothing switches them off."""
    assert traces_enabled(environ) is enabled


def test_the_standard_variables_switch_metrics() -> None:
    """Metrics have switches of their own: traces may be off while metrics are sent."""
    environ = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"}
    assert metrics_enabled(environ)
    assert not metrics_enabled({**environ, "OTEL_METRICS_EXPORTER": "none"})
    assert metrics_enabled({**environ, "OTEL_TRACES_EXPORTER": "none"})


def test_grpc_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """An environment made for gRPC still enables spans, with a warning that names the right port."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with caplog.at_level(logging.WARNING):
        assert traces_enabled(environ)
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in caplog.text
    assert "4318" in caplog.text


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 10.0),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "5"}, 5.0),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "10000"}, 10.0),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "5", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "0.5"}, 0.5),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "5", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "7"}, 5.0),
    ],
)
def test_a_timeout_is_seconds_or_milliseconds(environ: dict[str, str], seconds: float) -> None:
    """The specification's 10000 and the Python SDK's 10 are the same ten seconds; the signal's own wins."""
    assert timeout_seconds(environ, "TRACES") == seconds


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_timeout_that_is_none_falls_back(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is named in a warning."""
    with caplog.at_level(logging.WARNING):
        assert timeout_seconds({"OTEL_EXPORTER_OTLP_TIMEOUT": text}, "TRACES") == 10.0
    assert f"OTEL_EXPORTER_OTLP_TIMEOUT is '{text}'" in caplog.text
