"""Pages of the three servers, read; and pages of others, and none at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.errors import FetchError
from joulescope.scraping.page import Page, read_page
from joulescope.surroundings_model import SCRAPE_FAILURES

PAGES = Path(__file__).parent / "pages"
VLLM, SGLANG, TGI = (
    (PAGES / f"{name}.txt").read_bytes() for name in ("vllm-0.32.0", "sglang-0.5.23", "tgi-3.1")
)
"""vLLM's comes from a run of it; SGLang's and TGI's were written after their sources, in the formats of the
libraries that write theirs."""

RANKED = b"""\
sglang:num_running_reqs{model_name="m",tp_rank="0",pp_rank="0",priority=""} 6.0
sglang:num_running_reqs{model_name="m",tp_rank="0",pp_rank="0",priority="1"} 4.0
sglang:num_running_reqs{model_name="m",tp_rank="0",pp_rank="0",priority="2"} 2.0
sglang:num_running_reqs{model_name="m",tp_rank="1",pp_rank="0",priority=""} 6.0
sglang:num_running_reqs{model_name="m",tp_rank="0",pp_rank="1",priority=""} 5.0
"""


def told(page: Page) -> tuple[object, ...]:
    """The figures of a page, counters summed over their series."""
    counters = (page.generated_tokens, page.prompt_tokens)
    sums = [None if counter is None else sum(counter.values()) for counter in counters]
    kind = None if page.kind is None else page.kind.name
    return (kind, *sums, page.running, page.waiting, page.kv_usage_ratio)


@pytest.mark.parametrize(
    ("body", "figures"),
    [
        (VLLM, ("vllm", 60, 15, 0, 0, 0.0)),
        (SGLANG, ("sglang", 4096, 9600, 12, 3, 0.375)),
        (TGI, ("tgi", 8123, 2040, 4, 3, None)),
    ],
    ids=["vllm", "sglang", "tgi"],
)
def test_each_server_is_understood(body: bytes, figures: tuple[object, ...]) -> None:
    """Tokens and requests are summed over ranks, KV usage is a mean, and what is not told is absent."""
    assert told(read_page(body)) == figures


def test_a_restart_can_be_seen_on_the_page() -> None:
    """vLLM's page says when its process began."""
    assert read_page(VLLM).start_seconds == pytest.approx(1.79574767506e9)
    assert read_page(TGI).start_seconds is None


def test_ranks_that_share_requests_are_not_added_up() -> None:
    """Tensor and pipeline ranks, and priorities beside their total, do not make twelve requests of six."""
    assert read_page(RANKED).running == 6


def test_counters_that_come_late_are_zero_until_then() -> None:
    """SGLang shows a counter with its first request; vLLM from the start, so that a missing one is not 0."""
    late = read_page(RANKED)
    assert (late.generated_tokens, late.prompt_tokens) == ({}, {})
    renamed = read_page(VLLM.replace(b"vllm:generation_tokens_total", b"vllm:generated_tokens_total"))
    assert (renamed.generated_tokens, told(renamed)[2]) == (None, 15)


def test_an_empty_page_is_one_of_nobody_yet() -> None:
    """TGI's page is empty before its first request: no error, and no figure."""
    for body in (b"", b"\n\n", b"# HELP tgi_queue_size Current queue size\n"):
        assert told(read_page(body)) == (None, None, None, None, None, None)


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (b'node_cpu_seconds_total{cpu="0"} 1\n', "unknown_server", "--enable-metrics"),
        (b"<html><body>vllm:</body></html>", "unknown_server", "vLLM, SGLang or TGI"),
        (b"vllm:\xff 1\n", "malformed", "not text"),
        (b"vllm:generation_tokens_total twelve\n", "malformed", "text format"),
        (b'vllm:generation_tokens_total{engine="0 60\n', "malformed", "text format"),
        (b"vllm:generation_tokens_total -3\n", "out_of_range", "cannot be -3"),
        (b"vllm:generation_tokens_total NaN\n", "out_of_range", "cannot be nan"),
    ],
)
def test_other_pages_are_refused(body: bytes, reason: str, words: str) -> None:
    """Another exporter's page, HTML, bytes and broken lines are told apart."""
    with pytest.raises(FetchError) as caught:
        read_page(body)
    assert caught.value.reason == reason
    assert words in str(caught.value)


def test_a_gauge_that_cannot_be_is_absent() -> None:
    """A KV usage above 1 or a negative number of requests is not shown, and spoils nothing else."""
    lies = b"vllm:kv_cache_usage_perc 7\nvllm:num_requests_running -1\nvllm:num_requests_waiting NaN\n"
    page = read_page(lies + b"vllm:generation_tokens_total 5\n")
    assert told(page) == ("vllm", 5, None, None, None, None)


lines = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda name, rest: name.encode() + rest,
            st.sampled_from(["vllm:generation_tokens_total", "sglang:token_usage", "tgi_queue_size"]),
            st.one_of(st.binary(max_size=30), st.text('{}"=,\\ 01eE+-.\t#', max_size=30).map(str.encode)),
        ),
    ),
    max_size=8,
)


@given(lines)
def test_any_page_is_read_or_refused_for_a_known_reason(page: list[bytes]) -> None:
    """Whatever a server sends, there are figures, or an error that is counted by reason."""
    reason = ""
    try:
        read_page(b"\n".join(page))
    except FetchError as error:
        reason = error.reason
    assert reason in ("", *SCRAPE_FAILURES)
