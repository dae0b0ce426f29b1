"""Minutes of engines as hypothesis makes them up, for tests of whatever reads minutes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hypothesis import strategies as st

from joulescope.engine_model import CostFacts
from joulescope.minute_model import (
    EngineMinute,
    GpuSums,
    Joules,
    Kind,
    Laws,
    Limits,
    Load,
    Steps,
    TaskSums,
    Tokens,
)

AMOUNTS = st.floats(0.0, 1e12)
COUNTS = st.integers(0, 10**12)
NAMES = st.text(max_size=8)


def _of(section: Any) -> st.SearchStrategy[Any]:
    by_type = {
        "float": AMOUNTS,
        "int": COUNTS,
        "int | None": st.none() | COUNTS,
        "str": NAMES,
    }
    return st.builds(section, **{field.name: by_type[str(field.type)] for field in fields(section)})


_ROWS = st.lists(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=2).map(tuple), max_size=2).map(tuple)
_COEFFICIENTS = st.lists(st.floats(0.0, 1e3), min_size=5, max_size=7).map(tuple)

LAWS: st.SearchStrategy[Laws] = st.builds(
    Laws,
    cost=_of(CostFacts),
    time_coefficients=_COEFFICIENTS,
    energy_coefficients=_COEFFICIENTS,
    time_covariance=_ROWS,
    energy_covariance=_ROWS,
    unevenness=AMOUNTS,
    limit_watts=AMOUNTS,
    idle_watts=AMOUNTS,
    wait_seconds=st.tuples(AMOUNTS, AMOUNTS),
)

_CELLS = st.dictionaries(
    st.tuples(st.sampled_from(["", "chat", "code"]), st.integers(-1, 4), st.integers(-1, 4)),
    st.lists(COUNTS, min_size=6, max_size=6),
    max_size=5,
).map(
    lambda found: tuple(
        TaskSums(
            *key,
            requests=counts[0],
            aborted=counts[1],
            prompt_tokens=counts[2],
            cached_tokens=counts[3],
            output_tokens=counts[4],
            joules=counts[5] / 1e6,
            first_token_seconds=counts[5] / 1e3,
        )
        for key, counts in sorted(found.items())
    )
)

_REASONS = st.dictionaries(NAMES, COUNTS, max_size=3).map(lambda found: tuple(sorted(found.items())))


@st.composite
def minutes(draw: st.DrawFn, kinds: st.SearchStrategy[Kind] | None = None) -> EngineMinute:
    """Any minute; instants are at whole microseconds, as those that are written are."""
    start_us = draw(st.integers(0, 4 * 10**15))
    length_us = draw(st.integers(0, 60_000_000))
    return EngineMinute(
        kind=draw(_of(Kind) if kinds is None else kinds),
        start_wall_seconds=start_us / 1e6,
        end_wall_seconds=(start_us + length_us) / 1e6,
        limits=draw(_of(Limits)),
        joules=draw(_of(Joules)),
        tokens=draw(_of(Tokens)),
        decode_steps=draw(_of(Steps)),
        prefill_steps=draw(_of(Steps)),
        load=draw(_of(Load)),
        gpu=draw(_of(GpuSums)),
        tasks=draw(_CELLS),
        finish_reasons=draw(_REASONS),
        laws=draw(st.none() | LAWS),
    )
