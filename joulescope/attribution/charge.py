"""Writes the microjoules of a divided interval to the requests, and moves what is not theirs to pay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.division import StepShare
from joulescope.attribution.ledger import Posting

_Uj = NDArray[np.int64]


def charge(share: StepShare, posting: Posting, gpu: str, recompute_to: str) -> None:
    """Charges the requests of one step.

    Args:
        share: what :func:`joulescope.attribution.division.divide` gave to the step.
        posting: the interval's posting; recompute after preemption moves there from attributed to
            overhead when ``recompute_to`` is ``overhead`` (the system chose the victim), and stays with
            the victim when it is ``request``. It is counted as wasted in both cases.
    """
    step, table, tally = share.step, share.engine.requests, share.engine.tally
    slots, paid_uj = step.slots, share.request_uj
    recomputed_uj = _part(paid_uj, step.recomputed_ratio)
    prefill_uj = _part(paid_uj, step.prefill_ratio)
    if recomputed_uj is not None:
        tally.wasted_uj["preemption"] += int(recomputed_uj.sum())
        if recompute_to == "overhead":
            paid_uj = paid_uj - recomputed_uj
            posting.attributed_uj -= int(recomputed_uj.sum())
            posting.overhead_uj["preemption"] += int(recomputed_uj.sum())
        else:
            table.wasted_uj[slots] += recomputed_uj
            prefill_uj = recomputed_uj if prefill_uj is None else prefill_uj + recomputed_uj
    total_uj, prefill_total_uj = int(paid_uj.sum()), 0
    if prefill_uj is not None:
        prefill_uj = np.minimum(prefill_uj, paid_uj)
        prefill_total_uj = int(prefill_uj.sum())
        table.prefill_uj[slots] += prefill_uj
    rejected_uj = _part(paid_uj, step.rejected_ratio)
    if rejected_uj is not None:
        tally.wasted_uj["rejected_draft"] += int(rejected_uj.sum())
        table.wasted_uj[slots] += rejected_uj
    marginal_uj = paid_uj * step.marginal_ratio
    table.attributed_uj[slots] += paid_uj
    table.marginal_uj[slots] += marginal_uj
    table.measured[slots] = True
    tally.marginal_uj += float(marginal_uj.sum())
    tally.attributed_uj[gpu, "prefill"] += prefill_total_uj
    tally.attributed_uj[gpu, "decode"] += total_uj - prefill_total_uj


def _part(paid_uj: _Uj, ratio: NDArray[np.float64] | None) -> _Uj | None:
    return None if ratio is None else np.rint(paid_uj * ratio).astype(np.int64)
