"""Writes the microjoules of a divided interval to the requests, and moves what is not theirs to pay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.cost import SAVED, WEIGHT
from joulescope.attribution.division import EngineShare
from joulescope.attribution.ledger import Posting
from joulescope.attribution.requests import SOURCE_BITS
from joulescope.attribution.steps import Segment, Special

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
    segments = share.segments
    slots = np.concatenate([segment.slots for segment in segments])
    paid_uj = share.request_uj
    special = _gather(segments)
    prefill_uj = 0
    if special is not None:
        prefill_uj = _charge_special(share, special, slots, paid_uj, posting, recompute_to)
    rows = [(segment.block.rows[:, segment.requests]) for segment in segments]
    weight, saved = (np.concatenate([row[which] for row in rows]) for which in (WEIGHT, SAVED))
    marginal_uj = paid_uj * np.divide(saved, weight, where=weight > 0.0, out=np.zeros_like(weight))
    np.add.at(table.attributed_uj, slots, paid_uj)
    np.add.at(table.marginal_uj, slots, marginal_uj)
    table.measured[slots] = True
    table.sources[slots] |= SOURCE_BITS.get(posting.interval.source, 0)
    tally.marginal_uj += float(marginal_uj.sum())
    tally.attributed_uj[gpu, "prefill"] += prefill_uj
    tally.attributed_uj[gpu, "decode"] += int(paid_uj.sum()) - prefill_uj
    interval = posting.interval
    measured = (interval.energy_uj / 1e6, (interval.end_ns - interval.start_ns) / 1e9)
    table.doubt.add(gpu, segments, paid_uj / 1e6, share.scale, measured, share.engine.model)


def _charge_special(
    share: EngineShare, special: Special, slots: _Uj, paid_uj: _Uj, posting: Posting, recompute_to: str
) -> int:
    """Takes recompute out of ``paid_uj`` (in place) if the system pays; returns what went to prefill."""
    table, tally = share.engine.requests, share.engine.tally
    rows = special.rows
    slots, owed_uj = slots[rows], paid_uj[rows]
    recomputed_uj = _part(owed_uj, special.recomputed_ratio)
    prefill_uj = _part(owed_uj, special.prefill_ratio)
    recomputed_total_uj = int(recomputed_uj.sum())
    tally.wasted_uj["preemption"] += recomputed_total_uj
    if recompute_to == "overhead":
        owed_uj -= recomputed_uj
        paid_uj[rows] = owed_uj
        posting.attributed_uj -= recomputed_total_uj
        if recomputed_total_uj:
            posting.overhead_uj["preemption"] += recomputed_total_uj
    else:
        np.add.at(table.wasted_uj, slots, recomputed_uj)
        prefill_uj += recomputed_uj
    prefill_uj = np.minimum(prefill_uj, owed_uj)
    rejected_uj = _part(owed_uj, special.rejected_ratio)
    tally.wasted_uj["rejected_draft"] += int(rejected_uj.sum())
    np.add.at(table.prefill_uj, slots, prefill_uj)
    np.add.at(table.wasted_uj, slots, rejected_uj)
    return int(prefill_uj.sum())


def _gather(segments: list[Segment]) -> Special | None:
    """The special requests of all segments as one, rows counted through."""
    found: list[tuple[int, Special]] = []
    at = 0
    for segment in segments:
        special = segment.special()
        if special is not None:
            found.append((at, special))
        at += segment.requests.stop - segment.requests.start
    if not found:
        return None
    return Special(
        rows=np.concatenate([special.rows + at for at, special in found]),
        prefill_ratio=np.concatenate([special.prefill_ratio for _, special in found]),
        recomputed_ratio=np.concatenate([special.recomputed_ratio for _, special in found]),
        rejected_ratio=np.concatenate([special.rejected_ratio for _, special in found]),
    )


def _part(paid_uj: _Uj, ratio: NDArray[np.float64]) -> _Uj:
    return np.rint(paid_uj * ratio).astype(np.int64)
