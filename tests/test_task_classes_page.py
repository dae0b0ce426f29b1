"""docs/task-classes.md: its examples are read, and what it names is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from joulescope.answer.marks import MAX_TASK_BYTES
from joulescope.attribution.labels import ROUTE
from joulescope.attribution.tasks import ROUTES
from joulescope.config import Settings
from joulescope.config.load import load
from joulescope.config.tasks import LENGTHS, MOST_RULES
from joulescope.export.metrics import METRICS
from joulescope.label_model import TASK_SOURCES

PAGE = (Path(__file__).parents[1] / "docs" / "task-classes.md").read_text(encoding="utf-8")


def test_its_configuration_is_read(tmp_path: Path) -> None:
    """The YAML of the page, quotes and all."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    path = tmp_path / "joulescope.yaml"
    path.write_text(block)
    settings, _ = load({}, {}, str(path))
    assert settings.task_from == ("lengths",)
    assert [rule.name for rule in settings.task_lengths] == ["summarise", "long", "short"]


def test_its_commands_are_read() -> None:
    """The flags of each ``joulescope serve`` of the page."""
    commands = re.findall(r"^joulescope serve (.*)$", PAGE, re.M)
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command)
        flags = dict(zip(words[::2], words[1::2], strict=True))
        load({flag.removeprefix("--").replace("-", "_"): text for flag, text in flags.items()}, {})


def test_its_tables_have_all_sources_and_lengths() -> None:
    """One row each, in the order in which the code has them."""
    rows = re.findall(r"^\| `([a-z_]+)` \|", PAGE, re.M)
    assert rows[: len(TASK_SOURCES)] == list(TASK_SOURCES)
    assert rows[len(TASK_SOURCES) : len(TASK_SOURCES) + len(LENGTHS)] == list(LENGTHS)


def test_it_names_routes_that_there_are() -> None:
    """Each name is one that the source gives."""
    (row,) = re.findall(r"^\| `route` \| vLLM's route: (.*?), and so on", PAGE, re.M)
    known = {ROUTES.get(prefix, prefix) for prefix in re.findall(r"[a-z-]+", ROUTE.pattern.split("?:")[-1])}
    assert set(re.findall(r"`(\w+)`", row)) <= known | {"responses"}


def test_its_numbers_are_those_of_the_code() -> None:
    """Limits, and names of metrics."""
    assert f"at most {MAX_TASK_BYTES}" in PAGE
    assert f"{Settings().max_tasks} by default" in PAGE
    assert MOST_RULES == 20
    assert "at most twenty rules" in PAGE
    names = {metric.name for metric in METRICS}
    assert set(re.findall(r"joulescope_\w+", PAGE)) <= names
