"""Rows of the metric table that joules may be multiplied by: the place and the grid, never the GPU."""

from __future__ import annotations

from collections.abc import Iterator

from joulescope.export import readers
from joulescope.export.metric import Kind, Metric, Point, per_label
from joulescope.label_model import clean
from joulescope.model import Snapshot
from joulescope.surroundings_model import FETCH_FAILURES


def _price(snapshot: Snapshot) -> Iterator[Point]:
    if (price := snapshot.multipliers.price_per_joule) is not None:
        yield Point((clean(snapshot.multipliers.currency),), price)


def _failures(snapshot: Snapshot) -> Iterator[Point]:
    if (failures := snapshot.multipliers.carbon_failures) is not None:
        yield from per_label((), failures, FETCH_FAILURES)


MULTIPLIERS = (
    Metric(
        "joulescope_facility_pue_ratio",
        Kind.GAUGE,
        "ratio",
        (),
        "Energy of the facility per energy of its IT equipment, as configured. No joule figure has it in it. "
        "Absent unless configured.",
        readers.of_multipliers(lambda multipliers: multipliers.pue_ratio),
    ),
    Metric(
        "joulescope_grid_carbon_intensity_grams_per_joule",
        Kind.GAUGE,
        "grams_per_joule",
        (),
        "Grams of CO2 equivalent per joule from the grid; times 3,600,000 it is grams per kWh. No joule "
        "figure has it in it. Absent unless configured, and while it is too old.",
        readers.of_multipliers(lambda multipliers: multipliers.carbon_grams_per_joule),
    ),
    Metric(
        "joulescope_grid_carbon_intensity_age_seconds",
        Kind.GAUGE,
        "seconds",
        (),
        "Time since the carbon intensity was last found at its URL, or since its file changed; told of a "
        "figure that is too old to be shown, too. Absent for a constant, and before it was first found.",
        readers.of_multipliers(lambda multipliers: multipliers.carbon_age_seconds),
    ),
    Metric(
        "joulescope_grid_carbon_intensity_refresh_failures_total",
        Kind.COUNTER,
        "refreshes",
        ("reason",),
        "Refreshes of the carbon intensity that failed. Absent unless it comes from a URL or a file.",
        _failures,
    ),
    Metric(
        "joulescope_electricity_price_per_joule",
        Kind.GAUGE,
        "per_joule",
        ("currency",),
        "Price of a joule in units of the currency, as configured; times 3,600,000 it is the price of a kWh. "
        "Absent unless configured.",
        _price,
    ),
)
