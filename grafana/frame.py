"""What all dashboards have around their panels: variables, annotations, links, and the grid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from grafana.look import BAD, DATASOURCE, WARN, Placed
from grafana.promql import SIDECARS

COLUMNS = 24
TAG = "joulescope"
ALL = model.VariableOption(selected=True, text="All", value="$__all")

_BY_QUERY = {
    "cluster": ("Cluster", "label_values(joulescope_build_info, cluster)",
        "Label of the scrape targets, where an installation adds one. All works without it."),
    "instance": ("Sidecar", 'label_values(joulescope_build_info{cluster=~"$cluster"}, instance)',
        "One joulescope sidecar, as Prometheus names the target."),
    "model": ("Model", f"label_values(joulescope_engine_info{{{SIDECARS}}}, served_model)",
        "Model as served. It chooses among engines; what belongs to a GPU alone is not narrowed by it."),
    "engine": ("Engine",
        f'label_values(joulescope_engine_info{{{SIDECARS}, served_model=~"$model"}}, engine)',
        "One engine. Engines of several sidecars may have the same name: choose the sidecar too."),
    "gpu": ("GPU", f"label_values(joulescope_gpu_info{{{SIDECARS}}}, gpu)",
        "One GPU, by its UUID. It narrows what belongs to a GPU, not what belongs to an engine."),
    "lora": ("Adapter",
        f'label_values(joulescope_adapter_energy_joules_total{{{SIDECARS}, engine=~"$engine"}}, lora)',
        "LoRA adapter; base is the model without one."),
    "tenant": ("Tenant",
        f'label_values(joulescope_tenant_energy_joules_total{{{SIDECARS}, engine=~"$engine"}}, tenant)',
        "Tenant, where the sidecar is configured to tell tenants apart."),
}  # fmt: skip
"""Variables by name: label, query, description."""


def _data_source() -> dashboard.DatasourceVariable:
    variable = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    return variable.description("The Prometheus that scrapes the sidecars, or what speaks its language.")


def _by_query(name: str) -> dashboard.QueryVariable:
    label, query, why = _BY_QUERY[name]
    variable = dashboard.QueryVariable(name).label(label).description(why).query(query)
    variable.datasource(DATASOURCE).refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    variable.sort(model.VariableSort.ALPHABETICAL_ASC).current(ALL)
    return variable.multi(True).include_all(True).all_value(".*")


@dataclass(frozen=True)
class Choice:
    """A variable whose values are given: text to value."""

    name: str
    label: str
    why: str
    options: dict[str, str]

    def build(self) -> dashboard.CustomVariable:
        """The variable; its first value is chosen."""
        options = [
            model.VariableOption(selected=not at, text=text, value=value)
            for at, (text, value) in enumerate(self.options.items())
        ]
        written = ", ".join(f"{text} : {value}" for text, value in self.options.items())
        variable = dashboard.CustomVariable(self.name).label(self.label).description(self.why)
        return variable.values(written).options(options).current(options[0])


@dataclass(frozen=True)
class Row:
    """A heading and the panels under it, in reading order."""

    heading: str
    panels: Sequence[Placed]


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    name: str
    title: str
    question: str
    """What it answers; shown as its description."""
    variables: Sequence[str]
    rows: Sequence[Row]
    choices: Sequence[Choice] = field(default_factory=tuple)
    since: str = "now-1h"
    refresh: str = "30s"

    @property
    def uid(self) -> str:
        """Stable: links and bookmarks name it."""
        return f"joulescope-{self.name}"

    def build(self) -> model.Dashboard:
        """The dashboard as the SDK's own type."""
        found = dashboard.Dashboard(f"joulescope / {self.title}").uid(self.uid).description(self.question)
        found.tags([TAG, "energy", "vllm"]).time(self.since, "now").refresh(self.refresh).timezone("browser")
        found.editable().tooltip(model.DashboardCursorSync.CROSSHAIR)
        found.with_variable(_data_source())
        for name in self.variables:
            found.with_variable(_by_query(name))
        for choice in self.choices:
            found.with_variable(choice.build())
        for annotation in _annotations():
            found.annotation(annotation)
        found.link(_links())
        self._place(found)
        return found.build()

    def _place(self, found: dashboard.Dashboard) -> None:
        """Panels from left to right; a new line begins where one is full, below the highest so far."""
        number, top = 1, 0
        for row in self.rows:
            found.with_row(
                dashboard.Row(row.heading).id(number).grid_pos(model.GridPos(h=1, w=COLUMNS, x=0, y=top))
            )
            number, top = number + 1, top + 1
            left = tallest = 0
            for placed in row.panels:
                if left + placed.width > COLUMNS:
                    left, top, tallest = 0, top + tallest, 0
                place = model.GridPos(h=placed.height, w=placed.width, x=left, y=top)
                found.with_panel(placed.panel.id(number).grid_pos(place))
                number, left, tallest = number + 1, left + placed.width, max(tallest, placed.height)
            top += tallest


def _annotations() -> list[dashboard.AnnotationQuery]:
    """Alerts on the time axis: regressions from the start, the others on demand."""

    def alerts(name: str, matcher: str, colour: str, enabled: bool) -> dashboard.AnnotationQuery:
        query = dashboard.AnnotationQuery().name(name).datasource(DATASOURCE).enable(enabled)
        return query.icon_color(colour).expr(f'ALERTS{{{matcher}, alertstate="firing"}}')

    regression = 'alertname=~"Joulescope.*Regression.*"'
    others = 'alertname=~"Joulescope.+", alertname!~".*Regression.*"'
    return [
        alerts("Energy regressions", regression, BAD, True),
        alerts("Other joulescope alerts", others, WARN, False),
    ]


def _links() -> dashboard.DashboardLink:
    """The other dashboards by their tag, with time and variables kept; the one at hand is not listed."""
    link = dashboard.DashboardLink("joulescope").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(False).include_vars(True).keep_time(True).target_blank(False)


def written(board: Board) -> str:
    """The dashboard as its JSON file."""
    found = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    for annotation in found["annotations"]["list"]:
        # The SDK's type does not know what a query of Prometheus alerts is labelled by.
        annotation |= {"titleFormat": "{{alertname}}", "textFormat": "{{engine}} {{gpu}} {{instance}}"}
    return json.dumps(_ordered(found), indent=2, ensure_ascii=False) + "\n"


def _ordered(value: Any) -> Any:
    """Keys in the order of their names, so that a change of the SDK's order is no change."""
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return [_ordered(each) for each in value] if isinstance(value, list) else value


def engine_link() -> dict[str, Any]:
    """A link of a table's engine to its own dashboard, with the row's sidecar and engine chosen."""
    kept = "${datasource:queryparam}&${cluster:queryparam}&${__url_time_range}"
    row = "var-engine=${__data.fields.Engine}&var-instance=${__data.fields.Sidecar}"
    return {"title": "Look at this engine", "url": f"/d/joulescope-engine?{kept}&{row}", "targetBlank": False}
