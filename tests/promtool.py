"""Queries and rules of the documentation, run by the real promtool on series that a test makes up."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.requirements import need_program

PARTS = 2.0**20
"""Figures are compared in so fine parts: promtool compares to the last bit."""


def queries_of(page: str) -> dict[str, str]:
    """Questions and expressions of a page's tables; ``\\|`` is how a table writes ``|``."""
    rows = re.findall(r"^\| ([^`|]+) \| `(\w[^`]*)` \|$", page, flags=re.MULTILINE)
    return {question: expression.replace("\\|", "|") for question, expression in rows}


def expectations_missed(
    folder: Path,
    rules: str,
    series: Mapping[str, str],
    expected: Mapping[str, Sequence[tuple[str, float]]],
    at: str,
) -> str:
    """What promtool says of expectations that do not hold; empty if all do.

    ``series`` come every 30 s, in promtool's notation; ``expected`` gives labels and value of each sample
    that a query has ``at`` a time.
    """
    (folder / "rules.yml").write_text(rules)
    tests = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f"round({query}, {1 / PARTS!r})",
                        "eval_time": at,
                        "exp_samples": [
                            {"labels": labels, "value": round(value * PARTS) / PARTS}
                            for labels, value in samples
                        ],
                    }
                    for query, samples in expected.items()
                ],
            }
        ],
    }
    return _run_tests(folder, tests)


RULES = Path(__file__).parents[1] / "deploy" / "prometheus"

ALERT_LABELS = (
    "severity",
    "instance",
    "engine",
    "gpu",
    "domain",
    "reason",
    "exporter",
    "operation",
    "window",
)
"""By these labels a test names an alert that fires."""

Values = Sequence[float | None]
"""Samples of a series, one an interval; ``None`` where there is none."""

Firing = Sequence[Mapping[str, str]]
"""Alerts that fire: ``alertname``, and those of :data:`ALERT_LABELS` that it has."""


def rising(*stretches: tuple[float | None, int], first: float = 0.0) -> list[float | None]:
    """A counter: for each stretch by how much it rises from sample to sample, and for how many samples.

    ``None`` stands for no samples. After it the counter goes on; a negative rise is a restart from 0.
    """
    values: list[float | None] = []
    now = first
    for rise, samples in stretches:
        for _ in range(samples):
            if rise is None:
                values.append(None)
                continue
            now = 0.0 if rise < 0 else now
            values.append(now)
            now += max(rise, 0.0)
    return values


def level(*stretches: tuple[float | None, int]) -> list[float | None]:
    """A gauge: for each stretch its value, and for how many samples."""
    return [value for value, samples in stretches for _ in range(samples)]


def alerts_missed(
    folder: Path, series: Mapping[str, Values], expected: Mapping[str, Firing], interval_seconds: int = 30
) -> str:
    """What promtool says where at a time (``75m``) other alerts fire than expected; empty if none do."""
    labels = ", ".join(("alertname", *ALERT_LABELS))
    tests = {
        "rule_files": [str(path) for path in sorted(RULES.glob("*.yaml"))],
        "evaluation_interval": f"{max(interval_seconds, 60)}s",  # rules every minute: half the work
        "tests": [
            {
                "interval": f"{interval_seconds}s",
                "input_series": _input(series),
                "promql_expr_test": [
                    {
                        "expr": f'group by ({labels}) (ALERTS{{alertstate="firing"}})',
                        "eval_time": at,
                        "exp_samples": [{"labels": json_labels(each), "value": 1} for each in firing],
                    }
                    for at, firing in expected.items()
                ],
            }
        ],
    }
    return _run_tests(folder, tests)


def texts_missed(
    folder: Path,
    series: Mapping[str, Values],
    at: str,
    alert: str,
    firing: Sequence[tuple[Mapping[str, str], Mapping[str, str]]],
) -> str:
    """What promtool says if an alert has other labels or texts; empty if it has these alone."""
    tests = {
        "rule_files": [str(path) for path in sorted(RULES.glob("*.yaml"))],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": _input(series),
                "alert_rule_test": [
                    {
                        "eval_time": at,
                        "alertname": alert,
                        "exp_alerts": [
                            {"exp_labels": dict(labels), "exp_annotations": dict(texts)}
                            for labels, texts in firing
                        ],
                    }
                ],
            }
        ],
    }
    return _run_tests(folder, tests)


def json_labels(labels: Mapping[str, str]) -> str:
    """Labels in the notation of a selector."""
    return "{" + ", ".join(f"{name}={json.dumps(value)}" for name, value in labels.items()) + "}"


def _input(series: Mapping[str, Values]) -> list[dict[str, str]]:
    return [
        {"series": name, "values": " ".join("_" if value is None else f"{value:.10g}" for value in values)}
        for name, values in series.items()
    ]


def _run_tests(folder: Path, tests: object) -> str:
    path = folder / "tests.yml"
    path.write_text(json.dumps(tests))  # JSON is YAML
    command = [need_program("promtool"), "test", "rules", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 else result.stdout + result.stderr
