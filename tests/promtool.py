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
    (folder / "tests.yml").write_text(json.dumps(tests))  # JSON is YAML
    command = [need_program("promtool"), "test", "rules", "tests.yml"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 else result.stdout + result.stderr
