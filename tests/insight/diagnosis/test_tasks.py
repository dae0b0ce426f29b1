"""Tasks as a dimension of the mix: shifts between them are told as mix, by name."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from benchmarks.planted import run
from benchmarks.planted_cases import SINGLE
from joulescope.cli.diagnose_text import rendered
from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.acceptance import passes_between
from joulescope.insight.diagnosis.diagnosis import Diagnosis, diagnose
from joulescope.insight.diagnosis.latents import tasks_of
from joulescope.insight.diagnosis.told import told
from joulescope.insight.diagnosis.window import Window, window_of
from joulescope.insight.steady import LengthClass
from joulescope.minute_model import TaskSums
from tests.insight.diagnosis.windows import minutes


@pytest.fixture(scope="module")
def shifted() -> Diagnosis:
    """A task takes the place of another, with prompts and answers as long; it shares no prefix."""
    case = SINGLE["mix: another task of the same lengths"]
    narrow = tuple(replace(kind, prompt_sigma=0.1, output_sigma=0.1) for kind in case.world.classes)
    case = replace(case, world=replace(case.world, classes=narrow))  # so that short windows suffice
    before, after = (
        run(case, plants, 1, 40.0, account=True, warm_up=0.0).minutes for plants in ((), case.plants)
    )
    return diagnose(before, after)


def test_another_task_of_the_same_lengths_is_mix(shifted: Diagnosis) -> None:
    """Less is found cached and all prompts are as long as before, but the cache is not named."""
    assert shifted.named is not None
    assert shifted.named.cause == causes.MIX
    assert shifted.named.joules_per_token == pytest.approx(shifted.change, rel=0.1)
    assert not any(part.significant for part in shifted.parts if part.cause == causes.PREFIX_CACHE)


def test_the_task_that_grew_is_named_with_what_it_costs(shifted: Diagnosis) -> None:
    """In the sentence, and as figures."""
    assert shifted.named is not None
    assert "ask other 0 to " in shifted.named.sentence
    assert "J/token where the others cost" in shifted.named.sentence
    (mix,) = (part for part in told(shifted)["parts"] if part["cause"] == causes.MIX)
    after = {each["task"]: each for each in mix["latents"]["tasks"]["after"]}
    assert after["other"]["requests_ratio"] == pytest.approx(0.7, abs=0.05)
    assert after["other"]["joules_per_token"] > 1.2 * after["assist"]["joules_per_token"]


def test_people_see_the_shares_and_costs_of_all_tasks(shifted: Diagnosis) -> None:
    """Before and after; of a task that is new, only what it costs now."""
    out = io.StringIO()
    Console(file=out, width=200).print(rendered(shifted))
    line = next(line for line in out.getvalue().splitlines() if "other 0 → " in line)
    assert "assist 100 → 30 % at" in line
    assert line.count("J/token") == 2


def test_where_tasks_are_not_told_apart_none_is_named() -> None:
    """The mix is told by lengths alone."""
    assert diagnose(minutes(), minutes()).before.latents.tasks == ()


def test_joules_of_a_task_are_those_of_its_measured_requests() -> None:
    """Requests of which nothing was measured are taken to have drawn as much."""
    cells = [
        TaskSums("a", 10, 10, requests=10, output_tokens=100, joules=50.0, measured_requests=5),
        TaskSums("b", 10, 10, requests=30, output_tokens=300),
    ]
    b, a = tasks_of(cells)
    assert (a.task, a.requests_ratio, a.joules_per_token) == ("a", 0.25, pytest.approx(1.0))
    assert (b.task, b.joules_per_token) == ("b", None)


def _drafting(tokens_per_pass: float, seconds: dict[str, float], requests: dict[str, int]) -> Window:
    """A window with three drafted tokens a pass, in which requests of each task take such a time."""
    cells = tuple(
        TaskSums(task, 12, 13, count, 0, 100 * count, 0, 101 * count, seconds=seconds[task] * count)
        for task, count in requests.items()
    )
    window = window_of([replace(each, tasks=cells) for each in minutes()[:1]], "A", None)
    service = replace(window.observed.service, tokens_per_pass=tokens_per_pass, drafted_per_pass=3.0)
    return replace(window, observed=replace(window.observed, service=service))


CODE = [LengthClass(1.0, 100.0, 101.0, task="code")]


def test_drafts_of_another_task_are_not_another_drafter() -> None:
    """Code gets three tokens a pass and chat one and a half: half of each, and then mostly code."""
    seconds = {"code": 1.0, "chat": 2.0}
    chatty = _drafting(2.0, seconds, {"code": 50, "chat": 50})
    passes = passes_between(chatty, _drafting(2.4, seconds, {"code": 90, "chat": 30}))
    assert passes.apart == pytest.approx(0.0, abs=1e-6)
    assert passes.of(CODE, second=False) == pytest.approx(3.0, rel=1e-6)
    assert passes.of(CODE, second=True) == pytest.approx(3.0, rel=1e-6)


def test_a_worse_drafter_is_the_chance_of_each_draft() -> None:
    """Chat alone, right 0.4 of the time, and then half as often, beside code that is right twice as often."""

    def tokens(chance: float) -> float:
        return 1.0 + chance + chance**2 + chance**3

    chat = _drafting(tokens(0.4), {"chat": 1.0}, {"chat": 100})
    mean = 2.0 / (1.0 / tokens(0.2) + 1.0 / tokens(0.4))
    seconds = {"chat": 1.0 / tokens(0.2), "code": 1.0 / tokens(0.4)}
    passes = passes_between(chat, _drafting(mean, seconds, {"chat": 50, "code": 50}))
    assert passes.of(CODE, second=True) == pytest.approx(tokens(0.4), rel=1e-3)
    assert passes.of(CODE, second=False) == pytest.approx(tokens(0.8), rel=1e-3)
    assert passes.apart > 0.25


def test_drafts_where_tasks_are_not_told_are_the_drafters() -> None:
    """Nothing is known of who asked."""
    window = _drafting(2.0, {"": 1.0}, {"": 100})
    passes = passes_between(window, _drafting(1.5, {"": 1.0}, {"": 100}))
    assert (passes.of(CODE, second=False), passes.of(CODE, second=True)) == (2.0, 1.5)
    assert passes.apart == pytest.approx(0.25)
