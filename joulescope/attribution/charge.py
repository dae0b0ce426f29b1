"""Writes the microjoules of a divided interval to the requests, and moves what is not theirs to pay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.apportion import apportion
from joulescope.attribution.cost import SAVED, WEIGHT
from joulescope.attribution.division import EngineShare
from joulescope.attribution.ledger import Posting
from joulescope.attribution.policy import Policy
from joulescope.attribution.requests import SOURCE_BITS
from joulescope.attribution.uncertainty import Measured, clock_std_seconds
from joulescope.attribution.usage import SpecialUsage

_Uj = NDArray[np.int64]


@dataclass(slots=True)
class Charged:
    """What the requests of one engine were charged of an interval, microjoules."""

    prefill_uj: int = 0
    decode_uj: int = 0
    marginal_uj: float = 0.0
    recomputed_uj: int = 0
    """Drawn to compute again what a preemption lost, whoever pays; the next likewise."""
    rejected_uj: int = 0
    preemption_overhead_uj: int = 0
    """Of that, what no request pays; the next likewise."""
    rejected_overhead_uj: int = 0


def hand_over(posting: Posting, shares: Sequence[EngineShare], policy: Policy) -> None:
    """Lets requests pay for what else happened in their interval, in proportion to what they pay already.

    Where no request ran there is nobody to pay, and the books keep what they have.
    """
    idle_uj = posting.idle_uj if policy.idle_to == "request" else 0
    books = []
    if policy.dummy_to == "request":
        books.append((posting.overhead_uj, "dummy_batch"))
    if policy.lost_to == "request":
        books.append((posting.unattributed_uj, "records_lost"))
    moved_uj = idle_uj + sum(book[reason] for book, reason in books)
    if not moved_uj or not any(share.request_uj.any() for share in shares):
        return
    at = 0
    parts_uj = apportion(moved_uj, np.concatenate([share.request_uj for share in shares]).astype(np.float64))
    for share in shares:
        share.extra_uj = parts_uj[at : at + len(share.request_uj)]
        at += len(share.request_uj)
    posting.attributed_uj += moved_uj
    posting.idle_uj -= idle_uj
    for book, reason in books:
        book.pop(reason, None)


def charge(share: EngineShare, posting: Posting, gpu: str, policy: Policy) -> Charged:
    """Charges the requests of one engine for its steps in an interval.

    Args:
        share: what :func:`joulescope.attribution.division.divide` gave to the engine's steps.
        posting: the interval's posting; what the system pays by the policy (recompute, rejected drafts) moves
            there from attributed to overhead. It is counted as wasted whoever pays.
        gpu: whose interval.
        policy: who pays.
    """
    table, tally = share.engine.requests, share.engine.tally
    usage, slots = share.usage, share.usage.slots
    prefill_uj, charged = None, Charged()
    if usage.special is not None:
        prefill_uj = _charge_special(share, usage.special, posting, policy, charged)
    paid_uj = share.request_uj + share.extra_uj
    marginal_uj = usage.sums[SAVED] * (1e6 * share.scale)
    table.attributed_uj[slots] += paid_uj
    table.marginal_uj[slots] += marginal_uj
    table.measured[slots] = True
    table.sources[slots] |= SOURCE_BITS.get(posting.interval.source, 0)
    charged.marginal_uj = float(marginal_uj.sum())
    charged.prefill_uj = 0 if prefill_uj is None else int(prefill_uj.sum())
    charged.decode_uj = int(paid_uj.sum()) - charged.prefill_uj
    tally.marginal_uj += charged.marginal_uj
    tally.attributed_uj[gpu, "prefill"] += charged.prefill_uj
    tally.attributed_uj[gpu, "decode"] += charged.decode_uj
    for breakdown in tally.breakdowns_in_use:
        breakdown.charge(getattr(table, breakdown.column)[slots], paid_uj, prefill_uj)
    interval = posting.interval
    measured = Measured(
        interval.energy_uj / 1e6,
        (interval.end_ns - interval.start_ns) / 1e9,
        clock_std_seconds(interval.clock_error_seconds),
        share.fall_watts,
    )
    table.doubt.add(gpu, usage, paid_uj / 1e6, share.scale, measured, share.engine.priced)
    return charged


def _charge_special(
    share: EngineShare, special: SpecialUsage, posting: Posting, policy: Policy, charged: Charged
) -> _Uj:
    """Takes out, in place, what requests do not pay of what they got; returns what each pays for prefill."""
    table, tally = share.engine.requests, share.engine.tally
    slots, owed_uj, weight = share.usage.slots, share.request_uj, share.usage.sums[WEIGHT]

    def part(joules: NDArray[np.float64]) -> _Uj:
        ratio = np.divide(joules, weight, where=weight > 0.0, out=np.zeros_like(weight))
        return np.asarray(np.rint(owed_uj * ratio), dtype=np.int64)

    recomputed_uj, prefill_uj, rejected_uj = map(
        part, (special.recomputed, special.prefill, special.rejected)
    )
    if policy.recompute_to == "request":
        prefill_uj += recomputed_uj
    wasted = (
        ("preemption", recomputed_uj, policy.recompute_to),
        ("rejected_draft", rejected_uj, policy.rejected_to),
    )
    for reason, wasted_uj, payer in wasted:
        total_uj = int(wasted_uj.sum())
        tally.wasted_uj[reason] += total_uj
        if payer == "request":
            table.wasted_uj[slots] += wasted_uj
        elif total_uj:
            owed_uj -= wasted_uj
            posting.attributed_uj -= total_uj
            posting.overhead_uj[reason] += total_uj
    charged.recomputed_uj, charged.rejected_uj = int(recomputed_uj.sum()), int(rejected_uj.sum())
    if policy.recompute_to != "request":
        charged.preemption_overhead_uj = charged.recomputed_uj
    if policy.rejected_to != "request":
        charged.rejected_overhead_uj = charged.rejected_uj
    prefill_uj = np.minimum(prefill_uj, owed_uj)
    table.prefill_uj[slots] += prefill_uj
    return prefill_uj
