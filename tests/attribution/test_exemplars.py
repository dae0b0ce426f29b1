"""Exemplars lead from a histogram's bucket to a trace that was kept."""

from __future__ import annotations

import pytest

from joulescope.attribution.tally import exemplar_labels

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("flags", ["01", "03", "ff"])
def test_a_sampled_trace_is_named(flags: str) -> None:
    assert exemplar_labels(f"00-{TRACE}-{SPAN}-{flags}") == {"trace_id": TRACE, "span_id": SPAN}


@pytest.mark.parametrize(
    "trace_parent",
    [
        "",
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-02",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-",
        f"00-short-{SPAN}-01",
        f"00-{TRACE}-short-01",
    ],
)
def test_what_was_not_sampled_or_is_none_is_not_named(trace_parent: str) -> None:
    """A link into a trace that nobody kept would send the reader nowhere."""
    assert exemplar_labels(trace_parent) == {}
