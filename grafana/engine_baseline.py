"""The row of *Engine* that tells whether its work costs what it used to."""

from __future__ import annotations

from grafana.empty import NO_BASELINE, NO_TOKENS
from grafana.look import (
    ACCENT,
    FAINT,
    INDEX_STEPS,
    Ask,
    Column,
    Placed,
    grid,
    lines,
)
from grafana.promql import (
    engines,
    index,
    joules_per_token,
    of_models,
)

EXPECTED = f"({joules_per_token()}) / ({index()})"
ERROR = f"max({of_models(engines('joulescope_baseline_error_ratio'))})"


def as_usual() -> list[Placed]:
    edge = {
        "custom.lineWidth": 0,
        "custom.fillOpacity": 0,
        "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False},
    }
    dashes = {"custom.lineStyle": {"fill": "dash", "dash": [6, 4]}, "custom.fillOpacity": 0}

    def band(around: str, high: str, low: str) -> list[Ask]:
        """Two standard errors of the baseline either way, filled between."""
        filled = {**edge, "custom.fillBelowTo": low, "custom.fillOpacity": 40}
        return [
            Ask(f"{around} * (1 + 2 * {ERROR})", high, FAINT, style=filled),
            Ask(f"{around} * (1 - 2 * {ERROR})", low, FAINT, style=edge),
        ]

    return [
        lines(
            "Energy per output token, and what the same work should cost",
            "The line is what a token costs; the dashes are what the same work should cost by the baseline, "
            "in a band of two standard errors either way. Mix and load move both. Worry if the line leaves "
            "the band and stays outside. Without a band there is no baseline yet.",
            "joule",
            [
                *band(EXPECTED, "expected, high", "expected, low"),
                Ask(EXPECTED, "expected", FAINT, style=dashes),
                Ask(
                    joules_per_token(),
                    "actual",
                    ACCENT,
                    style={"custom.lineWidth": 2, "custom.fillOpacity": 0},
                ),
            ],
            none=NO_TOKENS,
            log_base=2,
            bounds=(None, None),
            size=(12, 9),
        ),
        lines(
            "Index by engine",
            "Actual over expected joules of the same work, by engine, and the band in which a difference "
            "may be chance. 1 is as usual. The dashed lines are a tenth and a fifth more. Worry about a "
            "step that stays: then the regression alert speaks.",
            "short",
            [
                *band(f"max({index('instance', 'engine')}) ^ 0", "as usual, high", "as usual, low"),
                Ask(index("instance", "engine"), "{{engine}} @ {{instance}}", style={"custom.lineWidth": 2}),
            ],
            none=NO_BASELINE,
            bounds=(None, None),
            at_least=(0.9, 1.2),
            thresholds=INDEX_STEPS,
            decimals=2,
            size=(12, 9),
        ),
        _baselines(),
    ]


def _baselines() -> Placed:
    def by(metric: str, *labels: str) -> str:
        names = ", ".join(("instance", "engine", *labels))
        return f"max by ({names}) ({of_models(engines(metric))})"

    created = "joulescope_baseline_created_timestamp_seconds"
    return grid(
        "Baselines",
        "What each engine is compared with, and how much of the learning is done: it is compared at 100 %. "
        "Worry if a baseline is older than the model or the version that is served: pin a new one.",
        "short",
        {
            "engine": "Engine",
            "instance": "Sidecar",
            "baseline": "Baseline",
            "source": "Source",
            "created_version": "Made with",
        },
        [
            Column(
                "Learned",
                by("joulescope_baseline_learned_ratio"),
                {"unit": "percentunit", "decimals": 0, "custom.width": 90},
            ),
            Column(
                "Error",
                by("joulescope_baseline_error_ratio"),
                {"unit": "percentunit", "decimals": 1, "custom.width": 90},
            ),
            Column(
                "Age",
                f"time() - {by(created)}",
                {"unit": "s", "decimals": 0, "custom.width": 110},
            ),
            Column(
                "",
                by("joulescope_baseline_info", "baseline", "source", "created_version"),
            ),
        ],
        sort="Engine",
        none=NO_BASELINE,
        key_style={
            "Engine": {"custom.width": 240},
            "Sidecar": {"custom.width": 130},
            "Source": {"custom.width": 90},
            "Made with": {"custom.width": 110},
        },
        size=(24, 4),
    )
