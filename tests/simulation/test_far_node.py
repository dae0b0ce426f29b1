"""What a link between two nodes does to a trace, and nothing besides."""

from __future__ import annotations

from collections.abc import Iterable

from joulescope.hook import wire
from joulescope.simulation.far_node import FarLink, over_a_link
from tests.worlds import GPU, MS, SECOND

FAR = "GPU-far"


def run() -> list[wire.AnyRecord]:
    """Two GPUs read ten times a second for two seconds, and an engine that says so."""
    records: list[wire.AnyRecord] = []
    for at in range(0, 2 * SECOND, 100 * MS):
        records += [wire.Progress(time_ns=at)]
        records += [wire.Sample(gpu=gpu, time_ns=at, energy_joules=at / SECOND) for gpu in (GPU, FAR)]
    return records


def samples(records: Iterable[wire.AnyRecord], gpu: str) -> list[wire.Sample]:
    return [record for record in records if isinstance(record, wire.Sample) and record.gpu == gpu]


def test_a_link_without_faults_changes_nothing() -> None:
    """The far GPU is then as good as a local one."""
    assert list(over_a_link(run(), {FAR}, FarLink())) == run()


def test_only_the_far_node_s_instants_are_off() -> None:
    """By the lasting error, the drift and at most the jitter; and the samples say how much it may be."""
    link = FarLink(error_seconds=0.02, drift_ratio=0.01, jitter_seconds=0.004, told_seconds=0.03)
    told = list(over_a_link(run(), {FAR}, link))
    assert samples(told, GPU) == samples(run(), GPU)
    for true, seen in zip(samples(run(), FAR), samples(told, FAR), strict=True):
        off_ns = seen.time_ns - true.time_ns - 20 * MS - true.time_ns // 100
        assert abs(off_ns) <= 4 * MS
        assert seen.energy_joules == true.energy_joules
        assert seen.clock_error_seconds == 0.03


def test_delayed_samples_come_later_and_in_their_order() -> None:
    """Their instants stay: what comes before a far sample is up to the delay younger."""
    told = list(over_a_link(run(), {FAR}, FarLink(delay_seconds=0.25, delay_jitter_seconds=0.1)))
    assert samples(told, FAR) == samples(run(), FAR)
    at = told.index(samples(run(), FAR)[3])
    latest_ns = max(sample.time_ns for sample in samples(told[:at], GPU))
    assert 200 * MS <= latest_ns - 300 * MS <= 400 * MS


def test_what_a_broken_link_does_not_carry_is_lost_or_kept() -> None:
    """A relay that keeps what it could not send sends it all at once afterwards."""
    broken = ((0.5, 1.0),)
    lost = samples(over_a_link(run(), {FAR}, FarLink(broken=broken)), FAR)
    assert [each.time_ns // MS for each in lost] == [*range(0, 500, 100), *range(1000, 2000, 100)]
    kept = list(over_a_link(run(), {FAR}, FarLink(broken=broken, keeps=True)))
    assert samples(kept, FAR) == samples(run(), FAR)
    assert kept.index(samples(run(), GPU)[9]) < kept.index(samples(run(), FAR)[5])
