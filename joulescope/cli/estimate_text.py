"""An estimate for people: tables by rich, figures with units and errors."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from joulescope.insight.estimate.estimate import JOULES_PER_WATT_HOUR, Estimate, Fleet, Lowered, Part, priced
from joulescope.insight.estimate.parameters import changed
from joulescope.insight.estimate.presets import PRESETS
from joulescope.insight.estimate.sensitivity import Swing
from joulescope.insight.estimate.told import assumptions, beside_published
from joulescope.insight.estimate.versus import Versus

_BAR_CELLS = 24
_WIDE = 110
"""Columns of a terminal from which on there is room for bars."""
_WORDS = ("kind", "parameter", "unit", "")
"""Columns that hold words or bars, not figures."""
_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))


def show(
    console: Console,
    found: Estimate,
    *,
    versus: Versus | None,
    swings: Sequence[Swing],
    notes: Sequence[str],
) -> None:
    """Prints the estimate, and whatever was asked for beside it."""
    wide = console.width >= _WIDE
    parts: list[RenderableType] = [_head(found), _queries(found, wide)]
    parts += [_published(found, wide)] if beside_published(found) else []
    parts += [_prices(found, wide)] if _is_priced(found) else []
    parts += [_levers(found.levers, wide)] if found.levers else []
    parts += [_fleets(found, wide)] if found.fleets else []
    parts += [_versus(versus, wide)] if versus is not None else []
    parts += [_swings(swings, wide)] if swings else []
    console.print(Group(*(Padding(part, (0, 0, 1, 0)) for part in parts)))
    beside = versus.notes if versus is not None else ()
    for text in (*found.notes, *notes, *beside, *assumptions(found)):
        console.print(Text(f"· {text}"))


def _head(found: Estimate) -> Text:
    parameters = found.parameters
    preset = PRESETS.get(parameters.preset)
    text = Text("Joules of a query, estimated, not measured. ", style="bold")
    if preset is not None:
        text.append(f"Parameters of arXiv 2509.20241 {preset.version}", style="not bold")
        other = changed(parameters, preset.parameters)
        text.append(f", but for: {', '.join(other)}" if other else "", style="not bold")
        text.append(". ")
    text.append(
        f"{parameters.samples} draws for each model and kind, seed {parameters.seed}.", style="not bold"
    )
    return text


class _Rows:
    """A table whose first column is of names; columns that begin with ``~`` are for wide terminals."""

    def __init__(self, title: str, wide: bool, *columns: str) -> None:
        self._kept = [at for at, column in enumerate(columns) if wide or not column.startswith("~")]
        self.table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for at in self._kept:
            name = columns[at].removeprefix("~")
            words = at == 0 or name in _WORDS
            self.table.add_column(name, justify="left" if words else "right", no_wrap=True)

    def add(self, *cells: RenderableType, style: str = "") -> None:
        """A row, a cell for each column, those that are left out too; the last may be missing."""
        self.table.add_row(*(cells[at] if at < len(cells) else "" for at in self._kept), style=style)


def _queries(found: Estimate, wide: bool) -> Table:
    title = "A query: watt hours (± from the draws), output tokens, tokens/s of a node"
    table = _Rows(title, wide, "kind", "share", "median", "quartiles", "mean", "~tokens", "~tokens/s")
    total = sum(query.weight for query in found.parameters.queries)
    shares = {query.name: query.weight / total for query in found.parameters.queries}
    for part in found.queries:
        table.add(part.query, f"{part.weight:.0%}", *_figures(part))
        kinds = [each for each in found.models if each.query == part.query]
        for model in kinds if len(kinds) > 1 else ():
            share = f"{shares[part.query] * model.weight:.0%}"
            table.add(f"  {model.model}", share, *_figures(model), style="dim")
    return table.table


def _figures(part: Part) -> tuple[str, ...]:
    joules = part.joules
    return (
        f"{_wh(joules.median)} ± {joules.median_error / JOULES_PER_WATT_HOUR:.2g}",
        f"{_wh(joules.lower_quartile)} to {_wh(joules.upper_quartile)}",
        _wh(joules.mean),
        f"{part.output_tokens_mean:.0f}",
        f"{part.tokens_per_second:.0f}",
    )


def _wh(joules: float) -> str:
    return f"{joules / JOULES_PER_WATT_HOUR:.3g}"


def _published(found: Estimate, wide: bool) -> Table:
    table = _Rows(
        f"Beside what {found.parameters.preset} publishes",
        wide,
        "figure",
        "published",
        "here",
        "~factor",
        "unit",
    )
    for each, unit, ours, quartiles in beside_published(found):
        table.add(
            each.name,
            f"{each.value:g}{_between(each.quartiles)}",
            f"{ours:.3g}{_between(quartiles if each.quartiles else None)}",
            f"{ours / each.value:.3f}",
            unit,
        )
    return table.table


def _between(quartiles: tuple[float, float] | None) -> str:
    return "" if quartiles is None else f" ({quartiles[0]:.3g} to {quartiles[1]:.3g})"


def _is_priced(found: Estimate) -> bool:
    return found.parameters.carbon_grams_per_kwh is not None or found.parameters.price_per_kwh is not None


def _prices(found: Estimate, wide: bool) -> Table:
    parameters = found.parameters
    money = f"{parameters.currency or 'price'} of 1000"
    table = _Rows("Carbon and money of the mean query", wide, "kind", "CO₂e", money)
    for part in found.queries:
        carbon = priced(part.joules.mean, parameters.carbon_grams_per_kwh, 1.0)
        price = priced(part.joules.mean, parameters.price_per_kwh, 1e3)
        table.add(
            part.query,
            "" if carbon is None else _range(carbon, 1.0, "g"),
            "" if price is None else _range(price, 1.0, ""),
        )
    return table.table


def _levers(levers: Sequence[Lowered], wide: bool) -> Table:
    table = _Rows("Levers", wide, "lever", "kind", "divides by", "~quartiles", "leaves Wh")
    for each in levers:
        factor = each.factor
        table.add(
            f"{each.scenario}: {each.lever or 'all together'}",
            each.query,
            f"{factor.median:.3g}",
            f"{factor.lower_quartile:.3g} to {factor.upper_quartile:.3g}",
            _wh(each.joules.median),
            style="" if each.lever else "bold",
        )
    return table.table


def _fleets(found: Estimate, wide: bool) -> Table:
    parameters = found.parameters
    title = (
        f"A fleet: {parameters.queries_per_day:g} queries a day, factor {parameters.beta:.4g} for the fleet"
    )
    columns = ["levers pulled", "energy a day", "~± (draws)", "~mean power", "~busy nodes"]
    columns += ["CO₂e a day"] if parameters.carbon_grams_per_kwh is not None else []
    columns += [f"{parameters.currency or 'price'} a day"] if parameters.price_per_kwh is not None else []
    table = _Rows(title, wide, *columns)
    for fleet in found.fleets:
        table.add(*_fleet(fleet))
    return table.table


def _fleet(fleet: Fleet) -> list[str]:
    row = [
        fleet.scenario or "none",
        _scaled(fleet.joules / JOULES_PER_WATT_HOUR, "Wh"),
        _scaled(fleet.joules_error / JOULES_PER_WATT_HOUR, "Wh"),
        _scaled(fleet.watts, "W"),
        "" if fleet.busy_nodes is None else f"{fleet.busy_nodes:.4g}",
    ]
    if fleet.carbon_kilograms is not None:
        row.append(_range(fleet.carbon_kilograms, 1e3, "g"))
    if fleet.price is not None:
        row.append(_range(fleet.price, 1.0, ""))
    return row


def _range(values: tuple[float, float, float], scale: float, unit: str) -> str:
    low, mean, high = (_scaled(value * scale, unit) for value in values)
    return mean if low == high else f"{mean} ({low} to {high})"


def _scaled(value: float, unit: str) -> str:
    """Three digits and a prefix."""
    scales = _SCALES if unit else _SCALES[:4]  # money has no thousandths by prefix
    size, prefix = next((each for each in scales if abs(value) >= 0.9995 * each[0]), (1.0, ""))
    return f"{value / size:.3g} {prefix}{unit}".rstrip()


def _versus(versus: Versus, wide: bool) -> Table:
    measured = versus.measured
    title = (
        f"Beside a meter: {', '.join(measured.engines) or 'engines'} on "
        f"{', '.join(measured.gpu_names) or 'GPUs'}, {measured.queries} queries"
    )
    columns = f"of a query ({versus.query})", "estimated", "measured", "factor", "ln factor", "~"
    table = _Rows(title, wide, *columns)
    whole = sum(abs(each.log) for each in versus.factors) or 1.0
    for each in versus.factors:
        cells = round(_BAR_CELLS * abs(each.log) / whole)
        bar = Text(("+" if each.log >= 0.0 else "−") * cells, style="red" if each.log >= 0.0 else "green")
        table.add(
            f"{each.name}{f', {each.unit}' if each.unit else ''}",
            f"{each.estimated:.4g}",
            f"{each.measured:.4g}",
            f"× {each.factor:.3g}",
            f"{each.log:+.2f}",
            bar,
        )
    joules = versus.estimated_joules, versus.measured_joules
    total = sum(each.log for each in versus.factors)
    table.add(
        "joules", *(f"{each:.4g}" for each in joules), f"× {versus.factor:.3g}", f"{total:+.2f}", style="bold"
    )
    return table.table


def _swings(swings: Sequence[Swing], wide: bool) -> Table:
    table = _Rows(
        "What moves the median most (each at its P5 and P95)",
        wide,
        "kind",
        "parameter",
        "~from",
        "~to",
        "median Wh",
        "factor",
        "~",
    )
    widest = max(swing.ratio for swing in swings)
    for swing in swings:
        low, high = sorted((swing.low_joules, swing.high_joules))
        share = 1.0 if swing.ratio == widest else (swing.ratio - 1.0) / (widest - 1.0)
        table.add(
            swing.query,
            swing.parameter,
            swing.low,
            swing.high,
            f"{_wh(low)} to {_wh(high)}",
            f"{swing.ratio:.3g}",
            "█" * max(round(_BAR_CELLS * share), 1),
        )
    return table.table
