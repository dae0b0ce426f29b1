"""Checks expressions of rules, dashboards and pages against the table of metrics.

Each expression is parsed, and the labels that its parts can have are followed from the selectors up to the
result: an unknown metric, a label that cannot be there, and two sides that can never match are found without
a database. Beyond that it holds expressions to the rules of the house:

* a counter is read through ``rate`` or its like, a gauge never is;
* ``rate`` comes before ``sum``, not after it, or a restart of one sidecar would be a leap of the sum;
* an alert reads no ``_bucket`` and no ``_sum``: they vanish where a server turns histograms into native ones;
* an info metric is joined by target and not by an engine's name alone, which two sidecars may both use; the
  UUID of a GPU is enough.

Metrics that a target scrapes have the target's labels beside their own. A name with a colon is a recorded
series and has those that its rule leaves.

Run as a program, it checks the expressions that it is given.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

from joulescope.export.metric import Kind
from joulescope.export.metrics import METRICS

RULES = Path(__file__).resolve().parents[1] / "deploy" / "prometheus"

TARGET = frozenset({"job", "instance"})
"""Labels that every scraped series has."""

PERHAPS = frozenset({"cluster", "namespace", "pod", "node", "replica"})
"""Labels that a scraped series may have: queries may group by them and must work without."""

PROMETHEUS: dict[str, str] = {
    "up": "",
    "scrape_duration_seconds": "",
    "scrape_samples_scraped": "",
    "scrape_samples_post_metric_relabeling": "",
    "scrape_series_added": "",
    "ALERTS": "alertname alertstate severity",
    "ALERTS_FOR_STATE": "alertname severity",
    "process_cpu_seconds_total": "",
    "process_resident_memory_bytes": "",
    "process_virtual_memory_bytes": "",
    "process_start_time_seconds": "",
    "process_open_fds": "",
    "process_max_fds": "",
}
"""What Prometheus itself writes, and what the sidecar's Prometheus client adds."""

_RATES = frozenset({"rate", "irate", "increase"})
_OF_GAUGES = frozenset(
    {"delta", "idelta", "deriv", "predict_linear", "holt_winters", "double_exponential_smoothing"}
)
_RAW_IS_FINE = frozenset(
    {"resets", "changes", "absent", "absent_over_time", "present_over_time", "timestamp"}
)
"""Functions that do not read a counter's value as a quantity."""
_COUNTING = frozenset({"count", "group"})
_KEEPS_LABELS = frozenset({"topk", "bottomk", "limitk", "limit_ratio"})
_SETS = frozenset({"and", "or", "unless"})

Known = Mapping[str, frozenset[str]]


@cache
def scraped_metrics() -> Known:
    """Series that a Prometheus that scrapes a sidecar has, to their labels without those of the target."""
    found: dict[str, frozenset[str]] = {}
    for metric in METRICS:
        labels = frozenset(metric.labels)
        if metric.kind is Kind.HISTOGRAM:
            found[f"{metric.name}_bucket"] = labels | {"le"}
            found[f"{metric.name}_sum"] = found[f"{metric.name}_count"] = labels
        else:
            found[metric.name] = labels
    return found | {name: frozenset(labels.split()) for name, labels in PROMETHEUS.items()}


def known_metrics(folder: Path = RULES) -> Known:
    """Scraped series and those that the rules of a folder record, to their labels.

    Raises:
        ValueError: a recording rule does not parse.
    """
    known = dict(scraped_metrics())
    for rule in recording_rules(folder):
        known[rule["record"]] = labels_of(rule["expr"], known) | frozenset(rule.get("labels", {}))
    return known


def recording_rules(folder: Path = RULES) -> Iterator[Mapping[str, Any]]:
    """Recording rules of all files of a folder, in the order in which they stand."""
    for path in sorted(folder.glob("*.rules.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from (rule for rule in group["rules"] if "record" in rule)


def plain(expression: str) -> str:
    """An expression of a Grafana panel as PromQL: variables give way to something of their kind.

    In quotes a variable becomes a word, after ``[``, ``:`` or ``offset`` a duration, elsewhere a number.
    ``$__rate_interval``, ``$__interval`` and ``$__range`` are durations everywhere.
    """
    variable = re.compile(r"\$\{(\w+)(?::[^}]*)?\}|\[\[(\w+)(?::\w+)?\]\]|\$(\w+)")
    parts = re.split(r'("(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\')', expression)

    def outside(match: re.Match[str]) -> str:
        name = next(filter(None, match.groups()))
        if name in ("__rate_interval", "__interval", "__range"):
            return {"__rate_interval": "5m", "__interval": "1m", "__range": "1h"}[name]
        before = match.string[: match.start()].rstrip()
        return "5m" if before.endswith(("[", ":", "offset")) else "1"

    return "".join(
        # "$1" in the replacement of label_replace is no variable of Grafana's
        re.sub(r"\$\{[A-Za-z_]\w*(?::[^}]*)?\}|\[\[\w+(?::\w+)?\]\]|\$[A-Za-z_]\w*", "x", part)
        if part[:1] in "\"'" and part
        else variable.sub(outside, part)
        for part in parts
    )


def labels_of(expression: str, known: Known) -> frozenset[str]:
    """Labels that the result can have.

    Raises:
        ValueError: the expression does not parse.
    """
    return _Check(known, alert=False).labels(promql.parse(expression))


def check_expression(expression: str, known: Known, *, alert: bool = False) -> list[str]:
    """What is wrong with an expression; an empty list if nothing is.

    Args:
        expression: PromQL; that of a panel goes through :func:`plain` before.
        known: see :func:`known_metrics`.
        alert: whether it is to decide about an alert, which has rules of its own.
    """
    try:
        tree = promql.parse(expression)
    except ValueError as error:
        return [f"does not parse: {error}"]
    check = _Check(known, alert=alert)
    check.labels(tree)
    return list(dict.fromkeys(check.problems))


class _Check:
    """One walk through one expression: ``labels`` gives those of a part, and notes what is wrong with it."""

    def __init__(self, known: Known, *, alert: bool) -> None:
        self._known = known
        self._alert = alert
        self._around: list[str] = []
        """Functions and aggregations around the part that is looked at; empty text for arithmetic."""
        self.problems: list[str] = []

    def labels(self, part: Any) -> frozenset[str]:
        match part:
            case promql.VectorSelector():
                return self._selector(part, ranged=False)
            case promql.MatrixSelector():
                return self._selector(part.vector_selector, ranged=True)
            case promql.Call():
                return self._call(part)
            case promql.AggregateExpr():
                return self._aggregation(part)
            case promql.BinaryExpr():
                return self._binary(part)
            case promql.SubqueryExpr():
                if self._around and self._around[-1] in _RATES:
                    self._note(f"{self._around[-1]}() of an expression: take the rate of each series first")
                return self.labels(part.expr)
            case promql.ParenExpr() | promql.UnaryExpr():
                return self.labels(part.expr)
        return frozenset()

    def _note(self, problem: str) -> None:
        self.problems.append(problem)

    def _selector(self, selector: Any, *, ranged: bool) -> frozenset[str]:
        name = selector.name
        if name is None:
            self._note(f"{selector} names no metric")
            return frozenset()
        if name not in self._known:
            self._note(f"{name} is no metric")
            return frozenset()
        labels = self._known[name]
        if ":" not in name:
            labels |= TARGET | PERHAPS
        matchers = selector.matchers
        for matcher in [*matchers.matchers, *(each for group in matchers.or_matchers for each in group)]:
            self._has(labels, matcher.name, f"{name}{{}}")
        self._use(name, ranged=ranged)
        return labels

    def _use(self, name: str, *, ranged: bool) -> None:
        """Whether a metric of its kind may be read like that."""
        function = self._around[-1] if self._around else ""
        if self._alert and name.endswith(("_bucket", "_sum")) and ":" not in name:
            self._note(f"an alert may not depend on {name}: it vanishes with native histograms")
        if is_counter(name):
            if function in _OF_GAUGES:
                self._note(f"{function}() of the counter {name}")
            elif not (ranged and function in _RATES) and function not in _RAW_IS_FINE | _COUNTING:
                self._note(f"the counter {name} is read without rate() or increase()")
        elif function in _RATES and ranged:
            self._note(f"{function}() of the gauge {name}")

    def _has(self, labels: frozenset[str], label: str, where: str) -> None:
        if label not in labels:
            self._note(f"{where} has no label {label}")

    def _call(self, call: Any) -> frozenset[str]:
        name = call.func.name
        self._around.append(name)
        found = [self.labels(argument) for argument in call.args]
        self._around.pop()
        labels = max(found, key=len, default=frozenset())
        if name in ("label_replace", "label_join"):
            return labels | {call.args[1].val}
        if name == "histogram_quantile":
            self._has(labels, "le", "what histogram_quantile() reads")
            return labels - {"le"}
        return frozenset() if name in ("scalar", "vector", "time") else labels

    def _aggregation(self, part: Any) -> frozenset[str]:
        name = str(part.op)
        self._around.append(name)
        labels = self.labels(part.expr)
        self._around.pop()
        modifier = part.modifier
        if modifier is None:
            return labels if name in _KEEPS_LABELS else frozenset()
        text = f"what {name}() reads"
        for label in modifier.labels:
            self._has(labels, label, text)
        if name in _KEEPS_LABELS:
            return labels
        named = frozenset(modifier.labels)
        by = modifier.type == promql.AggModifierType.By
        result = named & labels if by else labels - named
        return result | {part.param.val} if name == "count_values" else result

    def _binary(self, part: Any) -> frozenset[str]:
        self._around.append("")  # what stands in arithmetic is no longer a function's own argument
        left, right = self.labels(part.lhs), self.labels(part.rhs)
        self._around.pop()
        if _is_scalar(part.lhs) or _is_scalar(part.rhs):
            return left | right
        operator, modifier = str(part.op), part.modifier
        matched = self._matched(modifier, left, right, operator)
        if operator in _SETS:
            return left | right if operator == "or" else left
        card = modifier.card if modifier else promql.VectorMatchCardinality.OneToOne
        if card == promql.VectorMatchCardinality.OneToOne:
            return matched
        many, one = (left, right) if card == promql.VectorMatchCardinality.ManyToOne else (right, left)
        one_part = part.rhs if one is right else part.lhs
        for label in modifier.group_labels or ():
            self._has(one, label, f"the side of {operator} that has one series a match")
        if isinstance(one_part, promql.VectorSelector) and (one_part.name or "").endswith("_info"):
            missing = TARGET - matched
            if missing and "gpu" not in matched:
                self._note(f"{one_part.name} is joined without {', '.join(sorted(missing))}")
        return many | frozenset(modifier.group_labels or ())

    def _matched(
        self, modifier: Any, left: frozenset[str], right: frozenset[str], operator: str
    ) -> frozenset[str]:
        """Labels by which the two sides are matched."""
        matching = modifier.matching if modifier else None
        if matching is None and operator == "or":
            return left | right
        if matching is None or matching.type == promql.LabelModifierType.Exclude:
            ignored = frozenset(matching.labels) if matching else frozenset()
            odd = ((left ^ right) - ignored) - PERHAPS
            if odd:
                self._note(f"the sides of {operator} never match: one has no {', '.join(sorted(odd))}")
            return (left & right) - ignored
        for label in matching.labels:
            self._has(left, label, f"the left of {operator}")
            self._has(right, label, f"the right of {operator}")
        return frozenset(matching.labels)


def is_counter(name: str) -> bool:
    """Whether a series only ever rises, which its name tells; a recorded one does not."""
    return ":" not in name and name.endswith(("_total", "_count", "_sum", "_bucket"))


def _is_scalar(part: Any) -> bool:
    """Whether a part is a number, which matches any series."""
    match part:
        case promql.NumberLiteral():
            return True
        case promql.ParenExpr() | promql.UnaryExpr():
            return _is_scalar(part.expr)
        case promql.Call():
            return part.func.name in ("scalar", "time", "pi")
        case promql.BinaryExpr():
            return _is_scalar(part.lhs) and _is_scalar(part.rhs)
    return False


def main(expressions: list[str]) -> int:
    """Prints what is wrong with the expressions; 1 if anything is, 2 if none was given."""
    if not expressions:
        print("usage: python -m tools.queries EXPRESSION...", file=sys.stderr)
        return 2
    known = known_metrics()
    problems = [
        f"{each}\n  {problem}" for each in expressions for problem in check_expression(plain(each), known)
    ]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
