"""The landing page: one self-contained HTML page, drawn from one snapshot, without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from joulescope import __version__
from joulescope.export.metric import clean
from joulescope.host_model import HostDomainTotals
from joulescope.model import METHOD, METHOD_VERSION, TOKEN, EngineTotals, GpuTotals, Snapshot

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
REFRESH_SECONDS = 5

LINKS = (
    ("/metrics", "metrics for Prometheus"),
    ("/api/snapshot", "the same figures as JSON"),
    ("/-/ready", "readiness"),
    ("/-/healthy", "health"),
)

STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--a:#2f9e6b;--i:#8a94a6;--o:#d99a2b;--u:#c2556b}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2.5rem auto;padding:0 1.25rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}p{margin:.25rem 0;opacity:.8}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:right;padding:.35rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{font-weight:600;background:var(--soft)}
td{font-variant-numeric:tabular-nums}
.bar{display:flex;height:.9rem;border-radius:.45rem;overflow:hidden;background:var(--soft);margin:.6rem 0}
.a{background:var(--a)}.i{background:var(--i)}.o{background:var(--o)}.u{background:var(--u)}
.key span{display:inline-block;width:.7rem;height:.7rem;border-radius:.2rem;margin:0 .35rem 0 1rem}
.key span:first-child{margin-left:0}.down{color:var(--u);font-weight:600}nav a{margin-right:1.25rem}
"""

PARTS = (("a", "attributed"), ("i", "idle"), ("o", "overhead"), ("u", "unattributed"))


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
    titles = "".join(f"<th>{title}</th>" for title in head)
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
    bar = "".join(
        f'<div class="{mark}" style="width:{share:.3f}%"></div>'
        for (mark, _), share in zip(PARTS, shares, strict=True)
    )
    key = "".join(
        f'<span class="{mark}"></span>{name} {_joules(part)} ({share:.1f} %)'
        for (mark, name), part, share in zip(PARTS, joules, shares, strict=True)
    )
    return f'<p>{_joules(measured_joules)} measured</p><div class="bar">{bar}</div><p class="key">{key}</p>'


def render_landing(snapshot: Snapshot) -> str:
    """The page; every text that came from outside is escaped."""
    gpu_head = (
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
    engine_head = (
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
    gpus = _table(gpu_head, map(_gpu_row, snapshot.gpus), "No GPU is being measured.")
    engines = _table(engine_head, map(_engine_row, snapshot.engines), "No engine has connected yet.")
    links = "".join(f'<a href="{path}">{text}</a>' for path, text in LINKS)
    return clean(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>joulescope</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}"><style>{STYLE}</style></head><body>'
        f"<h1>joulescope {escape(__version__)}</h1>"
        f"<p>Energy divided by {escape(METHOD)} version {escape(METHOD_VERSION)}.</p><nav>{links}</nav>"
        f"<h2>Energy balance</h2>{_balance(snapshot.gpus)}<h2>GPUs</h2>{gpus}<h2>Engines</h2>{engines}"
        f"{_host(snapshot.host.domains)}"
        "</body></html>"
    )
