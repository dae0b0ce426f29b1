"""The host's accounts under whatever a sensor may say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from joulescope.hook import wire
from joulescope.host_model import CpuTimes, HostDomain, HostReading, HostTotals
from joulescope.host_records import host_domain, host_reading
from joulescope.pipeline.host import FRESH_NS, HostPipeline

SECOND = 1_000_000_000

seconds = st.floats(0.0, 1e6)
readings = st.builds(
    HostReading,
    time_ns=st.integers(0, 4000 * SECOND),
    energy_joules=st.dictionaries(
        st.sampled_from(["package-0", "dram-0", "package-1"]), st.floats(0.0, 300_000.0)
    ),
    cpu=st.none()
    | st.builds(
        CpuTimes,
        busy_seconds=seconds,
        total_seconds=seconds,
        engine_seconds=st.dictionaries(st.sampled_from("ab"), seconds),
        unseen_engines=st.sampled_from([(), ("c",)]),
    ),
)


def account(told: list[HostReading], record: list[wire.AnyRecord] | None = None) -> list[HostTotals]:
    """The figures after each reading."""
    pipeline = HostPipeline(lambda records: None if record is None else record.extend(records))
    pipeline.found([HostDomain("package-0", energy_range_joules=262_144.0), HostDomain("dram-0")])
    totals = []
    for reading in told:
        pipeline.read(reading)
        totals.append(pipeline.totals(reading.time_ns, ["a", "c"]))
    return totals


@given(st.lists(readings, min_size=1, max_size=30))
def test_whatever_sensors_say_the_account_adds_up_and_never_falls(told: list[HostReading]) -> None:
    """Counters that leap, time that runs back, CPU time that makes no sense: no joule is lost or invented."""
    before: dict[str, float] = {}
    for totals in account(told):
        for domain in totals.domains:
            parts = {
                "measured": domain.measured_joules,
                "other": domain.other_joules,
                "idle": domain.idle_joules,
                **domain.attributed_joules,
                **domain.unattributed_joules,
            }
            assert domain.residual_joules == 0
            for part, joules in parts.items():
                key = f"{domain.info.domain} {part}"
                assert joules >= before.get(key, 0.0)
                before[key] = joules


@given(st.lists(readings, min_size=1, max_size=20))
def test_what_is_recorded_accounts_for_the_same(told: list[HostReading]) -> None:
    """The records of any course of readings, read back, come to the same figures."""
    recorded: list[wire.AnyRecord] = []
    live = account(told, recorded)[-1]
    again = HostPipeline(lambda records: None)
    for record in recorded:
        if isinstance(record, wire.HostSample):
            again.read(host_reading(record))
        elif isinstance(record, wire.HostDomain):
            again.add_found(host_domain(record))
    replayed = again.totals(told[-1].time_ns, ["a", "c"])
    assert replayed.engine_cpu_seconds == live.engine_cpu_seconds
    for one, other in zip(replayed.domains, live.domains, strict=True):
        assert one.attributed_joules == other.attributed_joules
        assert one.unattributed_joules == other.unattributed_joules
        assert (one.measured_joules, one.idle_joules) == (other.measured_joules, other.idle_joules)


def test_stale_is_not_fresh() -> None:
    """A domain that was not read for five seconds is down; what it has measured stands."""
    pipeline = HostPipeline(lambda records: None)
    pipeline.found([HostDomain("package-0")])
    pipeline.read(HostReading(SECOND, {"package-0": 1.0}))
    pipeline.read(HostReading(2 * SECOND, {"package-0": 101.0}))
    (fresh,) = pipeline.totals(2 * SECOND + FRESH_NS, []).domains
    (stale,) = pipeline.totals(2 * SECOND + FRESH_NS + 1, []).domains
    assert (fresh.up, stale.up) == (True, False)
    assert stale.measured_joules == fresh.measured_joules == 100.0
