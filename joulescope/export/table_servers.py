"""Rows of the metric table that servers without a hook fill: figures of a whole run, none of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from joulescope.export.metric import Kind, Metric, Point, Read, per_label
from joulescope.label_model import clean
from joulescope.model import Snapshot
from joulescope.surroundings_model import SCRAPE_FAILURES, ServerTotals

NOT_BY_REQUEST = "Of the whole server, as its own /metrics page tells; not by request."
WHILE_UP = "Absent while the page cannot be had."


def _of_server(value: Callable[[ServerTotals], float | None]) -> Read:
    """One point a server, none where it is not known."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for totals in snapshot.servers:
            if (number := value(totals)) is not None:
                yield Point((clean(totals.server),), number)

    return read


def _identity(snapshot: Snapshot) -> Iterator[Point]:
    for totals in snapshot.servers:
        if totals.kind:
            yield Point((clean(totals.server), totals.kind), 1)


def _failures(snapshot: Snapshot) -> Iterator[Point]:
    for totals in snapshot.servers:
        yield from per_label((clean(totals.server),), totals.failures, SCRAPE_FAILURES)


SERVERS = (
    Metric(
        "joulescope_scraped_server_up",
        Kind.GAUGE,
        "",
        ("server",),
        "1 while the server's /metrics page brings figures, 0 while it cannot be had.",
        _of_server(lambda server: int(server.up)),
    ),
    Metric(
        "joulescope_scraped_server_info",
        Kind.INFO,
        "",
        ("server", "kind"),
        "What kind of server a page is of: vllm, sglang or tgi.",
        _identity,
    ),
    Metric(
        "joulescope_scraped_generated_tokens_total",
        Kind.COUNTER,
        "tokens",
        ("server",),
        f"Tokens that came out, since the sidecar first saw the page. {NOT_BY_REQUEST} {WHILE_UP}",
        _of_server(lambda server: server.generated_tokens),
    ),
    Metric(
        "joulescope_scraped_prompt_tokens_total",
        Kind.COUNTER,
        "tokens",
        ("server",),
        "Tokens of prompts, those found in a cache included, since the sidecar first saw the page. "
        f"{NOT_BY_REQUEST} {WHILE_UP}",
        _of_server(lambda server: server.prompt_tokens),
    ),
    Metric(
        "joulescope_scraped_requests_running",
        Kind.GAUGE,
        "requests",
        ("server",),
        f"Requests in the running batch. {NOT_BY_REQUEST} {WHILE_UP}",
        _of_server(lambda server: server.running),
    ),
    Metric(
        "joulescope_scraped_requests_waiting",
        Kind.GAUGE,
        "requests",
        ("server",),
        f"Requests in the queue. {NOT_BY_REQUEST} {WHILE_UP}",
        _of_server(lambda server: server.waiting),
    ),
    Metric(
        "joulescope_scraped_kv_cache_usage_ratio",
        Kind.GAUGE,
        "ratio",
        ("server",),
        "Share of the KV cache in use, 0 to 1, the mean of its data-parallel ranks; TGI does not tell. "
        f"{NOT_BY_REQUEST} {WHILE_UP}",
        _of_server(lambda server: server.kv_usage_ratio),
    ),
    Metric(
        "joulescope_scraped_resets_total",
        Kind.COUNTER,
        "resets",
        ("server",),
        "Times the server's counters began again, as after a restart, or another server answered. What was "
        "counted from the last look until then is lost.",
        _of_server(lambda server: server.resets),
    ),
    Metric(
        "joulescope_scraped_failures_total",
        Kind.COUNTER,
        "looks",
        ("server", "reason"),
        "Looks at the server's page that brought nothing.",
        _failures,
    ),
)
