"""The benchmark of diagnoses: its truth, and what its tables say of hits and misses."""

from __future__ import annotations

from itertools import islice

import pytest

from benchmarks.diagnosis import Result, confusion_of, summary_of, table_of
from benchmarks.planted import (
    LUCK,
    Case,
    Plant,
    Ran,
    jobs_of,
    plans_of,
    shapley,
    truth_of,
)
from benchmarks.planted_cases import SINGLE
from joulescope.simulation.workload import PlannedRequest


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
    assert "-5.0 ± !" in table
    assert "within 2 standard errors: 0 of 2" in summary_of([hit, miss], [])[2]
    rows = confusion_of([hit, miss])
    assert any(row.startswith("| KV capacity |") and row.rstrip(" |").endswith("1") for row in rows)


def test_a_named_cause_between_equal_windows_is_false() -> None:
    """It is counted, and said which."""
    quiet = _result("kernels", 0.01, 0.01, None, "efficiency")
    loud = _result("kernels", 0.01, 0.01, "load", "load")
    (said,) = (line for line in summary_of([quiet], [quiet, loud]) if "equal windows" in line)
    assert "equal windows: 2; a cause is named in 1 (kernels case: load)" in said


def test_the_truth_of_one_change_is_all_of_it() -> None:
    """With the same clients nothing is left to luck."""
    case = Case("one", (Plant("kernels", 1.2),))
    before, after = Ran(joules=300.0, tokens=1000), Ran(joules=360.0, tokens=1000)
    truth = truth_of(case, {frozenset(): before, frozenset({0}): after})
    assert (truth.before, truth.after) == (0.3, 0.36)
    assert truth.parts == pytest.approx({"efficiency": 0.06})
    assert LUCK not in truth.parts


def test_every_counterfactual_is_run_once() -> None:
    """All subsets of the changes, other clients among them; runs that several cases need have one key."""
    case = Case("two", (Plant("kernels", 1.2), Plant("load", 0.5)), seeds=(1, 2))
    jobs = jobs_of(case)
    assert len(jobs) == 8
    assert [chosen for chosen, job in jobs.items() if job.account] == [frozenset(), frozenset({0, 1, LUCK})]
    assert jobs[frozenset({LUCK})].seed == 2
    alone = jobs_of(Case("one", (Plant("clocks", 0.7),)))
    assert jobs[frozenset()].key(60.0) == alone[frozenset()].key(60.0)
    assert len({job.key(60.0) for job in (*jobs.values(), *alone.values())}) == 9


def _plans(case: Case, *plants: Plant) -> list[PlannedRequest]:
    return list(islice(plans_of(case, plants, 1, 0), 400))


def test_clients_of_another_mix_come_at_the_same_instants() -> None:
    """Such a part of them asks for long prompts, the others for what they asked for before."""
    before, after = _plans(Case("mix", ())), _plans(Case("mix", ()), Plant("mix", 0.3))
    assert [plan.arrival_ns for plan in before] == [plan.arrival_ns for plan in after]
    longer = [new for old, new in zip(before, after, strict=True) if new != old]
    assert len(longer) == pytest.approx(120, abs=2)
    assert {plan.kind for plan in longer} == {"long"}


def test_another_task_has_the_same_lengths() -> None:
    """Only its name, and what it shares, are others."""
    case = SINGLE["mix: another task of the same lengths"]
    before, after = _plans(case), _plans(case, *case.plants)
    for old, new in zip(before, after, strict=True):
        assert (old.prompt_tokens, old.output_tokens) == (new.prompt_tokens, new.output_tokens)
        assert new.external_id.startswith(new.kind)
        assert (new.kind == "other") == (not new.prefix)
    assert sum(plan.kind == "other" for plan in after) == pytest.approx(280, abs=2)


def test_the_benchmark_divides_exactly_too() -> None:
    """Its own Shapley value, independent of the diagnosis: a product is halved."""
    assert shapley((1, 2), lambda chosen: 4.0 if len(chosen) == 2 else 0.0) == {1: 2.0, 2: 2.0}
