"""The page of ``benchmarks/capacity.py``: its tables in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100.0 * value:+.1f} %"


def _errors(rows: Sequence[dict[str, Any]], name: str) -> str:
    values = np.abs([row[name] for row in rows if row.get(name) is not None])
    return f"mean {100 * values.mean():.1f} %, worst {100 * values.max():.1f} %" if len(values) else "–"


def _structure_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| world | load | batch | J/token | ITL | tokens/s | TTFT | KV used: true, foreseen "
        "| preemptions/s: true, foreseen |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return lines + [
        f"| {row['world']} | {row['load']} | {row['batch']:.1f} | {_percent(row['joules_per_token'])} "
        f"| {_percent(row['inter_token_seconds'])} | {_percent(row['tokens_per_second'])} "
        f"| {_percent(row['first_token_seconds'])} | {row['kv_usage']:.2f}, {row['foreseen_kv_usage']:.2f} "
        f"| {row['preemptions']:.2f}, {row['foreseen_preemptions']:.2f} |"
        for row in rows
    ]


def _judged_lines(rows: Sequence[dict[str, Any]], first: str, figures: Sequence[str]) -> list[str]:
    lines = [
        f"| world | {first} | load | batch | octaves beyond | J/token | ITL | tokens/s | ± J/token | holds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        held = [row[f"{name}_held"] for name in figures[:3] if f"{name}_held" in row]
        told = row["what_if"] if first == "what if" else f"{row['learned_batch']:.1f}"
        width = row.get("joules_per_token_width")
        lines.append(
            f"| {row['world']} | {told} | {row['load']} | {row['batch']:.1f} | {row['octaves']:.1f} "
            f"| {_percent(row['joules_per_token'])} | {_percent(row['inter_token_seconds'])} "
            f"| {_percent(row['tokens_per_second'])} | {'–' if width is None else f'{100 * width:.0f} %'} "
            f"| {'refused' if not held else f'{sum(held)} of {len(held)}'} |"
        )
    return lines


def _coverage(rows: Sequence[dict[str, Any]], figures: Sequence[str]) -> str:
    held = [row[f"{name}_held"] for row in rows for name in figures[:2] if f"{name}_held" in row]
    return f"{100.0 * np.mean(held):.0f} %" if held else "–"


def _all_held(rows: Sequence[dict[str, Any]], figures: Sequence[str]) -> str:
    held = [row[f"{name}_held"] for row in rows for name in figures[:3] if f"{name}_held" in row]
    return f"{sum(held)} of {len(held)} truths"


def _published_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| foreseen | batch | from | J/token | W | tokens/s | ITL |", "|---|---|---|---|---|---|---|"]
    return lines + [
        f"| {row['model']} on {row['gpus']} | {row['batch']} | {row['from']} "
        f"| {_percent(row['joules_per_token'])} | {_percent(row['watts'])} "
        f"| {_percent(row['tokens_per_second'])} | {_percent(row['inter_token'])} |"
        for row in rows
    ]


_TEXT = """# Plans against the truth

{date}, {cpu}, Python {python}, numpy {numpy}. Made by `benchmarks/capacity.py`. Simulated engines and
published figures: nothing here was measured on hardware. Errors are (foreseen − true) / true; ITL and TTFT
are means, but for the table of percentiles.{note}

## The model of the engine alone

The true cost of steps is given; lengths, rate and what shared prefixes take of the KV cache are those of the
run. J/token: {one_joules}. ITL: {one_between}. TTFT, where no queue grows: {one_first}.

{structure}

## Batches and rates that were not seen

Each world is observed for {learn:.0f} s under one load, at the batch of the second column, by the sidecar's
own accounting. Then it is foreseen with other batch limits and a queue that never empties, and at a quarter
and twice the rate.

| distance from the batches that were seen | J/token | ITL | tokens/s | 90 % intervals hold |
|---|---|---|---|---|
{distances}

{unseen}

## Other seeds, rates and worlds

The widths of the intervals were set on the worlds above. These have other seeds and rates, and
a pipeline of four stages is among them. 90 % intervals hold
{fresh_held}. Little was set on them: of their pipelines 37 of 45 were held at first, and a width by
stage, and that a small batch keeps the steps it began with, came from that; and p95 of TTFT held 15 of 23
before it was made wider. Their rows are no check of these three.

{fresh}

## Percentiles of latencies

Of both tables above. ITL: from output to output; TTFT: from where a client asks, where requests come at a
rate and the foreseen KV cache has room. In a window of two minutes the true p99 is itself a matter of
a few requests.

| percentile | mean of errors | mean of their size | worst | 90 % intervals hold: above, other seeds |
|---|---|---|---|---|
{percentiles}

## What-ifs

Observed as it is, foreseen otherwise, against a world that is otherwise. What GPUs take to talk, and what
8 bits gain, is the same in the simulated worlds as is assumed: these rows test the scaling, not the
assumptions. The world in 8 bits has none of the costs that published FP8 has at small batches. At a lower
limit clocks and voltage are taken to fall. In `dvfs-uncapped` they do just so, in `dvfs-stiff` voltage falls
less, and in `calibrated` steps only take longer.

{what_ifs}

## Published rows

ML.ENERGY v3; repeats of one run scatter by some 5 %, throughput and ITL of a row differ by 2 to 9 %, and
lengths are assumed. Rows foreseen from the two others: J/token {told}.

{published}
"""


def _percentile_lines(rows: Sequence[dict[str, Any]], fresh: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for figure, short in (("inter_token_seconds", "ITL"), ("first_token_seconds", "TTFT")):
        for percent in (50, 90, 95, 99):
            name = f"{figure}_p{percent}"
            errors = np.array([row[name] for row in (*rows, *fresh) if name in row])
            there = [[row[f"{name}_held"] for row in each if name in row] for each in (rows, fresh)]
            held = [f"{sum(each)} of {len(each)}" for each in there]
            if len(errors):
                lines.append(
                    f"| {short} p{percent} | {_percent(float(errors.mean()))} "
                    f"| {100.0 * np.abs(errors).mean():.0f} % "
                    f"| {_percent(float(errors[np.abs(errors).argmax()]))} | {', '.join(held)} |"
                )
    return lines


def page_of(report: dict[str, Any], figures: Sequence[str], learn_seconds: float) -> str:
    """The page of results.

    Args:
        figures: those with an interval, the first of which count.
        learn_seconds: how long each world was observed.
    """
    one, two, here = report["structure"], report["unseen"], report["machine"]
    near = [row for row in two if row["octaves"] <= 1.0]
    far = [row for row in two if row["octaves"] > 1.0]
    told = [row for row in report["published"] if row["from"].startswith("batches")]
    distances = (
        f"| {name} | {_errors(rows, 'joules_per_token')} | {_errors(rows, 'inter_token_seconds')} "
        f"| {_errors(rows, 'tokens_per_second')} | {_coverage(rows, figures)} |"
        for name, rows in (("up to an octave", near), ("more than an octave", far))
    )
    return _TEXT.format(
        date=here["date"],
        cpu=here["cpu"],
        python=here["python"],
        numpy=here["versions"]["numpy"],
        one_joules=_errors(one, "joules_per_token"),
        one_between=_errors(one, "inter_token_seconds"),
        one_first=_errors(one, "first_token_seconds"),
        structure="\n".join(_structure_lines(one)),
        learn=learn_seconds,
        distances="\n".join(distances),
        note=report.get("note", ""),
        fresh="\n".join(_judged_lines(report["fresh"], "learned at batch", figures)),
        fresh_held=_all_held(report["fresh"], figures),
        percentiles="\n".join(_percentile_lines(two, report["fresh"])),
        unseen="\n".join(_judged_lines(two, "learned at batch", figures)),
        what_ifs="\n".join(_judged_lines(report["what_ifs"], "what if", figures)),
        told=_errors(told, "joules_per_token"),
        published="\n".join(_published_lines(report["published"])),
    )
