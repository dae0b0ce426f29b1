"""What the tests of OTLP share: exporters that send to a receiver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from joulescope.clock import WallAnchor
from joulescope.export.otlp_metrics import OtlpMetrics
from joulescope.export.otlp_post import MetricPost, SpanPost
from joulescope.export.otlp_resource import create_resource
from joulescope.export.otlp_spans import OtlpSpans
from joulescope.model import Snapshot
from tests.export.samples import PARENT_SPAN_ID, TRACE_ID, rich_snapshot
from tests.otlp_receiver import Receiver

ANCHOR = WallAnchor(monotonic_ns=90_000_000_000, wall_ns=1_700_000_000_000_000_001)
TRACE_PARENT = f"00-{TRACE_ID}-{PARENT_SPAN_ID}-01"


def spans_to(receiver: Receiver, environ: dict[str, str] | None = None, **more: Any) -> OtlpSpans:
    post = SpanPost({}, endpoint=receiver.endpoint + "/v1/traces")
    return OtlpSpans(ANCHOR, create_resource({}), post=post, environ=environ or {}, **more)


def metrics_to(
    receiver: Receiver, get_snapshot: Callable[[], Snapshot] = rich_snapshot, **environ: str
) -> OtlpMetrics:
    post = MetricPost({}, endpoint=receiver.endpoint + "/v1/metrics")
    return OtlpMetrics(get_snapshot, create_resource({}), post=post, environ=environ)
