"""Rules, runbooks and pages hold together: every expression is checked, every alert has its page."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from importlib import resources
from typing import Any

import pytest
import yaml

from joulescope.cli.diagnose import command as diagnose
from joulescope.export.metrics_page import QUERIES
from joulescope.export.minute_ring import KEPT_SECONDS
from joulescope.terminal.problems import BAD_OUTCOMES
from joulescope.units import seconds_of_stretch
from tests.promtool import RULES, queries_of
from tests.requirements import need_program
from tools.queries import check_expression, known_metrics
from tools.rules import RUNBOOKS

DOCS = RULES.parents[1] / "docs"
BOOKS = DOCS / "runbooks"
KNOWN = known_metrics()
SECTIONS = ("Meaning", "Impact", "What to look at", "Causes, and what mends them", "False alarms")
DASHBOARDS = ("Fleet", "Engine", "Requests", "Efficiency and waste", "Cost and carbon")


def _rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


RECORDED, ALERTS = _rules("joulescope.rules.yaml"), _rules("joulescope.alerts.yaml")
NAMES = sorted({rule["alert"] for rule in ALERTS})


@pytest.mark.real
def test_promtool_has_nothing_to_say() -> None:
    """All files load, and no two rules give the same series."""
    files = sorted(map(str, RULES.glob("*.yaml")))
    command = [need_program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *files]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_expression_names_what_exists() -> None:
    """Metrics, labels, joins and rules of the house; see :mod:`tools.queries`."""
    for rule in RECORDED:
        assert check_expression(rule["expr"], KNOWN) == [], rule["record"]
    for rule in ALERTS:
        assert check_expression(rule["expr"], KNOWN, alert=True) == [], rule["alert"]


def test_what_an_exporter_lost_is_one_rule() -> None:
    """The alert, the terminal view and the live page warn of the same outcomes, and of no others."""
    (losing,) = (rule["expr"] for rule in ALERTS if rule["alert"] == "JoulescopeExporterLosing")
    (outcomes,) = re.findall(r'outcome=~"([a-z|]+)"', losing)
    script = resources.files("joulescope.export.page").joinpath("static/problems.js").read_text()
    (listed,) = re.findall(r"LOST_OUTCOMES = \[(.*?)\];", script)
    assert set(outcomes.split("|")) == set(BAD_OUTCOMES) == set(re.findall(r"\w+", listed))


def test_recorded_names_say_level_metric_and_operation() -> None:
    """``level:metric:operation``, and the labels are those of the level."""
    levels = {
        "gpu": {"gpu"},
        "engine": {"engine"},
        "engine_phase": {"engine", "phase"},
        "instance": {"instance"},
        "model": {"model"},
        "cluster": {"cluster"},
    }
    for rule in RECORDED:
        level, metric, operation = rule["record"].split(":")
        assert re.fullmatch(r"joulescope_[a-z_]+", metric), rule
        assert re.fullmatch(r"(ratio_)?rate\d+[mh]|watts|rate|grams_per_second", operation), rule
        assert levels[level] <= KNOWN[rule["record"]], rule
        if level in ("model", "cluster"):
            assert not KNOWN[rule["record"]] & {"engine", "gpu", "instance", "job"}, rule
        else:
            assert {"job", "instance", "cluster", "namespace"} <= KNOWN[rule["record"]], rule


def test_a_window_in_a_name_is_the_one_in_its_expression() -> None:
    """Whoever reads ``rate30m`` gets 30 minutes."""
    for rule in RECORDED:
        window = re.search(r"rate(\d+[mh])$", rule["record"])
        found = set(re.findall(r"\[(\w+)\]|:rate(\d+[mh])", rule["expr"]))
        if window is not None:
            assert {ranged or named for ranged, named in found} == {window[1]}, rule


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_every_alert_says_what_it_means(rule: dict[str, Any]) -> None:
    """Name, severity, texts with the figure and who it is about, and a runbook."""
    assert re.fullmatch(r"Joulescope([A-Z][a-z]+)+", rule["alert"])
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    texts = rule["annotations"]
    more = {"diagnose", "dashboard"} if rule["alert"] == "JoulescopeEnergyRegression" else set()
    assert set(texts) == {"summary", "description", "runbook_url"} | more
    assert texts["runbook_url"] == f"{RUNBOOKS}{rule['alert']}.md"
    assert len(texts["summary"]) < 100
    for label in re.findall(r"\$labels\.(\w+)", texts["summary"] + texts["description"]):
        assert any(label in KNOWN[name] | {"job", "instance"} for name in _metrics_of(rule["expr"])), label


def test_a_regression_leads_to_what_explains_it() -> None:
    """To a command line that the command takes, and to a dashboard with the variables that it has."""
    options = {option for each in diagnose.params for option in each.opts}
    for rule in (each for each in ALERTS if "diagnose" in each["annotations"]):
        texts = rule["annotations"]
        words = texts["diagnose"].replace("{{ ", "{{").replace(" }}", "}}")
        program, name, source, *rest = shlex.split(words)
        assert (program, name, source) == ("joulescope", "diagnose", "http://{{$labels.instance}}")
        assert set(rest[::2]) == {"--engine", "--last", "--before"} <= options
        seconds = dict(zip(rest[2::2], map(seconds_of_stretch, rest[3::2]), strict=True))
        assert sum(seconds.values()) < KEPT_SECONDS
        uid = re.match(r"/d/([\w-]+)\?", texts["dashboard"])
        names = re.findall(r"var-(\w+)=", texts["dashboard"])
        assert uid is not None
        board = json.loads((DOCS.parent / "grafana" / "dashboards" / f"{uid[1]}.json").read_text())
        assert set(names) == {"instance", "engine"} < {each["name"] for each in board["templating"]["list"]}


def _metrics_of(expression: str) -> list[str]:
    return [name for name in re.findall(r"[\w:]+", expression) if name in KNOWN]


def test_alerts_and_runbooks_are_the_same_set() -> None:
    """Every alert has its page, every page its alert, and both lists name all."""
    pages = {path.stem for path in BOOKS.glob("*.md")} - {"README"}
    assert pages == set(NAMES)
    for index in (BOOKS / "README.md", DOCS / "alerts.md"):
        assert set(re.findall(r"\((?:runbooks/)?(Joulescope\w+)\.md\)", index.read_text())) == set(NAMES), (
            index
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_has_its_sections_and_queries(name: str) -> None:
    """The same headings everywhere, at least one query, dashboards that there are, alerts that there are."""
    page = (BOOKS / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    assert tuple(re.findall(r"^## (.+)$", page, flags=re.MULTILINE)) == SECTIONS
    assert "```promql" in page
    (line,) = re.findall(r"^Dashboards: (.+)\.$", page, flags=re.MULTILINE)
    assert all(re.sub(r" \(.*\)", "", each) in DASHBOARDS for each in line.split(", "))
    assert set(re.findall(r"`(Joulescope\w+)`", page)) <= set(NAMES)


def _expressions() -> list[tuple[str, str]]:
    """Every query of the pages, with the page's name."""
    found = [("the table of metrics", expression) for _, expression in QUERIES]
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        blocks = re.findall(r"```promql\n(.*?)```", text, flags=re.DOTALL)
        found += [(page.name, expression) for expression in (*blocks, *queries_of(text).values())]
    return found


@pytest.mark.parametrize(("page", "expression"), _expressions())
def test_every_query_of_the_pages_can_be_answered(page: str, expression: str) -> None:
    """Runbooks, alerts, metrics, multipliers, and whatever other page has some."""
    assert check_expression(expression, KNOWN) == [], page


def test_every_series_that_a_page_names_exists() -> None:
    """Names in prose and tables too: scraped and recorded ones."""
    for page in [*BOOKS.glob("*.md"), DOCS / "alerts.md"]:
        for name in re.findall(r"`([a-z_]+:joulescope_\w+:\w+|joulescope_\w+)`", page.read_text()):
            assert name in KNOWN, f"{page.name} names {name}"


def test_the_page_of_multipliers_quotes_the_file() -> None:
    """One source: the group on the page is the group of the file, to the letter."""
    quoted = re.findall(r"```yaml\ngroups:\n(.*?)```", (DOCS / "multipliers.md").read_text(), flags=re.DOTALL)
    assert len(quoted) == 1
    assert quoted[0] in (RULES / "joulescope.rules.yaml").read_text()


def test_queries_were_found() -> None:
    """The checks above have something to check."""
    per_page = [page for page, _ in _expressions()]
    assert {f"{name}.md" for name in NAMES} | {"alerts.md", "metrics.md", "multipliers.md"} <= set(per_page)
    assert len(per_page) > 70
