"""The benchmark of diagnoses: its truth, and what its tables say of hits and misses."""

from __future__ import annotations

import pytest

from benchmarks.diagnosis import Result, confusion_of, summary_of, table_of
from benchmarks.planted import LUCK, Case, Plant, Ran, shapley, truth_of


def _result(planted: str, truth: float, part: float, named: str | None, cause: str) -> Result:
    return Result(
        name=f"{planted} case",
        planted=(planted,),
        before=0.3,
        after=0.3 + truth,
        truth={cause: truth},
        parts={cause: part, "unexplained": truth - part},
        errors={cause: 0.001},
        significant=(cause,),
        named=named,
        residual=0.0,
        seconds=0.5,
    )


def test_hits_and_misses_are_marked() -> None:
    """A part far from the truth and a cause that is not named first are seen in the tables and counted."""
    hit = _result("kernels", 0.1, 0.095, "efficiency", "efficiency")
    miss = _result("kv", 0.1, 0.05, "mix", "kv_capacity")
    table = "\n".join(table_of([hit, miss]))
    assert "95%" in table
    assert "50% !" in table
    assert "workload mix !" in table
    assert "named first in 1." in summary_of([hit, miss], [])[0]
    assert "1 of 2" in summary_of([hit, miss], [])[1]
    rows = confusion_of([hit, miss])
    assert any(row.startswith("| KV capacity |") and row.rstrip(" |").endswith("1") for row in rows)


def test_a_named_cause_between_equal_windows_is_false() -> None:
    """It is counted, and said which."""
    quiet = _result("kernels", 0.01, 0.01, None, "efficiency")
    loud = _result("kernels", 0.01, 0.01, "load", "load")
    (said,) = (line for line in summary_of([quiet], [quiet, loud]) if "equal windows" in line)
    assert "equal windows: 2; a cause is named in 1 (kernels case: load)" in said


def test_the_truth_of_one_change_is_all_of_it() -> None:
    """With the same clients no run is missing, and nothing is left to luck."""
    case = Case("one", (Plant("kernels", 1.2),))
    truth = truth_of(case, Ran(joules=300.0, tokens=1000), Ran(joules=360.0, tokens=1000), 1.0)
    assert truth.parts == pytest.approx({"efficiency": 0.06})
    assert LUCK not in truth.parts


def test_the_benchmark_divides_exactly_too() -> None:
    """Its own Shapley value, independent of the diagnosis: a product is halved."""
    assert shapley((1, 2), lambda chosen: 4.0 if len(chosen) == 2 else 0.0) == {1: 2.0, 2: 2.0}
