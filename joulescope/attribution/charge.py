"""Writes the microjoules of a divided interval to the requests, and moves what is not theirs to pay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.cost import SAVED, WEIGHT
from joulescope.attribution.division import EngineShare
from joulescope.attribution.ledger import Posting
from joulescope.attribution.requests import SOURCE_BITS
from joulescope.attribution.usage import SpecialUsage

_Uj = NDArray[np.int64]


def charge(share: EngineShare, posting: Posting, gpu: str, recompute_to: str) -> None:
    """Charges the requests of one engine for its steps in an interval.

    Args:
        share: what :func:`joulescope.attribution.division.divide` gave to the engine's steps.
        posting: the interval's posting; recompute after preemption moves there from attributed to
            overhead when ``recompute_to`` is ``overhead`` (the system chose the victim), and stays with
            the victim when it is ``request``. It is counted as wasted in both cases.
    """
    table, tally = share.engine.requests, share.engine.tally
    usage, paid_uj = share.usage, share.request_uj
    slots, weight = usage.slots, usage.sums[WEIGHT]
    prefill_uj = 0
    if usage.special is not None:
        prefill_uj = _charge_special(share, usage.special, posting, recompute_to)
    saved_part = np.divide(usage.sums[SAVED], weight, where=weight > 0.0, out=np.zeros_like(weight))
    marginal_uj = paid_uj * saved_part
    table.attributed_uj[slots] += paid_uj
    table.marginal_uj[slots] += marginal_uj
    table.measured[slots] = True
    table.sources[slots] |= SOURCE_BITS.get(posting.interval.source, 0)
    tally.marginal_uj += float(marginal_uj.sum())
    tally.attributed_uj[gpu, "prefill"] += prefill_uj
    tally.attributed_uj[gpu, "decode"] += int(paid_uj.sum()) - prefill_uj
    interval = posting.interval
    measured = (interval.energy_uj / 1e6, (interval.end_ns - interval.start_ns) / 1e9)
    table.doubt.add(gpu, usage, paid_uj / 1e6, share.scale, measured, share.engine.model)


def _charge_special(share: EngineShare, special: SpecialUsage, posting: Posting, recompute_to: str) -> int:
    """Takes recompute out of what requests pay, in place, if the system pays; gives what went to prefill."""
    table, tally = share.engine.requests, share.engine.tally
    slots, owed_uj, weight = share.usage.slots, share.request_uj, share.usage.sums[WEIGHT]

    def part(joules: NDArray[np.float64]) -> _Uj:
        ratio = np.divide(joules, weight, where=weight > 0.0, out=np.zeros_like(weight))
        return np.asarray(np.rint(owed_uj * ratio), dtype=np.int64)

    recomputed_uj, prefill_uj, rejected_uj = map(
        part, (special.recomputed, special.prefill, special.rejected)
    )
    recomputed_total_uj = int(recomputed_uj.sum())
    tally.wasted_uj["preemption"] += recomputed_total_uj
    if recompute_to == "overhead":
        owed_uj -= recomputed_uj
        posting.attributed_uj -= recomputed_total_uj
        if recomputed_total_uj:
            posting.overhead_uj["preemption"] += recomputed_total_uj
    else:
        table.wasted_uj[slots] += recomputed_uj
        prefill_uj += recomputed_uj
    prefill_uj = np.minimum(prefill_uj, owed_uj)
    tally.wasted_uj["rejected_draft"] += int(rejected_uj.sum())
    table.prefill_uj[slots] += prefill_uj
    table.wasted_uj[slots] += rejected_uj
    return int(prefill_uj.sum())
