"""The page at ``/`` as the server draws it, from one snapshot: complete without scripts.

Where a browser runs the scripts of :mod:`joulescope.export.page`, they begin with the snapshot that is in the
page and put the live view in its place; where they fail, this stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from joulescope import __version__
from joulescope.export.snapshot_json import encode_snapshot
from joulescope.host_model import HostDomainTotals
from joulescope.label_model import clean
from joulescope.model import METHOD, METHOD_VERSION, TOKEN, EngineTotals, GpuTotals, Snapshot

REFRESH_SECONDS = 5
"""How often a browser without scripts asks anew."""

LINKS = (
    ("metrics", "metrics for Prometheus"),
    ("api/snapshot", "the same figures as JSON"),
    ("api/requests", "requests as JSON"),
    ("-/ready", "readiness"),
    ("-/healthy", "health"),
)
"""Relative, so that they hold behind a proxy that puts the sidecar below a path."""

PARTS = ("attributed", "idle", "overhead", "unattributed")

GPU_HEAD = (
    "GPU",
    "sensor",
    "power",
    "measured",
    "attributed",
    "idle",
    "overhead",
    "unattributed",
    "residual",
)

ENGINE_HEAD = (
    "engine",
    "model",
    "software",
    "hook",
    "finished",
    "open",
    "output",
    "attributed",
    "J per output so far",
)


def _joules(value: float) -> str:
    for size, unit in ((1e9, "GJ"), (1e6, "MJ"), (1e3, "kJ")):
        if abs(value) >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.2f} J"


def _known(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _state(up: bool) -> str:
    return "up" if up else '<span class="down">down</span>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> str:
    """A table of cells that are HTML already."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return f"<p>{empty}</p>"
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    return f'<div class="wide"><table><tr>{titles}</tr>{body}</table></div>'


def _gpu_row(totals: GpuTotals) -> tuple[str, ...]:
    reading = totals.reading if totals.up else None
    power_watts = None if reading is None else reading.power_watts
    return (
        f"{escape(totals.info.name or 'GPU')}<br><small>{escape(totals.info.gpu)}</small>",
        _state(totals.up),
        _known(power_watts, "{:.0f} W"),
        _joules(totals.measured_joules),
        _joules(totals.attributed_joules),
        _joules(totals.idle_joules),
        _joules(sum(totals.overhead_joules.values())),
        _joules(sum(totals.unattributed_joules.values())),
        _joules(totals.residual_joules),
    )


def _host(domains: Sequence[HostDomainTotals]) -> str:
    """Nothing at all where the host's own energy is not measured."""
    if not domains:
        return ""
    head = ("domain", "sensor", "measured", "engines", "other", "idle", "unattributed", "residual")
    rows = (
        (
            escape(totals.info.domain),
            _state(totals.up),
            _joules(totals.measured_joules),
            _joules(sum(totals.attributed_joules.values())),
            _joules(totals.other_joules),
            _joules(totals.idle_joules),
            _joules(sum(totals.unattributed_joules.values())),
            _joules(totals.residual_joules),
        )
        for totals in domains
    )
    return f"<h2>CPU packages and DRAM</h2>{_table(head, rows, '')}"


def _engine_row(totals: EngineTotals) -> tuple[str, ...]:
    attributed_joules = sum(totals.attributed_joules.values())
    generated = totals.tokens.get("generated", 0)
    per_unit = attributed_joules / generated if generated else None
    unit = totals.info.unit
    return (
        escape(totals.info.engine),
        escape(totals.info.served_model or totals.info.model),
        escape(f"{totals.info.software} {totals.info.vllm_version}".strip()),
        _state(totals.up),
        str(sum(totals.requests_finished.values())),
        str(totals.requests_open),
        str(generated) if unit == TOKEN else f"{generated} ({escape(unit)})",
        _joules(attributed_joules),
        _known(per_unit, "{:.3f}"),
    )


def _balance(gpus: Sequence[GpuTotals]) -> str:
    """The energy of all GPUs as one bar of its four parts."""
    joules = (
        sum(gpu.attributed_joules for gpu in gpus),
        sum(gpu.idle_joules for gpu in gpus),
        sum(sum(gpu.overhead_joules.values()) for gpu in gpus),
        sum(sum(gpu.unattributed_joules.values()) for gpu in gpus),
    )
    measured_joules = sum(gpu.measured_joules for gpu in gpus)
    if measured_joules <= 0:
        return "<p>No energy measured yet.</p>"
    shares = [100 * part / measured_joules for part in joules]
    starts = [sum(shares[:number]) for number in range(len(shares))]
    bar = "".join(
        f'<rect class="{name}" x="{start:.3f}%" width="{share:.3f}%" height="100%"/>'
        for name, start, share in zip(PARTS, starts, shares, strict=True)
    )
    key = "".join(
        f'<li><i class="swatch {name}"></i>{name} {_joules(part)} ({share:.1f} %)</li>'
        for name, part, share in zip(PARTS, joules, shares, strict=True)
    )
    return (
        f'<p>{_joules(measured_joules)} measured</p><svg class="bar" aria-hidden="true">{bar}</svg>'
        f'<ul class="key">{key}</ul>'
    )


def render_landing(snapshot: Snapshot, folder: str, modules: Sequence[str]) -> str:
    """The page; every text that came from outside is escaped.

    Args:
        folder: where the files of the live view are, relative to the page.
        modules: the scripts among them; ``main.js`` is the one that begins.
    """
    preloads = "".join(f'<link rel="modulepreload" href="{folder}/{name}">' for name in modules)
    return clean(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>joulescope</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<noscript><meta http-equiv="refresh" content="{REFRESH_SECONDS}"></noscript>'
        f'<link rel="icon" href="{folder}/icon.svg">{preloads}'
        f'<link rel="stylesheet" href="{folder}/page.css">'
        f'<script type="module" blocking="render" src="{folder}/main.js"></script></head><body>'
        f'<div id="drawn">{_drawn(snapshot)}</div><div id="live" hidden></div>'
        f'<script type="application/json" id="first">{_embedded(snapshot)}</script></body></html>'
    )


def _embedded(snapshot: Snapshot) -> str:
    """The snapshot as JSON that cannot end the element it stands in."""
    return encode_snapshot(snapshot).decode().replace("<", "\\u003c")


def _drawn(snapshot: Snapshot) -> str:
    gpus = _table(GPU_HEAD, map(_gpu_row, snapshot.gpus), "No GPU is being measured.")
    engines = _table(ENGINE_HEAD, map(_engine_row, snapshot.engines), "No engine has connected yet.")
    links = "".join(f'<a href="{path}">{text}</a>' for path, text in LINKS)
    return (
        f"<header><h1>joulescope {escape(__version__)}</h1>"
        f"<p>Energy divided by {escape(METHOD)} version {escape(METHOD_VERSION)}.</p>"
        f"<nav>{links}</nav></header>"
        f"<h2>Energy balance</h2>{_balance(snapshot.gpus)}<h2>GPUs</h2>{gpus}<h2>Engines</h2>{engines}"
        f"{_host(snapshot.host.domains)}"
    )
