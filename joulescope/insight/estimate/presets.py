"""Parameters and published figures of arXiv 2509.20241, by version. They are never mixed.

Sources, read in November 2026: the abstracts of v1 (24 September 2025) and v2 (9 June 2026, as published in
Joule); summaries of v1's text; and the parameters and the table of throughputs of the program that was
published with v2 (github.com/microsoft/aienergy_simulation, MIT). The paper's own text was not at hand. The
table is of public benchmarks: TensorRT-LLM's performance pages of May 2025, and figures of reports on
DeepSeek-R1 and Llama-Nemotron. Facts were taken, no code. ``docs/estimate.md`` says what they reproduce.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from joulescope.errors import ConfigError
from joulescope.insight.estimate.distributions import Distribution, Exponential, Fixed, parse_distribution
from joulescope.insight.estimate.parameters import Lever, Model, Parameters, Query, Scenario
from joulescope.insight.estimate.throughput import Law, Point, constant, fit


@dataclass(frozen=True, slots=True)
class Published:
    """What a version says came out."""

    name: str
    """``typical`` and ``long``: watt hours a query; the others: gigawatt hours a day."""
    value: float
    quartiles: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """One version of the paper."""

    version: str
    title: str
    parameters: Parameters
    published: tuple[Published, ...]
    assumptions: tuple[tuple[str, str], ...]
    """What had to be assumed, since the version does not say it: the parameter, and the assumption."""


# Output tokens a second of eight H100 at FP8, by input and output tokens of a query.
_DEEPSEEK_R1 = (Point(1024, 1024, 886.0), Point(500, 2000, 1300.0), Point(5000, 500, 378.0))
_LLAMA_405B = (
    Point(128, 128, 3732.40),
    Point(2048, 128, 448.89),
    Point(5000, 500, 579.14),
    Point(500, 2000, 3661.85),
    Point(128, 2048, 4572.23),
    Point(500, 2000, 2050.0),
    Point(5000, 500, 480.0),
)
_NEMOTRON_253B_MOST = 5200.0
"""Of two points; the paper's program takes the higher one for all lengths."""

# The paper's program keeps P5..P95 of each model, and of these P10..P90, before it takes quartiles.
_TRIM = (0.05 + 0.10 * 0.90, 0.05 + 0.90 * 0.90)


def _law(points: tuple[Point, ...], source: str) -> Law:
    """As the paper fits it: no scatter about the law."""
    law = fit(points, source=source).law
    return Law(
        law.intercept,
        law.input_slopes,
        (),
        law.output_slopes,
        (),
        law.most_tokens_per_second,
        0.0,
        law.input_range,
        law.output_range,
        source,
    )


def _models(node_watts: float, r1_node_watts: float) -> tuple[Model, ...]:
    """Those above 200 billion parameters, in equal shares."""
    source = "fit of public benchmarks, as published with v2"
    return (
        Model("deepseek-r1-671b", 1.0, Fixed(r1_node_watts), _law(_DEEPSEEK_R1, source), gpus_per_node=10),
        Model("llama-3.1-405b", 1.0, Fixed(node_watts), _law(_LLAMA_405B, source)),
        Model(
            "nemotron-ultra-253b",
            1.0,
            Fixed(node_watts),
            constant(_NEMOTRON_253B_MOST, "the higher of two public benchmarks, as published with v2"),
        ),
    )


def _queries() -> tuple[Query, ...]:
    return (
        Query("typical", 1.0, Fixed(500.0), Exponential(300.0)),
        Query("long", 0.0, Fixed(500.0), Exponential(5000.0)),
    )


def _distribution(text: str) -> Distribution:
    return parse_distribution(text, "preset")


_V1 = Preset(
    version="v1",
    title="Energy Use of AI Inference: Efficiency Pathways and Test-Time Compute, September 2025",
    parameters=Parameters(
        preset="v1",
        models=_models(11_300.0, 14_100.0),
        queries=_queries(),
        pue=_distribution("lognormal(p5=1.05, p95=1.40)"),
        node_power_ratio=_distribution("lognormal(p5=0.4, p95=0.9)"),
        trim_quantiles=_TRIM,
        queries_per_day=1e9,
        fleet_factors=(("uneven-use", 1.33),),
        scenarios=(
            Scenario(
                "line-of-sight",
                tuple(
                    Lever(name, _distribution("lognormal(p5=1.5, p95=3.5)"))
                    for name in ("model", "serving", "hardware")
                ),
            ),
        ),
    ),
    published=(
        Published("typical", 0.34, (0.18, 0.67)),
        Published("long", 4.32),
        Published("fleet", 0.8),
        Published("fleet-10%-long", 1.8),
    ),
    assumptions=(
        (
            "models",
            "v1's coefficients of the TPS law are not public: the table published with v2 stands in",
        ),
        (
            "pue",
            "PUE is as v1's text has it, P5 to P95 of 1.05 to 1.40; with 1.05 to 1.60, as in the program "
            "published with v2, v1's medians come out",
        ),
        (
            "scenarios",
            "v1 says of each lever that it divides the median by 1.5 to 3.5: taken as P5 and P95",
        ),
    ),
)

_V2 = Preset(
    version="v2",
    title="Energy Use of AI Inference, Efficiency Pathways, and Test-Time Scaling, June 2026",
    parameters=Parameters(
        preset="v2",
        models=_models(10_200.0, 12_800.0),
        queries=_queries(),
        pue=_distribution("lognormal(p5=1.05, p95=1.60)"),
        node_power_ratio=_distribution("lognormal(p5=0.4, p95=0.9)"),
        trim_quantiles=_TRIM,
        queries_per_day=1e9,
        fleet_factors=(("first", 1.10), ("second", 1.076), ("third", 1.12)),
        scenarios=(
            Scenario(
                "line-of-sight",
                (
                    Lever("model", _distribution("lognormal(p5=1.5, p95=10)")),
                    Lever("serving", _distribution("lognormal(p5=1.5, p95=5)")),
                    Lever("hardware", _distribution("lognormal(p5=1.5, p95=2.5)")),
                ),
            ),
            Scenario(
                "fleet",
                (
                    Lever("serving-typical", _distribution("lognormal(p5=1.5, p95=3.5)"), ("typical",)),
                    Lever("serving-long", _distribution("lognormal(p5=1.5, p95=3)"), ("long",)),
                ),
            ),
        ),
    ),
    published=(
        Published("typical", 0.31, (0.16, 0.60)),
        Published("long", 3.91, (2.15, 7.05)),
        Published("fleet", 0.7),
        Published("fleet-10%-long", 1.7),
        Published("fleet-10%-long-improved", 0.8),
    ),
    assumptions=(
        (
            "fleet_factors",
            "the program published with v2 has three factors for a fleet, 1.326 together, and does not "
            "explain them one by one",
        ),
    ),
)

PRESETS: Mapping[str, Preset] = {each.version: each for each in (_V1, _V2)}


def preset(version: str) -> Preset:
    """A version of the paper.

    Raises:
        ConfigError: there is none of that name.
    """
    found = PRESETS.get(version)
    if found is None:
        raise ConfigError(f"preset: {version!r} is not known; there is {', '.join(PRESETS)}")
    return found


def one_version(named: Mapping[str, str]) -> str:
    """The one version that several places name; empty if none does.

    Args:
        named: version by the place that names it.

    Raises:
        ConfigError: two are named.
    """
    first: tuple[str, str] | None = None
    for place, version in named.items():
        if not version:
            continue
        preset(version)
        if first is not None and first[1] != version:
            raise ConfigError(
                f"presets are not mixed: {first[0]} names {first[1]}, {place} names {version}; their powers, "
                "PUE and results differ, so that parts of both would be neither: name one"
            )
        first = first or (place, version)
    return first[1] if first else ""
