"""*Cost and carbon*: kilowatt-hours, grams and money, in all and for each request and token.

The sidecar never multiplies: the factors are gauges beside the joules, and these expressions bring them
together at every instant. Sums over time are sums of products: the grid's intensity changes by the hour.
"""

from __future__ import annotations

from grafana.empty import NO_CARBON, NO_ENGINE, NO_GPU, NO_PRICE, NO_PUE
from grafana.frame import Board, Choice, Row
from grafana.look import (
    DECODE,
    FAINT,
    IDLE,
    OVERHEAD,
    WARN,
    Ask,
    Column,
    Placed,
    figure,
    grid,
    lines,
)
from grafana.promql import (
    ATTRIBUTED,
    GENERATED,
    MEASURED,
    TARGET,
    engines,
    gpus,
    grown,
    of_models,
    rate,
    ratio,
    sidecars,
    total,
)

PUE = "joulescope_facility_pue_ratio"
CARBON = "joulescope_grid_carbon_intensity_grams_per_joule"
PRICE = "joulescope_electricity_price_per_joule"
FINISHED = engines("joulescope_requests_finished_total")
JOULES_PER_WATT_HOUR = 3600
MONEY = "short"

SCOPE = Choice(
    "scope",
    "Energy of",
    "Of the GPUs as measured, or of the building: times the PUE that the sidecar is told.",
    # Both are gauges with one value a sidecar; the first is 1.
    {"the GPUs alone": "joulescope_build_info", "the building": PUE},
)


def times(vector: str, factor: str, brings: str = "") -> str:
    """Series times a gauge of their sidecar, whose label ``brings`` comes along."""
    return f"{vector} * on ({TARGET}) group_left ({brings}) {factor}"


def scoped(vector: str) -> str:
    """Watts of the GPUs, or of the building for them."""
    return times(vector, "$scope")


def grams(vector: str) -> str:
    """Grams of CO2e for joules."""
    return times(scoped(vector), CARBON)


def money(vector: str) -> str:
    """Price of joules, with its currency."""
    return times(scoped(vector), PRICE, "currency")


def summed(per_second: str) -> str:
    """The integral over the time shown of something per second; unknown time adds nothing."""
    return f"sum_over_time(({per_second})[$__range:$__interval]) * $__interval_ms / 1000"


OURS = of_models(rate(ATTRIBUTED))
ALL = rate(MEASURED)
REQUESTS = total(of_models(grown(FINISHED)))
TOKENS = total(of_models(grown(GENERATED), tokens_only=True))
TOKEN_JOULES = total(scoped(of_models(grown(ATTRIBUTED), tokens_only=True)))
TOKEN_WATTS = of_models(rate(ATTRIBUTED), tokens_only=True)


def _glance() -> list[Placed]:
    return [*_glance_left(), *_glance_right()]


def _glance_left() -> list[Placed]:
    return [
        figure(
            "Energy",
            "All measured energy of the chosen GPUs in the time shown, idle and overhead with it. What the "
            "electricity meter of the building says for them, if you choose the building and its PUE is "
            "right. "
            "Worry if it grows faster than the tokens do.",
            "watth",
            f"{total(scoped(grown(MEASURED)))} / {JOULES_PER_WATT_HOUR}",
            none=f"{NO_GPU}, or {NO_PUE}",
            over_range=True,
        ),
        figure(
            "Carbon",
            "Grams of CO2e for that energy, with the grid's intensity of each moment. Time without a known "
            "intensity adds nothing: see how much that is below. "
            "Worry if it grows faster than the energy: the grid is dirtier when you compute.",
            "massg",
            summed(total(grams(ALL))),
            none=NO_CARBON,
            over_range=True,
            colour=OVERHEAD,
        ),
        figure(
            "Price",
            "What that energy costs at the configured price for a kWh, in its currency. "
            "Worry if it grows and the tokens do not.",
            MONEY,
            summed(total(money(ALL), "currency")),
            none=NO_PRICE,
            legend="{{currency}}",
            decimals=2,
            over_range=True,
            colour=DECODE,
        ),
    ]


def _glance_right() -> list[Placed]:
    return [
        figure(
            "Energy for a million tokens",
            "Energy of the chosen models' requests alone for a million output tokens, in the time shown. "
            "Worry if it climbs from week to week at the same load.",
            "watth",
            f"1e6 * {ratio(TOKEN_JOULES, TOKENS)} / {JOULES_PER_WATT_HOUR}",
            none=f"no tokens, or {NO_PUE}",
            over_range=True,
        ),
        figure(
            "Carbon of 1000 requests",
            "Grams of CO2e of the chosen models' requests alone for a thousand of them, in the time shown. "
            "Worry if it climbs while the energy of a request does not: then it is the grid.",
            "massg",
            f"1000 * {ratio(summed(total(grams(OURS))), REQUESTS)}",
            none=NO_CARBON,
            over_range=True,
            colour=OVERHEAD,
        ),
        figure(
            "Price of a million tokens",
            "What a million output tokens cost in electricity, of the chosen models' requests alone, in the "
            "time shown. "
            "Worry if it comes near what you charge.",
            MONEY,
            f"1e6 * ({summed(total(money(TOKEN_WATTS), 'currency'))}) / on () group_left () ({TOKENS} > 0)",
            none=NO_PRICE,
            legend="{{currency}}",
            decimals=3,
            over_range=True,
            colour=DECODE,
        ),
    ]


def _over_time() -> list[Placed]:
    hour = 3600
    return [
        lines(
            "Power of the GPUs and of the building for them",
            "What the GPUs draw, and what the building adds by its PUE: cooling and distribution, as a "
            "yearly mean. Without a PUE the second part is missing. "
            "Worry if it does not fall when the load does.",
            "watt",
            [
                Ask(total(ALL), "GPUs", DECODE),
                Ask(total(times(ALL, f"({PUE} - 1)")), "building", IDLE),
            ],
            none=NO_GPU,
            stacked=True,
        ),
        lines(
            "Carbon by the hour",
            "Grams of CO2e an hour: of the requests of each model, and of the chosen GPUs for nobody (idle, "
            "overhead, unknown). The shape follows load and grid: move what can wait to where it is low. "
            "Worry about grey as high as the rest.",
            "si:g/h",
            [
                Ask(f"{hour} * {total(grams(OURS), 'served_model')}", "{{served_model}}"),
                Ask(f"{hour} * {_for_nobody(grams)}", "for nobody", IDLE),
            ],
            none=NO_CARBON,
            stacked=True,
        ),
        lines(
            "Price by the hour",
            "Electricity an hour in the configured currency: of the requests of each model, and for nobody. "
            "Worry if the grey part is the larger one.",
            MONEY,
            [
                Ask(
                    f"{hour} * {total(money(OURS), 'served_model', 'currency')}",
                    "{{served_model}}, {{currency}}",
                ),
                Ask(f"{hour} * {_for_nobody(money, 'currency')}", "for nobody, {{currency}}", IDLE),
            ],
            none=NO_PRICE,
            stacked=True,
            decimals=2,
        ),
    ]


def _for_nobody(of: object, *by: str) -> str:
    """Idle, overhead and unexplained joules of the chosen GPUs, as grams or money."""
    assert callable(of)
    parts = (
        total(of(rate(gpus(f"joulescope_{part}_energy_joules_total"))), *by)
        for part in ("idle", "overhead", "unattributed")
    )
    return f"({' + '.join(parts)})"


def _for_each() -> list[Placed]:
    tokens = total(of_models(rate(GENERATED), tokens_only=True))
    requests = total(of_models(rate(FINISHED)), "served_model")
    by_model = total(of_models(rate(GENERATED)), "served_model")
    all_joules = total(scoped(ALL))
    ours = total(scoped(TOKEN_WATTS))
    return [
        lines(
            "Energy for a million tokens, bare and full",
            "The requests' own energy for a million output tokens; and all that the chosen GPUs drew, idle "
            "and overhead too, shared among the tokens that came out. Choose all models for the second to "
            "be fair. The gap is what better use of the GPUs would save. "
            "Worry if it is wide.",
            "watth",
            [
                Ask(
                    f"1e6 * {ratio(all_joules, tokens)} / {JOULES_PER_WATT_HOUR}",
                    "with idle and overhead",
                    IDLE,
                ),
                Ask(f"1e6 * {ratio(ours, tokens)} / {JOULES_PER_WATT_HOUR}", "requests alone", DECODE),
            ],
            none=f"no tokens now, or {NO_PUE}",
        ),
        lines(
            "Carbon of 1000 requests, by model",
            "Grams of CO2e of the requests alone for a thousand of them, by model. It moves with the grid, "
            "with the length of requests and with the batch. "
            "Worry if one model climbs and the others do not.",
            "massg",
            [Ask(f"1000 * {ratio(total(grams(OURS), 'served_model'), requests)}", "{{served_model}}")],
            none=NO_CARBON,
        ),
        lines(
            "Price of a million tokens, by model",
            "Electricity for a million output tokens of each model, of its requests alone, in the "
            "configured currency. "
            "Worry if it climbs at the same load.",
            MONEY,
            [
                Ask(
                    f"1e6 * {total(money(OURS), 'served_model', 'currency')}"
                    f" / on (served_model) group_left () ({by_model} > 0)",
                    "{{served_model}}, {{currency}}",
                )
            ],
            none=NO_PRICE,
            decimals=3,
        ),
    ]


def _by_model() -> list[Placed]:
    return [*_models(), *_factors()]


def _models() -> list[Placed]:
    name = "served_model"
    return [
        grid(
            "Models",
            "What the requests of each model took in the time shown, the most energy first. Idle and "
            "overhead are not shared among them. "
            "Worry about a model that is high up in energy and far down in requests.",
            "short",
            {name: "Model"},
            [
                Column(
                    "Energy",
                    f"{total(scoped(of_models(grown(ATTRIBUTED))), name)} / {JOULES_PER_WATT_HOUR}",
                    {"unit": "watth", "custom.width": 95},
                ),
                Column("CO2e", summed(total(grams(OURS), name)), {"unit": "massg", "custom.width": 85}),
                Column(
                    "Price",
                    f"sum by ({name}) ({summed(total(money(OURS), name, 'currency'))})",
                    {"unit": MONEY, "decimals": 2, "custom.width": 75},
                ),
                Column("Requests", total(of_models(grown(FINISHED)), name), {"custom.width": 95}),
                Column(
                    "Output tokens",
                    total(of_models(grown(GENERATED)), name),
                    {"custom.width": 115},
                ),
            ],
            sort="Energy",
            none=NO_ENGINE,
            size=(12, 8),
        ),
        lines(
            "Carbon intensity of the grid",
            "Grams of CO2e for a kWh, as the sidecars are told. Worry about gaps: where it is too old it is "
            "left out, and the sums above are short by that time.",
            "si:g/kWh",
            [Ask(f"avg by (cluster) ({sidecars(CARBON)}) * 3.6e6", "intensity {{cluster}}")],
            none=NO_CARBON,
            size=(6, 8),
        ),
    ]


def _factors() -> list[Placed]:
    return [
        figure(
            "Intensity known",
            "How much of the time shown the grid's intensity was known, on average over the sidecars. Below "
            "1 the grams above are short by the rest. "
            "Worry then.",
            "percentunit",
            f"sum(count_over_time({sidecars(CARBON)}[$__range:$__interval])) / "
            f"sum(count_over_time({sidecars('joulescope_build_info')}[$__range:$__interval]))",
            none=NO_CARBON,
            thresholds=[(None, WARN), (0.99, "green")],
            decimals=0,
            over_range=True,
            size=(3, 8),
        ),
        figure(
            "PUE",
            "Energy of the building over that of its IT, as configured: the mean of the sidecars. It is a "
            "yearly mean and knows nothing of this hour. "
            "Worry if it is not your building's.",
            "short",
            f"avg({sidecars(PUE)})",
            none=NO_PUE,
            over_range=True,
            legend="as configured",
            colour=FAINT,
            decimals=2,
            size=(3, 8),
        ),
    ]


COST = Board(
    name="cost",
    title="Cost and carbon",
    question="What did it cost: in kilowatt-hours, CO2e and money, in all and for each request and token?",
    variables=("cluster", "instance", "model", "engine", "gpu"),
    choices=(SCOPE,),
    since="now-24h",
    refresh="5m",
    rows=[
        Row("In the time shown", _glance()),
        Row("By the hour", _over_time()),
        Row("For each", _for_each()),
        Row("By model, and the factors", _by_model()),
    ],
)
