"""The energy balance as a table: measured = requests + idle + overhead + unattributed."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from joulescope.model import Snapshot

_BAR_CELLS = 24
_PREFIXES = ((1e6, "MJ", 3), (1e3, "kJ", 3), (1.0, "J", 1))
_PREFIX_FROM = 10
"""A prefix is used from ten of it on."""

_STYLES = {
    "prefill": "cyan",
    "decode": "green",
    "idle": "bright_black",
    "overhead": "yellow",
    "unattributed": "red",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A horizontal bar as wide as its cell; of plain letters where the terminal knows no others."""

    ratio: float
    style: str
    max_cells: int = _BAR_CELLS

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, self.max_cells)
        eighths = round(min(max(self.ratio, 0.0), 1.0) * width * 8)
        full, rest = divmod(eighths, 8)
        if options.ascii_only:
            yield Text("#" * (full + (rest >= 4)), style=self.style)
        else:
            yield Text("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), style=self.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(4, min(options.max_width, self.max_cells))


@dataclass(frozen=True, slots=True)
class Balance:
    """Where the joules of all GPUs went, summed over them."""

    measured_joules: float
    prefill_joules: float
    decode_joules: float
    idle_joules: float
    overhead_joules: float
    unattributed_joules: float
    residual_joules: float

    @classmethod
    def of(cls, snapshot: Snapshot) -> Balance:
        gpus = snapshot.gpus
        by_phase = {"prefill": 0.0, "decode": 0.0}
        for engine in snapshot.engines:
            for (_, phase), joules in engine.attributed_joules.items():
                by_phase[phase] = by_phase.get(phase, 0.0) + joules
        return cls(
            measured_joules=sum(gpu.measured_joules for gpu in gpus),
            prefill_joules=by_phase["prefill"],
            decode_joules=by_phase["decode"],
            idle_joules=sum(gpu.idle_joules for gpu in gpus),
            overhead_joules=sum(sum(gpu.overhead_joules.values()) for gpu in gpus),
            unattributed_joules=sum(sum(gpu.unattributed_joules.values()) for gpu in gpus),
            # Residuals of different GPUs must not cancel.
            residual_joules=max((gpu.residual_joules for gpu in gpus), key=abs, default=0.0),
        )


def balance_table(snapshot: Snapshot) -> Table:
    """The identity that always holds: measured = requests + idle + overhead + unattributed."""
    balance = Balance.of(snapshot)
    scale = balance.measured_joules
    count = len(snapshot.gpus)
    title = "Energy balance" if count == 1 else f"Energy balance of {count} GPUs"
    table = Table(
        box=None,
        padding=(0, 2, 0, 0),
        title=title,
        title_justify="left",
        title_style="bold",
        show_header=False,
    )
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    rows = {
        "prefill": balance.prefill_joules,
        "decode": balance.decode_joules,
        "idle": balance.idle_joules,
        "overhead": balance.overhead_joules,
        "unattributed": balance.unattributed_joules,
    }
    table.add_row(
        "measured", joules_text(balance.measured_joules, scale), "100.0 %" if count else "", style="bold"
    )
    for name, joules in rows.items():
        ratio = joules / balance.measured_joules if balance.measured_joules else 0.0
        table.add_row(
            f"  {name}",
            joules_text(joules, scale),
            f"{ratio:.1%}".replace("%", " %"),
            Bar(ratio, _STYLES[name]),
        )
    residual_style = "green" if balance.residual_joules == 0 else "bold red"
    table.add_row("residual", f"{balance.residual_joules:.6g} J", "", style=residual_style)
    return table


def joules_text(joules: float, scale_joules: float | None = None) -> str:
    """Joules with the prefix that suits ``scale_joules``, by default the figure itself."""
    scale = abs(joules if scale_joules is None else scale_joules)
    divisor, unit, digits = next(
        (each for each in _PREFIXES if scale >= _PREFIX_FROM * each[0]), _PREFIXES[-1]
    )
    return f"{joules / divisor:,.{digits}f} {unit}".replace(",", " ")
