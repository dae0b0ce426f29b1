"""One thing changes in a simulated service, and the diagnosis says what, and how much that was.

Short windows, a handful of causes; ``benchmarks/diagnosis.py`` has all of them, and longer.
"""

from __future__ import annotations

import pytest

from benchmarks.planted import Plant
from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.diagnosis import Diagnosis, diagnose
from tests.insight.diagnosis.windows import minutes

pytestmark = pytest.mark.slow


def _diagnosis(*plants: Plant, seed: int = 1) -> Diagnosis:
    return diagnose(minutes(), minutes(*plants, seed=seed))


@pytest.mark.parametrize(
    ("plant", "cause"),
    [
        pytest.param(Plant("load", 0.4), causes.LOAD),
        pytest.param(Plant("kernels", 1.25), causes.EFFICIENCY),
        pytest.param(Plant("clocks", 0.7), causes.CLOCKS),
        (Plant("batch", 8), causes.BATCH_LIMIT),
    ],
)
def test_a_planted_cause_is_named_with_its_share(plant: Plant, cause: str) -> None:
    """It is named first, most of the change is its, and the parts sum to the change."""
    found = _diagnosis(plant)
    assert found.named is not None
    assert found.named.cause == cause
    # The same clients, so that all of the change is the cause's.
    assert found.named.joules_per_token == pytest.approx(found.change, rel=0.15)
    assert sum(part.joules_per_token for part in found.parts) == pytest.approx(found.change, abs=1e-12)


def test_other_clients_alone_are_no_cause() -> None:
    """Two windows of one service: whatever differs is chance, and is not named."""
    found = _diagnosis(seed=2)
    assert found.named is None
    assert not any(part.sentence for part in found.parts)
