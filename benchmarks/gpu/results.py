"""The results of an experiment as JSON and as a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.gpu.comparison import ArmResult, Swap, swaps
from benchmarks.gpu.counterfactual import Counterfactual
from benchmarks.gpu.intervals import Estimate

WIDE = 0.25
"""A confidence interval wider than this part of its value to either side proves little: it is marked."""


def arm_json(result: ArmResult, poll_seconds: float) -> dict[str, Any]:
    """One kind of request: what it added, what we said, and how they compare. Joules per request."""
    found: dict[str, Any] = {
        "experiment": result.experiment,
        "kind": result.arm,
        "requests_per_block": result.requests_per_block,
        "pairs": len(result.pairs),
        "dropped": result.dropped,
    }
    if len(result.pairs) < 2:
        return found
    found |= {
        "added_joules": asdict(result.added),
        "added_joules_bootstrap": asdict(result.added_by_bootstrap),
        "edge_error_joules": result.edge_error_joules(poll_seconds),
        "plain_joules": result.mean("plain_joules"),
        "marginal_joules": result.mean("marginal_joules"),
        "attributed_joules": result.mean("attributed_joules"),
        "marginal_error": asdict(result.error_of("marginal_joules")),
        "lost_steps_ratio": result.mean("lost_steps_ratio"),
        "tokens_per_step_ratio": result.mean("tokens_per_step_ratio"),
    }
    if result.knows_truth:
        single, group = result.mean("true_single_joules"), result.mean("true_group_joules")
        found |= {
            "true_single_joules": single,
            "true_group_joules": group,
            "group_effect": group / single - 1,
            "comparison_bias": result.added.value / group - 1,
            "holds_truth": result.added.holds(group),
            "marginal_true_error": result.mean("marginal_joules") / single - 1,
        }
    return found


def pairs_json(results: Sequence[ArmResult]) -> list[dict[str, Any]]:
    """Every pair by itself, for those who want to compute otherwise."""
    return [
        {"experiment": result.experiment, "kind": result.arm, **asdict(pair)}
        for result in results
        for pair in result.pairs
    ]


def results_json(results: Sequence[ArmResult], poll_seconds: float) -> dict[str, Any]:
    """All kinds, and all swaps of neighbouring ones."""
    return {
        "arms": [arm_json(result, poll_seconds) for result in results],
        "swaps": [asdict(swap) for swap in swaps(results)],
    }


# ------------------------------------------------------------------------------------------- the page

_HEAD = (
    "| experiment | kind | N | pairs | added, J (95 %) | marginal, J | marginal − added | attributed, J "
    "| plain ΔE, J | steps lost |"
)
_TRUTH_HEAD = (
    "| experiment | kind | true, one by one, J | true, together, J | group effect | added − together "
    "| marginal − one by one |"
)


def table_of(results: Sequence[ArmResult]) -> list[str]:
    """A row for each kind; one that could not be measured says why."""
    lines = [_HEAD, "|" + "---|" * _HEAD.count(" | ") + "---|"]
    for result in results:
        head = f"| {result.experiment} | {result.arm} | {result.requests_per_block} | {len(result.pairs)} |"
        if len(result.pairs) < 2:
            lines.append(f"{head} not measured: {dict(result.dropped)} | | | | | |")
            continue
        mark = " (wide)" if result.added.half_width > WIDE * abs(result.added.value) else ""
        lines.append(
            f"{head} {result.added.value:.2f} ± {result.added.half_width:.2f}{mark} "
            f"| {result.mean('marginal_joules'):.2f} | {percent(result.error_of('marginal_joules'))} "
            f"| {result.mean('attributed_joules'):.2f} | {result.mean('plain_joules'):.2f} "
            f"| {result.mean('lost_steps_ratio'):.1%} |"
        )
    return lines


def sameness_of(results: Sequence[ArmResult]) -> str:
    """Whether the background was the same with and without the injected requests, in a sentence."""
    ratios = [result.mean("tokens_per_step_ratio") for result in results if len(result.pairs) > 1]
    if not ratios:
        return ""
    return f"\nBackground tokens in a step, against `off`: {min(ratios):.4f} to {max(ratios):.4f} by kind."


def truth_table_of(results: Sequence[ArmResult]) -> list[str]:
    """How good the comparison itself is, where the truth is known."""
    lines = [_TRUTH_HEAD, "|" + "---|" * _TRUTH_HEAD.count(" | ") + "---|"]
    for result in results:
        if len(result.pairs) < 2 or not result.knows_truth:
            continue
        single, group = result.mean("true_single_joules"), result.mean("true_group_joules")
        lines.append(
            f"| {result.experiment} | {result.arm} | {single:.2f} | {group:.2f} | {group / single - 1:+.2%} "
            f"| {result.added.value / group - 1:+.2%} | {result.mean('marginal_joules') / single - 1:+.2%} |"
        )
    return lines


def swap_table_of(found: Sequence[Swap]) -> list[str]:
    lines = ["| experiment | swapped | added, J (95 %) | marginal, J | marginal − added, J (95 %) |"]
    lines.append("|---|---|---|---|---|")
    lines += [
        f"| {swap.experiment} | {swap.taken} by {swap.given} | {swap.added.value:+.2f} ± "
        f"{swap.added.half_width:.2f} | {swap.marginal:+.2f} | {swap.difference.value:+.2f} ± "
        f"{swap.difference.half_width:.2f} |"
        for swap in found
    ]
    return lines


def counterfactual_table_of(rows: Sequence[Counterfactual]) -> list[str]:
    lines = [
        "| kind | arrivals/s of the others | idle | mean batch | marginal, J | added to the total, J (95 %) "
        "| idle power displaced, J | fewer steps for the others, J |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.kind} | {row.rate_per_second:g} | {row.idle_ratio:.0%} | {row.mean_batch:.1f} "
        f"| {row.marginal_joules:.1f} | {row.total.value:.1f} ± {row.total.half_width:.1f} "
        f"| {row.idle_joules:.1f} | {row.fewer_steps_joules:.1f} |"
        for row in rows
    ]
    return lines


def percent(estimate: Estimate) -> str:
    if math.isinf(estimate.half_width):
        return f"{estimate.value:+.1%}"
    return f"{estimate.value:+.1%} ± {estimate.half_width:.1%}"
