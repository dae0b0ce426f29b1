"""The split of a GPU's joules among its MIG instances: the rule, and what holds whatever comes in."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from joulescope.attribution.instances import MAX_INSTANCES, PATIENCE_NS, Activity, Instances, split_joules
from joulescope.model import EnergyInterval, GpuInfo, GpuStatus
from tests.worlds import MS, SECOND

WHOLE = "GPU-w"


def whole(*instances: str, split: str = "gpm") -> GpuInfo:
    return GpuInfo(WHOLE, power_limit_watts=700.0, instances=instances, energy_split=split)


def part(uuid: str, slices: int) -> GpuInfo:
    return GpuInfo(uuid, energy_source="mig_gpm", parent=WHOLE, slices=slices, slices_total=7)


def cut(**slices: int) -> Instances:
    """A GPU in instances of these sizes."""
    instances = Instances()
    instances.found(whole(*slices))
    for uuid, count in slices.items():
        info = part(uuid, count)
        assert instances.may_join(info)
        instances.found(info)
    return instances


def interval(start_ns: int, end_ns: int, energy_uj: int) -> EnergyInterval:
    return EnergyInterval(WHOLE, start_ns, end_ns, energy_uj)


def status(uuid: str, time_ns: int, active: float | None = None) -> GpuStatus:
    return GpuStatus(uuid, time_ns, sm_active_ratio=active)


def by_gpu(found: list[EnergyInterval]) -> dict[str, int]:
    return {each.gpu: each.energy_uj for each in found}


def test_the_rule_of_the_page() -> None:
    """70 of 370 J are idle power: 10 J a slice. The other 300 J go by slices times activity, 1.5 to 1.0."""
    found = split_joules(370_000_000, 70_000_000, [3, 2], 7, [0.5, 0.5])
    assert found == [30_000_000 + 180_000_000, 20_000_000 + 120_000_000, 20_000_000]


def test_what_is_above_idle_while_nobody_was_active_is_nobodys() -> None:
    """No instance pays for what none of them did; a card below its idle power is all idle."""
    assert split_joules(100, 70, [3, 4], 7, [0.0, 0.0]) == [30, 40, 30]
    assert split_joules(35, 70, [3, 2], 7, [0.9, 0.1]) == [15, 10, 10]


@example(energy_uj=1, idle_uj=0, sizes=[(1, 2.3e-309)], total=1)  # microjoules over that are infinite
@given(
    energy_uj=st.integers(0, 10**13),
    idle_uj=st.integers(0, 10**13),
    sizes=st.lists(st.tuples(st.integers(1, 7), st.floats(0.0, 1.0)), min_size=1, max_size=7),
    total=st.integers(1, 49),
)
def test_every_microjoule_once(
    energy_uj: int, idle_uj: int, sizes: list[tuple[int, float]], total: int
) -> None:
    """Whatever sizes and activities, parts are whole, none is negative, and they sum to the whole exactly."""
    found = split_joules(energy_uj, idle_uj, [size for size, _ in sizes], total, [busy for _, busy in sizes])
    assert sum(found) == energy_uj
    assert min(found) >= 0


EVENT = st.one_of(
    st.tuples(st.just("energy"), st.integers(1, 3000), st.integers(0, 10**9)),
    st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 1500), st.none() | st.floats(-1.0, 2.0)),
    st.tuples(st.just("cut"), st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.just("pause"), st.integers(1, 20000), st.none()),
)


@given(st.lists(EVENT, max_size=60))
def test_nothing_is_lost_or_late_whatever_comes_in(events: list[tuple[str, int, float | None]]) -> None:
    """With holes, nonsense, new cuts and pauses: what comes out sums to what came in, and follows in time."""
    instances = cut(a=3, b=4)
    now_ns = fed_ns = fed_uj = 0
    found: list[EnergyInterval] = []
    for kind, amount, value in events:
        if kind == "energy":
            now_ns += amount * MS
            fed = interval(fed_ns, now_ns, int(value or 0))
            fed_ns, fed_uj = now_ns, fed_uj + fed.energy_uj
            found += instances.take(WHOLE, now_ns, [fed])
        elif kind == "cut":
            found += instances.found(part("a", amount))
            found += instances.found(part("b", int(value or 1)))
        elif kind == "pause":
            now_ns += amount * MS
            found += instances.restart(WHOLE)
        else:
            now_ns += amount * MS
            found += instances.status(status(kind, now_ns, value))
    found += instances.flush()
    assert sum(each.energy_uj for each in found) == fed_uj
    ends_ns: Counter[str] = Counter()
    for each in found:
        assert each.start_ns >= ends_ns[each.gpu]
        ends_ns[each.gpu] = each.end_ns


def test_an_interval_waits_for_the_activity_in_it() -> None:
    """Half a second of joules is divided when both instances have told of all of it, and not before."""
    instances = cut(a=3, b=4)
    for uuid in ("a", "b"):
        assert instances.status(status(uuid, 0)) == []
    fed = interval(100 * MS, 600 * MS, 1_000_000)
    assert list(instances.take(WHOLE, 600 * MS, [fed])) == []
    assert instances.status(status("a", SECOND, 0.2)) == []
    found = instances.status(status("b", SECOND, 0.0))
    assert {(each.gpu, each.source) for each in found} == {
        ("a", "mig_gpm"),
        ("b", "mig_gpm"),
        (WHOLE, "mig_rest"),
    }


def test_it_does_not_wait_for_ever_nor_guess() -> None:
    """An instance that stopped telling: after five seconds the joules stay with the GPU, as they were."""
    instances = cut(a=3, b=4)
    fed = interval(0, 500 * MS, 1_000_000)
    assert list(instances.take(WHOLE, 500 * MS, [fed])) == []
    assert list(instances.take(WHOLE, 500 * MS + PATIENCE_NS, [])) == []
    assert list(instances.take(WHOLE, 501 * MS + PATIENCE_NS, [])) == [fed]


def test_idle_power_is_learned_while_nobody_works() -> None:
    """A card that draws 35 W when its instances rest has 5 W a slice, whatever was expected of it."""
    instances = cut(a=3, b=4)
    found: list[EnergyInterval] = []
    for second in range(60):
        active = 0.0 if second < 40 else 1.0
        joules = 35 if second < 40 else 335
        for uuid in ("a", "b"):
            found += instances.status(status(uuid, second * SECOND, active if uuid == "b" else 0.0))
        if second:
            fed = interval((second - 1) * SECOND, second * SECOND, joules * 10**6)
            found += instances.take(WHOLE, second * SECOND, [fed])
    last = {each.gpu: each.energy_uj / 1e6 for each in found}
    assert last == pytest.approx({"a": 15.0, "b": 320.0, WHOLE: 0.0}, abs=0.1)


def test_a_gpu_that_is_not_split_comes_through_at_once() -> None:
    """Without the choice, or with an instance of which nothing is known, intervals pass untouched."""
    fed = [interval(0, SECOND, 7)]
    for info in (whole("a", split=""), whole("a", "unknown"), whole()):
        instances = Instances()
        instances.found(info)
        instances.found(part("a", 3))
        assert instances.take(WHOLE, SECOND, fed) == fed
        assert instances.status(status("a", SECOND, 0.5)) == []


def test_a_gpu_cut_anew_for_ever_does_not_fill_memory() -> None:
    """After so many instances a new one gets no account; those that are known may come back."""
    instances = Instances()
    assert all(instances.may_join(part(f"m{k}", 1)) for k in range(MAX_INSTANCES))
    assert not instances.may_join(part("one more", 1))
    assert instances.may_join(part("m0", 1))


@given(
    st.lists(st.tuples(st.integers(-100, 2000), st.none() | st.floats()), max_size=400),
    st.integers(0, 10**12),
    st.integers(1, 10**12),
)
def test_activity_is_a_ratio_or_not_known(
    told: list[tuple[int, float | None]], start_ns: int, span_ns: int
) -> None:
    """From any sequence of means, nonsense and steps back in time included, comes 0 to 1, or nothing."""
    activity, now_ns = Activity(), 0
    for step_ms, ratio in told:
        now_ns += step_ms * MS
        activity.add(status("a", now_ns, ratio))
    mean = activity.mean(start_ns, start_ns + span_ns)
    assert mean is None or 0.0 <= mean <= 1.0
