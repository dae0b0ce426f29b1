"""The ledger of true joules, and the simpler rules beside it."""

from __future__ import annotations

import numpy as np
import pytest

from joulescope.hook.wire import RequestStart, Step
from joulescope.model import FinishedRequest
from joulescope.simulation.book import GpuBook
from joulescope.simulation.comparison import compare
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.shapley import Shares
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.truth import SIMPLE_RULES, StepWork, TrueAccount, TrueLedger, charges_of
from joulescope.simulation.worlds import H100

SECOND = 1_000_000_000


def shares(*joules: float) -> Shares:
    return Shares(np.array(joules), np.zeros(len(joules)), np.array(joules) / 2)


def work(*scheduled: float, sampled: tuple[float, ...], recomputed: tuple[float, ...] = ()) -> StepWork:
    column = np.array(scheduled)
    return StepWork(column, np.array(sampled), np.array(recomputed or [0.0] * len(scheduled)), 3.0 * column)


def test_the_ledger_forgets_the_oldest_request() -> None:
    """However long a demo runs, the truth takes bounded memory."""
    ledger = TrueLedger(limit=2)
    for name in ("a", "b", "c"):
        ledger.open(name)
    ledger.charge(["a", "b", "c"], charges_of(shares(1.0, 2.0, 3.0), work(1, 1, 1, sampled=(1, 1, 1))))
    assert ledger.true_joules() == {"b": 2.0, "c": 3.0}
    assert ledger.get("a") is None
    ledger.open("d")
    assert ledger.true_joules() == {"c": 3.0, "d": 0.0}


def test_the_ledger_grows() -> None:
    """Thousands of requests each keep their own account, in the order in which they came."""
    ledger = TrueLedger()
    names = [f"r{number}" for number in range(3000)]
    for name in names:
        ledger.open(name)
    for start in range(0, 3000, 2):
        step = charges_of(shares(start, start + 1), work(1, 1, sampled=(1, 1)))
        ledger.charge(names[start : start + 2], step)
    assert ledger.true_joules() == {name: float(number) for number, name in enumerate(names)}


def test_every_rule_divides_the_same_joules() -> None:
    """Each simpler rule charges the step and its gap whole, also when no token came out."""
    for sampled in ((0.0, 1.0, 1.0), (0.0, 0.0, 0.0)):
        ledger = TrueLedger()
        for name in "abc":
            ledger.open(name)
        step = work(98, 1, 1, sampled=sampled, recomputed=(49.0, 0.0, 0.0))
        ledger.charge("abc", charges_of(shares(5.0, 1.0, 2.0), step, gap_joules=3.0))
        accounts = [ledger.get(name) or TrueAccount() for name in "abc"]
        assert [account.joules for account in accounts] == pytest.approx([6.0, 2.0, 3.0])
        assert accounts[0].recompute_joules == pytest.approx(3.0)
        for rule in SIMPLE_RULES:
            assert sum(getattr(account, f"{rule}_joules") for account in accounts) == pytest.approx(11.0)


def test_each_rule_looks_at_what_it_is_named_after() -> None:
    """Equal parts, tokens computed, tokens out, arithmetic, and what a request would save."""
    step = charges_of(
        Shares(np.array([6.0, 2.0]), np.zeros(2), np.array([3.0, 1.0])), work(7, 1, sampled=(0, 1))
    )
    ledger = TrueLedger()
    for name in "ab":
        ledger.open(name)
    ledger.charge("ab", step)
    first = ledger.get("a")
    assert first is not None
    figures = {rule: getattr(first, f"{rule}_joules") for rule in SIMPLE_RULES}
    assert figures == pytest.approx(
        {"equal": 4.0, "by_tokens": 7.0, "by_output": 0.0, "by_flops": 7.0, "leave_one_out": 6.0}
    )


def test_a_gap_belongs_to_the_requests_that_go_on() -> None:
    """Time since the last step is shared equally and saves nobody anything, unless it was alone."""
    ledger = TrueLedger()
    for name in "ab":
        ledger.open(name)
    ledger.charge("ab", charges_of(shares(1.0, 3.0), work(1, 1, sampled=(1, 1)), gap_joules=4.0))
    ledger.charge_gap("ab", 2.0)
    ledger.charge_gap("b", 5.0)
    first, second = ledger.get("a"), ledger.get("b")
    assert first is not None
    assert second is not None
    assert (first.joules, second.joules) == pytest.approx((4.0, 11.0))
    assert (first.marginal_joules, second.marginal_joules) == pytest.approx((0.5, 6.5))
    assert second.equal_joules == pytest.approx(2.0 + 2.0 + 1.0 + 5.0)


def test_the_book_tells_gaps_from_idle_time() -> None:
    """Idle until requests run, theirs from then on: all joules of a GPU are in the book, once."""
    gpu = SimulatedGpu(H100, 0)
    book = GpuBook(gpu, 0)
    book.begin("engine", SECOND)
    assert book.claim("engine", 3 * SECOND) == pytest.approx(200.0)
    gpu.append(3 * SECOND, 4 * SECOND, 500.0)
    book.step(4 * SECOND, 500.0)
    assert book.claim("engine", 4 * SECOND) == 0.0
    assert book.end("engine", 5 * SECOND) == pytest.approx(100.0)
    assert book.request_joules == pytest.approx(800.0)
    assert book.idle_joules(6 * SECOND) == pytest.approx(100.0 + 100.0)
    assert gpu.energy_joules_at(gpu.uuid, 6 * SECOND) == pytest.approx(1000.0)


@pytest.mark.parametrize("limits", [EngineLimits(), EngineLimits(async_scheduling=False)])
def test_requests_and_idle_time_make_up_what_the_gpu_drew(limits: EngineLimits) -> None:
    """The true joules of all requests, of steps and gaps, and idle ones are the GPU's joules."""
    run = SimulatedRun(8.0, seed=3, rate_per_second=4.0, limits=limits, keep_steps=True)
    steps = [record for record in run.records() if isinstance(record, Step)]
    (balance,) = run.balances()
    charged = sum(run.truth.true_joules().values())
    assert charged == pytest.approx(balance.request_joules, rel=1e-9)
    assert charged + balance.idle_joules == pytest.approx(balance.drawn_joules, rel=1e-9)
    assert balance.overhead_joules == 0.0
    assert run.truth.steps is not None
    assert [each.step for each in run.truth.steps] == [step.step for step in steps]
    in_steps = sum(each.joules + each.gap_joules for each in run.truth.steps)
    assert in_steps == pytest.approx(charged, rel=2e-3)


def test_gaps_are_small_where_scheduling_is_asynchronous() -> None:
    """An engine that schedules ahead keeps its GPU waiting a tenth as long as one that does not."""
    gaps = []
    for ahead in (True, False):
        limits = EngineLimits(async_scheduling=ahead)
        run = SimulatedRun(5.0, seed=3, limits=limits, keep_steps=True)
        list(run.records())
        assert run.truth.steps is not None
        gaps.append(sum(each.gap_joules for each in run.truth.steps))
    assert gaps[0] < 0.1 * gaps[1]


def finished(request_id: str, joules: float, marginal: float | None, reason: str = "stop") -> FinishedRequest:
    return FinishedRequest(
        request_id, request_id, "e", "m", "", "generate", 0, 1, None, reason, 1, 0, 1, 1, 0, 0, 0, 0, 1,
        joules, marginal, None, None, None, complete=True,
    )  # fmt: skip


def test_a_comparison_measures_each_figure_against_its_own_truth() -> None:
    """Attributed joules meet the true share, marginal ones the true saving; aborted requests count too."""
    ledger = TrueLedger()
    for name in ("chat-1", "rag-1"):
        ledger.open(name)
    ledger.charge(["chat-1", "rag-1"], charges_of(shares(10.0, 20.0), work(1, 1, sampled=(1, 1))))
    accounts = [
        finished("chat-1", 11.0, 4.0),
        finished("rag-1", 20.0, None, "abort"),
        finished("none", 1.0, 1.0),
    ]
    chat, rag, everyone = compare(accounts, ledger)
    assert (chat.name, rag.name, everyone.requests) == ("chat", "rag", 2)
    assert chat.error("attributed") == pytest.approx(0.1)
    assert everyone.error("attributed") == pytest.approx(0.05)
    assert everyone.error("marginal") == pytest.approx(0.2)
    assert everyone.error("equal") == pytest.approx((0.5 + 0.25) / 2)
    assert everyone.error_quantile("attributed", 1.0) == pytest.approx(0.1)


def test_the_truth_states_its_own_error() -> None:
    """At a load of large mixed steps the truth is known to a fraction of a percent, and says so."""
    run = SimulatedRun(12.0, seed=5, rate_per_second=16.0)
    starts = [record for record in run.records() if isinstance(record, RequestStart)]
    assert len(starts) > 100
    assert 0.0 < run.truth.sampling_error_ratio() < 0.005


def test_engines_that_share_a_gpu_pay_for_their_own_waiting() -> None:
    """What the GPU drew while only one engine had requests is that engine's, whoever's step comes next."""
    gpu = SimulatedGpu(H100, 0)
    book = GpuBook(gpu, 0)
    book.begin("a", SECOND)
    book.begin("b", 3 * SECOND)
    assert book.claim("b", 4 * SECOND) == pytest.approx(100.0)
    gpu.append(4 * SECOND, 5 * SECOND, 500.0)
    book.step(5 * SECOND, 500.0)
    assert book.claim("a", 5 * SECOND) == pytest.approx(200.0)
    assert book.end("b", 6 * SECOND) == pytest.approx(100.0)
    assert book.end("a", 7 * SECOND) == pytest.approx(100.0)
    assert book.idle_joules(9 * SECOND) == pytest.approx(100.0 + 200.0)
    assert book.request_joules == pytest.approx(1000.0)


def test_steps_that_nobody_asked_for_are_overhead() -> None:
    """Their joules are overhead, and the time before them is idle."""
    gpu = SimulatedGpu(H100, 0)
    book = GpuBook(gpu, 0)
    book.overhead(SECOND, 2 * SECOND, 300.0)
    gpu.append(SECOND, 2 * SECOND, 300.0)
    assert (book.overhead_joules, book.request_joules) == (300.0, 0.0)
    assert book.idle_joules(3 * SECOND) == pytest.approx(200.0)
