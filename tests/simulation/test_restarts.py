"""Changes that an engine is restarted for: what they make of a world."""

from __future__ import annotations

import numpy as np
import pytest

from joulescope.simulation.group import law_of
from joulescope.simulation.physics import FEATURES, Floats
from joulescope.simulation.restarts import RESTARTS, restarted
from joulescope.simulation.worlds import H100_LLAMA_8B

WORLD = H100_LLAMA_8B


def _step(requests: float) -> Floats:
    """A step in which so many requests decode with a thousand tokens of context each."""
    values = {"requests": 1.0, "tokens": 1.0, "positions": 1001.0, "kv_tokens": 1001.0, "heads": 1.0}
    return np.array([requests * values.get(name, 1.0) for name in FEATURES])


def test_limits_are_cut() -> None:
    """A part of the KV cache; another batch limit; all else stays."""
    assert restarted(WORLD, "kv", 0.1).limits.kv_cache_tokens == 42_000
    assert restarted(WORLD, "batch", 12).limits.max_num_seqs == 12
    assert restarted(WORLD, "kv", 0.1).hardware == WORLD.hardware


def test_two_gpus_are_faster_and_draw_more_and_hold_more() -> None:
    """The second GPU's memory is the KV cache's."""
    wider = restarted(WORLD, "layout", 2)
    one, two = law_of(WORLD).cost(_step(20)), law_of(wider).cost(_step(20))
    assert two.seconds.max() < one.seconds.max()
    assert two.joules.sum() > one.joules.sum()
    assert wider.limits.kv_cache_tokens > 2 * WORLD.limits.kv_cache_tokens


def test_eight_bits_read_less_and_leave_more_room() -> None:
    """Another model by name, lighter weights, and their memory given to the KV cache."""
    lighter = restarted(WORLD, "precision", 0.55)
    assert lighter.model.name != WORLD.model.name
    assert law_of(lighter).energy_joules(_step(8)) < law_of(WORLD).energy_joules(_step(8))
    assert lighter.limits.kv_cache_tokens > WORLD.limits.kv_cache_tokens


def test_an_unknown_kind_is_named_with_those_there_are() -> None:
    """The message is enough to mend the call."""
    with pytest.raises(
        ValueError, match=f"'size' is no change at a restart; there are {', '.join(RESTARTS)}"
    ):
        restarted(WORLD, "size", 1.0)
