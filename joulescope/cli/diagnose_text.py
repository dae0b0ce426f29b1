"""A diagnosis for people: the waterfall in the terminal, sentences, and the figures beside each cause."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from joulescope.insight.diagnosis.causes import CAUSES
from joulescope.insight.diagnosis.diagnosis import Diagnosis, Part, Told
from joulescope.insight.diagnosis.latents import BESIDE, Latents
from joulescope.insight.diagnosis.waterfall import Bar, bars_of, span_of

_WIDTH = 30
_MOST_TASKS = 6
_STYLES = {"level": "", "part": "bold", "doubtful": "dim"}

_FORMS: dict[str, tuple[str, float, str]] = {
    "batch": ("batch", 1.0, ".1f"),
    "step_seconds": ("step, ms", 1e3, ".2f"),
    "inter_token_seconds": ("inter-token, ms", 1e3, ".2f"),
    "watts_per_gpu": ("W a GPU", 1.0, ".0f"),
    "gpus": ("GPUs", 1.0, ".0f"),
    "requests_per_second": ("requests/s", 1.0, ".2f"),
    "present": ("requests there", 1.0, ".1f"),
    "prompt_tokens": ("prompt tokens", 1.0, ".0f"),
    "output_tokens": ("answer tokens", 1.0, ".0f"),
    "cached_ratio": ("prompt cached, %", 100.0, ".1f"),
    "drafted_per_pass": ("drafted a request and step", 1.0, ".1f"),
    "accepted_ratio": ("drafts accepted, %", 100.0, ".1f"),
    "busy_ratio": ("time busy, %", 100.0, ".1f"),
    "idle_joules_ratio": ("joules idle, %", 100.0, ".1f"),
    "static_joules_ratio": ("static power of steps' joules, %", 100.0, ".1f"),
    "waited_ratio": ("waiting for the host, %", 100.0, ".1f"),
    "arithmetic_intensity": ("FLOPs a byte", 1.0, ".0f"),
    "memory_bound_ratio": ("memory-bound, %", 100.0, ".0f"),
    "compute_bound_ratio": ("compute-bound, %", 100.0, ".0f"),
    "power_bound_ratio": ("power-bound, %", 100.0, ".0f"),
    "sm_active_ratio": ("SMs active, %", 100.0, ".0f"),
    "tensor_active_ratio": ("tensor cores active, %", 100.0, ".0f"),
    "dram_active_ratio": ("DRAM bandwidth, %", 100.0, ".0f"),
    "sm_clock_hertz": ("SM clock, MHz", 1e-6, ".0f"),
    "power_limit_watts": ("power limit, W", 1.0, ".0f"),
    "throttled_ratio": ("throttled, %", 100.0, ".0f"),
    "max_num_seqs": ("max_num_seqs", 1.0, ".0f"),
    "max_num_batched_tokens": ("max_num_batched_tokens", 1.0, ".0f"),
    "kv_cache_tokens": ("KV cache, tokens", 1.0, ".0f"),
    "kv_usage_ratio": ("KV cache used, %", 100.0, ".0f"),
    "kv_full_ratio": ("KV cache full, %", 100.0, ".0f"),
    "preemptions_per_request": ("preemptions a request", 1.0, ".2f"),
    "preempted_joules_ratio": ("joules of preemption, %", 100.0, ".1f"),
}
"""How each latent figure is told: name with unit, factor, format."""


def rendered(diagnosis: Diagnosis) -> Group:
    """All of it, for a rich console."""
    rows: list[RenderableType] = [Text.assemble(*_head(diagnosis)), Text(), _waterfall(diagnosis), Text()]
    told = [part for part in diagnosis.parts if part.significant]
    if not told:
        rows.append(Text("No cause is beyond what chance explains."))
    for part in told:
        rows += _explained(part, diagnosis)
    rows += [Text(note, style="dim") for note in diagnosis.notes]
    return Group(*rows)


def _head(diagnosis: Diagnosis) -> Iterator[str]:
    before, after = diagnosis.before, diagnosis.after
    change = diagnosis.change / before.joules_per_token
    yield (
        f"{diagnosis.engine}: {before.joules_per_token:.4g} to {after.joules_per_token:.4g} "
        f"J/{diagnosis.unit} ({change:+.1%})\n"
    )
    yield f"{_window(before)}\n{_window(after)}"


def _window(window: Told) -> str:
    begin, end = (_instant(each) for each in (window.start_wall_seconds, window.end_wall_seconds))
    return f"  {window.name}: {begin} to {end}, {window.minutes} minutes, {window.tokens:.0f} generated"


def _instant(wall_seconds: float) -> str:
    return f"{datetime.fromtimestamp(wall_seconds, timezone.utc):%Y-%m-%d %H:%M:%SZ}"


def _waterfall(diagnosis: Diagnosis) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=True, header_style="dim")
    table.add_column("")
    table.add_column(f"J/{diagnosis.unit}", justify="right")
    table.add_column("±", justify="right")
    table.add_column("of change", justify="right")
    table.add_column("", no_wrap=True)
    bars = bars_of(diagnosis)
    low, high = span_of(bars)
    for bar in bars:
        level = bar.kind == "level"
        value = f"{bar.end:.4f}" if level else f"{bar.height:+.4f}"
        share = "" if level or not diagnosis.change else f"{bar.height / diagnosis.change:.0%}"
        style = _STYLES[bar.kind]
        cells = (bar.title, value, f"{bar.error:.4f}", share)
        table.add_row(*(Text(cell, style=style) for cell in cells), _bar(bar, low, high))
    return table


def _bar(bar: Bar, low: float, high: float) -> Text:
    scale = _WIDTH / max(high - low, 1e-12)
    ends = sorted((low if bar.kind == "level" else bar.begin, bar.end))
    begin, end = (round((each - low) * scale) for each in ends)
    end = max(end, begin + 1)
    colour = {"level": "white", "doubtful": "bright_black"}.get(
        bar.kind, "red" if bar.height > 0 else "green"
    )
    fill = "░" if bar.kind == "doubtful" else "█"
    return Text(" " * begin + fill * (end - begin), style=colour)


def _explained(part: Part, diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """The sentence of a cause, and the figures beside it."""
    title = CAUSES[part.cause].title
    yield Text.assemble((title, "bold"), f"  {part.sentence}")
    figures = [_figure(name, diagnosis) for name in BESIDE[part.cause]]
    line = " · ".join(figure for figure in figures if figure)
    if line:
        yield Padding(Text(line, style="dim"), (0, 0, 1, 2))


def _figure(name: str, diagnosis: Diagnosis) -> str:
    if name == "tasks":
        return _tasks(diagnosis.before.latents, diagnosis.after.latents)
    one, other = (getattr(each.latents, name) for each in (diagnosis.before, diagnosis.after))
    if one is None or other is None:
        return ""
    title, factor, form = _FORMS[name]
    return f"{title} {one * factor:{form}} → {other * factor:{form}}"


def _tasks(before: Latents, after: Latents) -> str:
    """Each task's part of the requests, and what its tokens cost."""
    shown = []
    old = {each.task: each for each in before.tasks}
    for each in after.tasks[:_MOST_TASKS]:
        was = old.get(each.task)
        part = (
            f"{0.0 if was is None else 100.0 * was.requests_ratio:.0f} → {100.0 * each.requests_ratio:.0f} %"
        )
        costs = [one.joules_per_token for one in (was, each) if one is not None]
        told = " → ".join("?" if cost is None else f"{cost:.3g}" for cost in costs)
        shown.append(f"{each.task} {part} at {told} J/token")
    return ", ".join(shown)
