"""A power limit under which clocks fall, against the simulated GPU whose clocks do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from joulescope.insight.steady import Clocks, LengthClass, Workload, steady_state
from joulescope.insight.steady.step_law import SECONDS, StepLaw
from joulescope.simulation.parts import Dvfs
from joulescope.simulation.physics import GpuLaw, features_of
from joulescope.simulation.worlds import H100_LLAMA_8B
from tests.insight.steady.services import service_of

CHAT = (LengthClass(1.0, 600.0, 300.0),)
HARDWARE = replace(H100_LLAMA_8B.hardware, power_limit_watts=450.0, dvfs=Dvfs())
FALLING = replace(H100_LLAMA_8B, hardware=HARDWARE)
SERVICE = replace(service_of(FALLING), clocks=Clocks(Dvfs().voltage_floor))


@pytest.mark.parametrize("prompt", [1, 512, 6000])
def test_a_step_costs_what_it_costs_the_simulated_gpu(prompt: int) -> None:
    context, scheduled = np.array([500] * 16 + [0]), np.array([1] * 16 + [prompt])
    features = features_of(context, scheduled, np.ones(17, dtype=np.int64))
    true = GpuLaw(FALLING.hardware, FALLING.model, FALLING.runtime).cost(features.sum(axis=1))
    law = StepLaw(SERVICE)
    sums = np.array([scheduled.sum(), (context + scheduled).sum(), features[2].sum(), 17.0])
    told = law.cost(law.features(np.array(17.0), sums))
    assert told[SECONDS] == pytest.approx(float(true.seconds[0]), rel=1e-3)
    assert told[1:].sum() == pytest.approx(float(true.joules[0]), rel=1e-3)


def test_falling_clocks_cost_fewer_joules_than_steps_that_only_take_longer() -> None:
    full = Workload(CHAT, concurrency=math.inf)
    falling, stretched = (steady_state(full, each) for each in (SERVICE, replace(SERVICE, clocks=None)))
    assert falling.joules_per_token is not None
    assert stretched.joules_per_token is not None
    assert falling.joules_per_token.total < 0.95 * stretched.joules_per_token.total
    assert falling.tokens_per_second > stretched.tokens_per_second
    assert falling.watts <= 450.0 * 1.001


def test_a_limit_that_is_never_reached_changes_nothing() -> None:
    laws = replace(SERVICE.laws, limit_watts=5000.0)
    one, two = (
        steady_state(Workload(CHAT, arrivals_per_second=4.0), replace(SERVICE, laws=laws, clocks=clocks))
        for clocks in (None, Clocks(0.55))
    )
    assert one.watts == pytest.approx(two.watts, rel=1e-9)
    assert one.inter_token_seconds == pytest.approx(two.inter_token_seconds, rel=1e-9)
