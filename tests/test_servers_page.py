"""docs/servers-without-a-hook.md: its settings load, its names are those that are read, its queries run."""

from __future__ import annotations

import re
from pathlib import Path

from joulescope.config.load import load
from joulescope.export.metrics import METRICS
from joulescope.scraping.kinds import KINDS
from tests.promtool import expectations_missed, queries_of

PAGE = (Path(__file__).parents[1] / "docs" / "servers-without-a-hook.md").read_text(encoding="utf-8")
QUERIES = queries_of(PAGE)
NO_RULES = "groups: []"

TARGET = '{job="j",instance="a"}'
BUSY, DOWN = "http://127.0.0.1:30000/metrics", "http://127.0.0.1:8000/metrics"
SERIES = {
    'joulescope_measured_energy_joules_total{job="j",instance="a",gpu="GPU-a1"}': "0+9000x40",
    'joulescope_measured_energy_joules_total{job="j",instance="a",gpu="GPU-b1"}': "0+6000x40",
    'joulescope_measured_energy_joules_total{job="j",instance="a",gpu="GPU-c1"}': "0+3000x40",
    f'joulescope_scraped_generated_tokens_total{{job="j",instance="a",server="{BUSY}"}}': "0+30000x40",
    f'joulescope_scraped_prompt_tokens_total{{job="j",instance="a",server="{BUSY}"}}': "0+60000x40",
    f'joulescope_scraped_server_up{{job="j",instance="a",server="{BUSY}"}}': "1x40",
    f'joulescope_scraped_server_up{{job="j",instance="a",server="{DOWN}"}}': "0x40",
}


def test_the_settings_of_the_page_load(tmp_path: Path) -> None:
    """The example is a configuration that the sidecar takes."""
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert load({}, {}, str(path))[0].scrape == (DOWN, BUSY)


def test_the_table_names_what_is_read() -> None:
    """Every sample that the sidecar looks for stands on the page, and no other."""
    read = set().union(*(kind.samples for kind in KINDS))
    assert set(re.findall(r"`((?:vllm|sglang):\w+|tgi_\w+)`", PAGE)) == read


def test_every_metric_of_the_page_exists() -> None:
    """Names in prose and queries stand in the table of metrics."""
    named = {name for name in re.findall(r"joulescope_\w+", PAGE) if not name.endswith("_")}
    assert named <= {metric.name for metric in METRICS}


def test_the_queries_of_the_page_have_the_right_answers(tmp_path: Path) -> None:
    """Each query gives, for known series, the figure that one works out by hand."""
    server = f'{{job="j",instance="a",server="{BUSY}"}}'
    expected = {
        "Joules per generated token, all GPUs and servers of a sidecar": (TARGET, 18_000 / 30_000),
        "Joules per token of any kind": (TARGET, 18_000 / 90_000),
        "Tokens a second, by server": (server, 1000.0),
        "Servers that cannot be seen": (server.replace(BUSY, DOWN), 0.0),
        "Joules per generated token of one server": (TARGET, 15_000 / 30_000),
    }
    assert set(expected) == set(QUERIES)
    samples = {QUERIES[question]: [sample] for question, sample in expected.items()}
    assert expectations_missed(tmp_path, NO_RULES, SERIES, samples, "15m") == ""
