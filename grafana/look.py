"""How panels look: one colour for each part of the joules, and one builder for each kind of panel.

Only kinds that Grafana's own component library can draw are used (time series, stat, bar gauge, table), so
that each panel could be looked at: ``grafana/draw`` does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

DECODE, PREFILL = "#2f9e6b", "#8fd3b4"
IDLE, OVERHEAD, UNATTRIBUTED = "#8a94a6", "#d99a2b", "#c2556b"
ACCENT, FAINT = "#3d8fd1", "#9aa7b8"
GOOD, WARN, BAD = "green", "orange", "red"

TOKENS_PER_SECOND, TOKENS_PER_JOULE, PER_SECOND = "si:tok/s", "si:tok/J", "suffix:/s"
"""Units that Grafana has no name for; ``si`` scales them."""

FLOPS_PER_BYTE = "suffix: FLOP/B"

# The stated sizes of a regression: a tenth more is worth a look, a fifth more is what the alert speaks of.
INDEX_STEPS: Sequence[tuple[float | None, str]] = [(None, GOOD), (1.1, WARN), (1.2, BAD)]

PART_COLOURS = {
    "decode": DECODE,
    "prefill": PREFILL,
    "idle": IDLE,
    "overhead": OVERHEAD,
    "unattributed": UNATTRIBUTED,
}
"""As on the sidecar's own page: attributed green, idle grey, overhead amber, unattributed red."""

Steps = Sequence[tuple[float | None, str]]
Panel = Any  # the SDK's builders share no base that has the methods which all of them have


@dataclass(frozen=True)
class Ask:
    """One query of a panel and how what it answers is drawn."""

    expression: str
    legend: str = ""
    colour: str = ""
    exemplars: bool = False
    style: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of its series: the id of a property of the field's configuration to its value."""


@dataclass(frozen=True)
class Placed:
    """A panel and the room it takes on a grid of 24 columns."""

    panel: Panel
    width: int
    height: int


def steps(of: Steps) -> dashboard.ThresholdsConfig:
    """Thresholds at absolute values; the first has none."""
    found = [model.Threshold(value=value, color=colour) for value, colour in of]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def column_steps(of: Steps) -> dict[str, Any]:
    """Thresholds of one column, which is coloured by them."""
    found = [{"color": colour, "value": value} for value, colour in of]
    return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": found}}


def _target(ask: Ask, number: int, *, instant: bool, form: PromQueryFormat | None = None) -> Panel:
    query = prometheus.Dataquery().expr(ask.expression).ref_id(_ref(number)).datasource(DATASOURCE)
    query = query.instant() if instant else query.range()
    query.legend_format(ask.legend or "__auto")
    if form is not None:
        query.format(form)
    return query.exemplar(True) if ask.exemplars else query


def _begin(panel: Panel, title: str, why: str, unit: str, none: str) -> Panel:
    return panel.title(title).description(why).unit(unit).no_value(none).datasource(DATASOURCE)


def _fixed(colour: str) -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color(colour)


def _ref(number: int) -> str:
    """What Grafana calls the queries of a panel: A, B, C and so on."""
    return chr(ord("A") + number)


def _override(panel: Panel, ask: Ask, number: int = 0) -> None:
    properties = [model.DynamicConfigValue(id_val=name, value=value) for name, value in ask.style.items()]
    if ask.colour:
        colour = {"mode": "fixed", "fixedColor": ask.colour}
        properties.insert(0, model.DynamicConfigValue(id_val="color", value=colour))
    if not properties:
        return
    if "{{" in ask.legend:  # its series have names that are not known here
        panel.override_by_query(_ref(number), properties)
    else:
        panel.override_by_name(ask.legend, properties)


def figure(
    title: str,
    why: str,
    unit: str,
    expression: str,
    *,
    none: str = "no data",
    thresholds: Steps | None = None,
    colour: str = ACCENT,
    decimals: int | None = None,
    over_range: bool = False,
    legend: str = "",
    mappings: Sequence[Any] = (),
    size: tuple[int, int] = (4, 5),
) -> Placed:
    """One number: as it is now, with its course behind it; ``over_range`` for one of all the time shown."""
    panel = _begin(stat.Panel(), title, why, unit, none)
    # With a name above it the number stands clear of its course, and the name says of when it is.
    name = legend or ("in the time shown" if over_range else "now")
    panel.with_target(_target(Ask(expression, name), 0, instant=over_range))
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    mode = common_model.BigValueGraphMode.NONE if over_range else common_model.BigValueGraphMode.AREA
    panel.graph_mode(mode).color_mode(common_model.BigValueColorMode.VALUE)
    panel.justify_mode(common_model.BigValueJustifyMode.AUTO)
    panel.text_mode(common_model.BigValueTextMode.VALUE_AND_NAME)
    panel.text(common.VizTextDisplayOptions().value_size(34).title_size(12))
    if thresholds is None:
        panel.color_scheme(_fixed(colour))
    else:
        panel.thresholds(steps(thresholds))
        panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    if decimals is not None:
        panel.decimals(decimals)
    if mappings:
        panel.mappings(list(mappings))
    return Placed(panel, *size)


def lines(
    title: str,
    why: str,
    unit: str,
    asks: Sequence[Ask],
    *,
    none: str = "no data",
    stacked: bool = False,
    table_legend: bool = False,
    bounds: tuple[float | None, float | None] = (0, None),
    at_least: tuple[float, float] | None = None,
    thresholds: Steps | None = None,
    decimals: int | None = None,
    stairs: bool = False,
    log_base: int | None = None,
    size: tuple[int, int] = (8, 8),
) -> Placed:
    """Courses over time; ``stacked`` only for what is disjoint. The axis spans ``at_least`` so much."""
    panel = _begin(timeseries.Panel(), title, why, unit, none)
    for number, ask in enumerate(asks):
        panel.with_target(_target(ask, number, instant=False))
        _override(panel, ask, number)
    # Without lines, a part that is nothing leaves no trace on top of the stack.
    panel.line_width(0 if stacked else 1.5).fill_opacity(
        80 if stacked else 8 if len(asks) == 1 and "{{" not in asks[0].legend else 0
    )
    panel.show_points(common_model.VisibilityMode.NEVER).span_nulls(False).axis_border_show(False)
    panel.line_interpolation(
        common_model.LineInterpolation.STEP_AFTER if stairs else common_model.LineInterpolation.LINEAR
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL).group("A"))
    panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    least, most = bounds
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if log_base is not None:
        panel.scale_distribution(
            common.ScaleDistributionConfig().type(common_model.ScaleDistribution.LOG).log(log_base)
        )
    if at_least is not None:
        panel.axis_soft_min(at_least[0]).axis_soft_max(at_least[1])
    if thresholds is not None:
        panel.thresholds(steps(thresholds))
        dashed = common_model.GraphThresholdsStyleMode.DASHED
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(dashed))
    if decimals is not None:
        panel.decimals(decimals)
    panel.legend(_legend(table_legend))
    panel.tooltip(
        common.VizTooltipOptions()
        .mode(common_model.TooltipDisplayMode.MULTI)
        .sort(common_model.SortOrder.NONE if stacked else common_model.SortOrder.DESCENDING)
    )
    return Placed(panel, *size)


def _legend(as_table: bool) -> common.VizLegendOptions:
    legend = common.VizLegendOptions().show_legend(True)
    if as_table:
        legend.display_mode(common_model.LegendDisplayMode.TABLE)
        return legend.placement(common_model.LegendPlacement.RIGHT).calcs(["mean", "lastNotNull"])
    legend.display_mode(common_model.LegendDisplayMode.LIST)
    return legend.placement(common_model.LegendPlacement.BOTTOM).calcs([])


def bars(
    title: str,
    why: str,
    unit: str,
    asks: Sequence[Ask],
    *,
    none: str = "no data",
    thresholds: Steps | None = None,
    colour: str = ACCENT,
    decimals: int | None = None,
    buckets: bool = False,
    long_names: bool = False,
    size: tuple[int, int] = (8, 8),
) -> Placed:
    """Numbers side by side, each with a bar; ``buckets`` makes a histogram of cumulative buckets."""
    panel = _begin(bargauge.Panel(), title, why, unit, none)
    form = PromQueryFormat.HEATMAP if buckets else None
    for number, ask in enumerate(asks):
        panel.with_target(_target(ask, number, instant=True, form=form))
        _override(panel, ask, number)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    upright = common_model.VizOrientation.VERTICAL
    panel.orientation(upright if buckets else common_model.VizOrientation.HORIZONTAL)
    panel.display_mode(common_model.BarGaugeDisplayMode.GRADIENT).min(0).show_unfilled(True)
    panel.value_mode(common_model.BarGaugeValueMode.TEXT)
    panel.min_viz_height(12).min_viz_width(8).max_viz_height(64)
    place = common_model.BarGaugeNamePlacement
    panel.name_placement(place.AUTO if buckets else place.TOP if long_names else place.LEFT)
    panel.sizing(common_model.BarGaugeSizing.AUTO)
    panel.text(
        common.VizTextDisplayOptions().value_size(12 if buckets else 16).title_size(10 if buckets else 13)
    )
    if thresholds is None:
        panel.color_scheme(_fixed(colour))
    else:
        panel.thresholds(steps(thresholds))
        panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    if decimals is not None:
        panel.decimals(decimals)
    return Placed(panel, *size)


@dataclass(frozen=True)
class Column:
    """A column of a table that comes from one query; without a heading the query brings keys alone."""

    heading: str
    expression: str
    style: Mapping[str, Any] = field(default_factory=dict)


def grid(
    title: str,
    why: str,
    unit: str,
    keys: Mapping[str, str],
    columns: Sequence[Column],
    *,
    sort: str,
    none: str = "no data",
    key_style: Mapping[str, Mapping[str, Any]] | None = None,
    size: tuple[int, int] = (24, 9),
) -> Placed:
    """A table with a row for each set of labels; ``keys`` are the labels and their headings, in order."""
    panel = _begin(table.Panel(), title, why, unit, none)
    for number, column in enumerate(columns):
        ask = Ask(column.expression)
        panel.with_target(_target(ask, number, instant=True, form=PromQueryFormat.TABLE))
        # A row that lacks a figure does not say what the whole panel would, were it empty.
        if column.heading:
            _override(panel, Ask("", column.heading, style={"noValue": "–", **column.style}))
    for heading, style in (key_style or {}).items():
        _override(panel, Ask("", heading, style=style))
    # One query alone calls its column "Value", several call them "Value #A" and so on.
    values = [f"Value #{_ref(number)}" if len(columns) > 1 else "Value" for number in range(len(columns))]
    order = [*keys, *values]
    headings = {value: column.heading for value, column in zip(values, columns, strict=True)}
    hidden = ["Time", *(value for value, heading in headings.items() if not heading)]
    panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        model.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": dict.fromkeys(hidden, True),
                "indexByName": {name: at for at, name in enumerate(order)},
                "renameByName": {name: text for name, text in {**keys, **headings}.items() if text},
            },
        )
    )
    panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])
    panel.cell_height(common_model.TableCellHeight.SM).show_header(True)
    return Placed(panel, *size)
