"""The dashboards hold together, as their JSON is read, without a database and without Grafana."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

if sys.version_info < (3, 11):
    pytest.skip("the dashboards' SDK needs Python 3.11", allow_module_level=True)

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.__main__ import DASHBOARDS, main, stale, write
from grafana.boards import BOARDS
from grafana.frame import COLUMNS
from grafana.look import PART_COLOURS
from grafana.variables import Shown, chosen, interpolated
from tools.queries import check_expression, known_metrics, plain

Json = dict[str, Any]
FILES = sorted(DASHBOARDS.glob("*.json"))
BUILT_IN = set(Shown(0, 3600, 15).values)
KINDS = {"timeseries", "stat", "bargauge", "table"}
"""Kinds of panels that can be drawn, and so looked at, without Grafana."""


def _load(path: Path) -> Json:
    found: Json = json.loads(path.read_text(encoding="utf-8"))
    return found


KNOWN = known_metrics()
LOADED = [_load(path) for path in FILES]
PANELS = [
    pytest.param(board, panel, id=f"{board['uid']}-{panel['title']}")
    for board in LOADED
    for panel in board["panels"]
    if panel["type"] != "row"
]


def _expressions(panel: Json) -> Iterator[str]:
    yield from (target["expr"] for target in panel["targets"])


def _scopes(board: Json) -> Iterator[Mapping[str, str]]:
    """Each value that a variable of given values puts into an expression, one at a time."""
    custom = [each for each in board["templating"]["list"] if each["type"] == "custom"]
    yield {each["name"]: each["current"]["value"] for each in custom}
    for variable in custom:
        for option in variable["options"]:
            yield {
                **{each["name"]: each["current"]["value"] for each in custom},
                variable["name"]: option["value"],
            }


def _with_scope(expression: str, scope: Mapping[str, str]) -> str:
    for name, value in scope.items():
        expression = expression.replace(f"${name}", value)
    return expression


def _names(text: str) -> set[str]:
    """Variables that a text names."""
    return {one or other for one, other in re.findall(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)", text)}


def test_there_are_five() -> None:
    """One file for each dashboard, named by its uid."""
    assert [path.stem for path in FILES] == sorted(board.uid for board in BOARDS)
    assert len(FILES) == 5


def test_the_committed_files_are_fresh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is committed is what `make dashboards` would write; what differs from it is noticed."""
    assert main(["--check"]) == 0
    write(tmp_path)
    assert stale(tmp_path) == []
    (tmp_path / "joulescope-fleet.json").write_text("{}\n")
    (tmp_path / "joulescope-cost.json").unlink()
    (tmp_path / "old.json").write_text("{}\n")
    assert stale(tmp_path) == ["joulescope-cost.json", "joulescope-fleet.json", "old.json"]
    write(tmp_path)
    assert stale(tmp_path) == []
    assert main(["--what"]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("board", LOADED, ids=lambda board: board["uid"])
def test_the_sdk_reads_them_back(board: Json) -> None:
    """What the SDK's types keep of a dashboard is all of it, but for the words of its annotations."""
    again = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    for annotation in board["annotations"]["list"]:
        del annotation["titleFormat"], annotation["textFormat"]
    assert again == board


@pytest.mark.parametrize("board", LOADED, ids=lambda board: board["uid"])
def test_a_dashboard_says_what_it_answers(board: Json) -> None:
    """It has a question, a stable uid, tags, a time that it opens with, and a pause between refreshes."""
    assert board["description"].endswith("?")
    assert re.fullmatch(r"joulescope-[a-z]+", board["uid"])
    assert "joulescope" in board["tags"]
    assert re.fullmatch(r"now-\d+h", board["time"]["from"])
    assert re.fullmatch(r"\d+[sm]", board["refresh"])
    assert board["id"] is None if "id" in board else True


@pytest.mark.parametrize("board", LOADED, ids=lambda board: board["uid"])
def test_panels_neither_overlap_nor_share_an_id(board: Json) -> None:
    """Every panel lies on the grid of 24 columns, on cells of its own."""
    taken: Counter[tuple[int, int]] = Counter()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        taken.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    assert max(taken.values()) == 1
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    titles = Counter(panel["title"] for panel in board["panels"])
    assert max(titles.values()) == 1


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_a_panel_explains_itself(board: Json, panel: Json) -> None:
    """It says what it tells and when to worry, in which unit, and why it is empty when it is."""
    assert panel["type"] in KINDS
    assert len(panel["description"]) > 60
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["noValue"]
    assert panel["targets"]
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs)


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_a_panel_asks_the_chosen_data_source(board: Json, panel: Json) -> None:
    """No data source is named by an installation's own name."""
    for part in [panel, *panel["targets"]]:
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_expressions_hold_against_the_table(board: Json, panel: Json) -> None:
    """Each parses, names metrics and labels that there are, and never reads a counter without its rate."""
    for expression in _expressions(panel):
        for scope in _scopes(board):
            assert check_expression(plain(_with_scope(expression, scope)), KNOWN) == []


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_expressions_use_what_the_sidecar_exports_alone(board: Json, panel: Json) -> None:
    """No dashboard needs the recording rules: there is no recorded series in it."""
    for expression in _expressions(panel):
        assert not re.search(r"\b\w+:\w+", re.sub(r'"[^"]*"|\[[^\]]*\]', "", expression))


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_every_selector_is_narrowed_by_the_variables(board: Json, panel: Json) -> None:
    """No series of another cluster or sidecar than the chosen ones gets in."""
    for expression in _expressions(panel):
        selectors = re.findall(r"(?:joulescope|process)_\w+(\{[^}]*\})?", expression)
        bare = [each for each in selectors if each and not {"cluster", "instance"} <= _names(each)]
        assert bare == []


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_windows_follow_the_zoom(board: Json, panel: Json) -> None:
    """Rates are over Grafana's window for rates or over the time shown, never over a fixed one."""
    for expression in _expressions(panel):
        windows = set(re.findall(r"\[([^\]]*)\]", expression))
        assert windows <= {"$__rate_interval", "$__range", "$__range:$__interval"}


@pytest.mark.parametrize("board", LOADED, ids=lambda board: board["uid"])
def test_variables_are_there_and_are_used(board: Json) -> None:
    """Each variable that is named exists, and each that exists is named; each is labelled and explained."""
    variables = {each["name"]: each for each in board["templating"]["list"]}
    panels = json.dumps(board["panels"])
    queries = json.dumps([each.get("query") for each in variables.values()])
    used = _names(panels) | _names(queries)
    assert used - BUILT_IN - {"__data", "__url_time_range"} <= set(variables)
    assert set(variables) <= used
    for variable in variables.values():
        assert variable["label"]
        assert variable["description"]
    assert next(iter(variables)) == "datasource"


@pytest.mark.parametrize("board", LOADED, ids=lambda board: board["uid"])
def test_variables_ask_for_labels_that_there_are(board: Json) -> None:
    """Each query of a variable is of a known metric, and of a label that it has."""
    for variable in board["templating"]["list"]:
        if variable["type"] != "query":
            continue
        found = re.fullmatch(r"label_values\((\w+)(\{.*\})?, (\w+)\)", variable["query"])
        assert found is not None
        assert check_expression(plain(f"count by ({found[3]}) ({found[1]}{found[2] or ''})"), KNOWN) == []


def test_links_lead_to_dashboards_that_there_are() -> None:
    """Links between dashboards keep time and variables; those of panels name what there is."""
    boards = {board["uid"]: board for board in LOADED}
    found = 0
    for board in LOADED:
        (link,) = board["links"]
        assert (link["type"], link["tags"]) == ("dashboards", ["joulescope"])
        assert link["includeVars"]
        assert link["keepTime"]
        for url in re.findall(r'"url": "(/d/[^"]+)"', json.dumps(board["panels"])):
            target = boards[re.match(r"/d/([\w-]+)", url)[1]]  # type: ignore[index]
            names = {each["name"] for each in target["templating"]["list"]}
            assert set(re.findall(r"var-(\w+)=", url)) <= names
            assert "__url_time_range" in url
            found += 1
    assert found > 0


def test_a_links_fields_are_columns_of_its_table() -> None:
    """A link that takes a value from its row takes it from a column that the row has."""
    for board in LOADED:
        for panel in board["panels"]:
            fields = set(re.findall(r"__data\.fields\.(\w+)", json.dumps(panel)))
            names = {
                name
                for each in panel.get("transformations", ())
                for name in each["options"].get("renameByName", {}).values()
            }
            assert fields <= names


def test_alerts_are_on_the_time_axis() -> None:
    """Every dashboard shows regression alerts, whose names are those of the rules."""
    rules = (DASHBOARDS.parents[1] / "deploy" / "prometheus" / "joulescope.alerts.yaml").read_text()
    names = re.findall(r"alert: (\w+)", rules)
    for board in LOADED:
        on, off = board["annotations"]["list"]
        assert (on["enable"], off["enable"]) == (True, False)
        assert check_expression(plain(on["expr"]), KNOWN) == []
        pattern = re.search(r'alertname=~"([^"]+)"', on["expr"])
        assert pattern is not None
        assert any(re.fullmatch(pattern[1], name) for name in names)


def test_parts_of_the_joules_have_one_colour_everywhere() -> None:
    """A series called after a part of the measured joules has that part's colour on all dashboards."""
    seen = Counter[str]()
    for board in LOADED:
        for panel in board["panels"]:
            for override in panel.get("fieldConfig", {}).get("overrides", ()):
                colours = [each["value"] for each in override["properties"] if each["id"] == "color"]
                name = override["matcher"]["options"]
                if name in PART_COLOURS and colours and "fixedColor" in colours[0]:
                    assert colours[0]["fixedColor"] == PART_COLOURS[name], (board["uid"], panel["title"])
                    seen[name] += 1
    assert set(seen) == set(PART_COLOURS)


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_overrides_are_of_what_the_panel_has(board: Json, panel: Json) -> None:
    """Each is of one series by its name, of one query, or of one column, that the panel has."""
    columns = {
        name
        for each in panel.get("transformations", ())
        for name in each["options"].get("renameByName", {}).values()
    }
    names = {target["legendFormat"] for target in panel["targets"]} | columns
    refs = {target["refId"] for target in panel["targets"]}
    for override in panel["fieldConfig"]["overrides"]:
        matcher = override["matcher"]
        assert matcher["options"] in {"byName": names, "byFrameRefID": refs}[matcher["id"]]


def test_variables_are_put_in() -> None:
    """The stand-in for Grafana knows both forms, its own variables, and refuses what has no value."""
    values = {**Shown(0, 3600, 30).values, "engine": ".*"}
    text = 'rate(a{e=~"${engine:regex}"}[$__rate_interval]) * $__interval_ms + x{e=~"$engine"}'
    assert interpolated(text, values) == 'rate(a{e=~".*"}[60000ms]) * 30000 + x{e=~".*"}'
    with pytest.raises(KeyError):
        interpolated("$strange", values)


def test_a_dashboard_opens_with_everything_chosen() -> None:
    """All values of each variable, and the first of a given choice."""
    cost = next(board for board in LOADED if board["uid"] == "joulescope-cost")
    assert chosen(cost) == {
        "cluster": ".*", "instance": ".*", "model": ".*", "engine": ".*", "gpu": ".*",
        "scope": "joulescope_build_info",
    }  # fmt: skip
