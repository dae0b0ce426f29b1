"""The standard switches of OTLP spans and OTLP metrics, read from the ``OTEL_*`` variables.

What is not here (endpoint, headers, certificates, compression, sampler, limits) is read by the
OpenTelemetry SDK from the same variables.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

_logger = logging.getLogger(__name__)

SCOPE = "joulescope"
SUPPORTED_PROTOCOL = "http/protobuf"

TIMEOUT_SECONDS = 10.0
_MOST_SECONDS = 300.0
"""A longer timeout is taken for milliseconds, which the specification means and the Python SDK does not."""


def traces_enabled(environ: Mapping[str, str]) -> bool:
    """Whether spans are to be sent: an OTLP endpoint is named, and nothing switches traces off."""
    return _enabled(environ, "TRACES")


def metrics_enabled(environ: Mapping[str, str]) -> bool:
    """Whether metrics are to be sent over OTLP; by the same rules as for traces."""
    return _enabled(environ, "METRICS")


def _enabled(environ: Mapping[str, str], signal: str) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environ.get(f"OTEL_{signal}_EXPORTER", "").strip() or "otlp"
    if "otlp" not in (name.strip() for name in exporters.split(",")):
        return False
    if not _of_signal(environ, signal, "ENDPOINT")[1]:
        return False
    _warn_of_protocol(environ, signal)
    return True


def _of_signal(environ: Mapping[str, str], signal: str, what: str) -> tuple[str, str]:
    """Name and value of a variable that may be set for one signal or for all; empty if it is not set."""
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_{what}", f"OTEL_EXPORTER_OTLP_{what}"):
        if value := environ.get(name, "").strip():
            return name, value
    return "", ""


def _warn_of_protocol(environ: Mapping[str, str], signal: str) -> None:
    """vLLM speaks gRPC by default, so a shared environment may well ask for what this process lacks."""
    name, protocol = _of_signal(environ, signal, "PROTOCOL")
    if protocol and protocol != SUPPORTED_PROTOCOL:
        _logger.warning(
            "%s is %r, but joulescope sends OTLP as %s: the endpoint must be the collector's HTTP port (4318 "
            "by default); set the variable to %s for this process to silence this warning",
            name,
            protocol,
            SUPPORTED_PROTOCOL,
            SUPPORTED_PROTOCOL,
        )


def timeout_seconds(environ: Mapping[str, str], signal: str) -> float:
    """How long one export may take, from ``OTEL_EXPORTER_OTLP_TIMEOUT`` and its like.

    The specification means milliseconds there, OpenTelemetry's Python SDK (and so vLLM beside us) seconds.
    Nobody waits five minutes for a collector: what is above that is taken for milliseconds.
    """
    name, text = _of_signal(environ, signal, "TIMEOUT")
    if not text:
        return TIMEOUT_SECONDS
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        _logger.warning("%s is %r, not a positive number: using %g s", name, text, TIMEOUT_SECONDS)
        return TIMEOUT_SECONDS
    return value if value <= _MOST_SECONDS else value / 1000


def whole_setting(environ: Mapping[str, str], name: str, default: int) -> int:
    """A variable that holds a positive whole number; anything else is named in the log, and not used."""
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or int(text) == 0:
        _logger.warning("%s is %r, not a positive whole number: using %d", name, text, default)
        return default
    return int(text)
