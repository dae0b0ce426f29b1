"""The small pages of a relay: its health, and how its link fares. No joules: these are the head's to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from joulescope.export.http import NO_STORE, GetReady, healthy, ready_page


@dataclass(frozen=True, slots=True)
class RelayFigures:
    """How a relay fares."""

    up: bool
    connects: int
    failures: int
    dropped: int


class _Collector(Collector):
    def __init__(self, figures: Callable[[], RelayFigures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        now = self._figures()
        yield GaugeMetricFamily("joulescope_relay_link_up", "1 while the head is reached, else 0.", now.up)
        yield CounterMetricFamily(
            "joulescope_relay_connects", "Links that the head welcomed.", value=now.connects
        )
        yield CounterMetricFamily(
            "joulescope_relay_failures", "Links that broke or did not come about.", value=now.failures
        )
        yield CounterMetricFamily(
            "joulescope_relay_dropped_readings",
            "Readings given up because the head was away for too long; no joule is lost with them.",
            value=now.dropped,
        )


def create_relay_app(figures: Callable[[], RelayFigures], get_ready: GetReady) -> Starlette:
    """``/metrics``, ``/-/healthy`` and ``/-/ready``."""
    registry = CollectorRegistry()
    registry.register(_Collector(figures))

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST, **NO_STORE})

    async def landing(request: Request) -> Response:
        return PlainTextResponse("joulescope relay: /metrics, /-/ready, /-/healthy\n")

    return Starlette(
        routes=[
            Route("/", landing),
            Route("/metrics", metrics),
            Route("/-/healthy", healthy),
            Route("/-/ready", ready_page(get_ready)),
        ]
    )
