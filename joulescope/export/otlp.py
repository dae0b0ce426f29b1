"""What OTLP spans and OTLP metrics share: the standard switches and the resource.

Everything else (endpoint, headers, certificates, compression, timeouts, sampler, limits, interval) is
read by the OpenTelemetry SDK from the standard ``OTEL_*`` variables.
"""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Mapping

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from joulescope import __version__

_logger = logging.getLogger(__name__)

SCOPE = "joulescope"
SUPPORTED_PROTOCOL = "http/protobuf"


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
    endpoint = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    if not (endpoint or "").strip():
        return False
    _warn_of_protocol(environ, signal)
    return True


def _warn_of_protocol(environ: Mapping[str, str], signal: str) -> None:
    """vLLM speaks gRPC by default, so a shared environment may well ask for what this process lacks."""
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environ.get(name, "").strip():
            if protocol != SUPPORTED_PROTOCOL:
                _logger.warning(
                    "%s is %r, but joulescope sends OTLP as %s: the endpoint must be the collector's HTTP "
                    "port (4318 by default); set the variable to %s for this process to silence this warning",
                    name,
                    protocol,
                    SUPPORTED_PROTOCOL,
                    SUPPORTED_PROTOCOL,
                )
            return


def create_resource() -> Resource:
    """Who sends. ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` win over what is found here."""
    ours = {
        "service.name": "joulescope",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
        "host.name": socket.gethostname(),
    }
    return Resource.create(ours).merge(OTELResourceDetector().detect())
