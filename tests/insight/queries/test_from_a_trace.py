"""From steps and readings to the bill: what the accountant measured is what the lines add up to."""

from __future__ import annotations

import pytest

from joulescope.insight.queries import balance, chargeback, coverage
from joulescope.insight.queries.ledger import open_root
from tests.simulated_ledger import Simulated, simulate


@pytest.fixture(scope="module")
def accounted(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    return simulate(tmp_path_factory.mktemp("run"), 45.0)


@pytest.mark.parametrize(
    ("by", "spread"), [((), "apart"), (("tenant",), "attributed"), (("engine", "lora", "hour"), "attributed")]
)
def test_the_bill_is_what_the_gpus_measured(accounted: Simulated, by: tuple[str, ...], spread: str) -> None:
    """To the microjoule, and every finished request is on it once."""
    with open_root(str(accounted.root)) as opened:
        rows = opened.tables.rows(chargeback(opened.tables, by, spread))
    assert sum(row["joules_uj"] for row in rows) == accounted.measured_uj > 0
    assert sum(row["requests"] for row in rows) == accounted.requests > 5


def test_parts_are_those_of_the_accountant(accounted: Simulated) -> None:
    """No residual, and finished requests have drawn no more than was attributed."""
    with open_root(str(accounted.root)) as opened:
        rows = opened.tables.rows(balance(opened.tables))
        known = coverage(opened.tables)
    assert sum(row["measured_uj"] for row in rows) == accounted.measured_uj
    assert all(row["residual_uj"] == 0 for row in rows)
    assert 0 < known["requests_uj"] <= known["attributed_uj"]
