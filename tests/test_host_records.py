"""The host's domains and readings go to records and back without a loss."""

from __future__ import annotations

from dataclasses import replace

import pytest

from joulescope.errors import TraceError
from joulescope.hook import wire
from joulescope.host_model import CpuTimes, HostDomain, HostReading
from joulescope.host_records import domain_record, host_domain, host_reading, host_record

INFO = HostDomain("dram-0", "intel-rapl:0:1", 65712.999613, "powercap")
READING = HostReading(5, {"dram-0": 6.5}, CpuTimes(1.5, 8.0, {"llama-0": 0.5}, ("dark",)))


def test_no_field_is_forgotten() -> None:
    """What a record carries comes back as it was, but for the sensor, which is then the replay."""
    assert host_domain(domain_record(INFO)) == replace(INFO, sensor="replayed")
    assert host_reading(host_record(READING)) == READING


def test_what_is_not_known_stays_so() -> None:
    """An empty reading is an empty record, and back; a domain without a range has none."""
    empty = HostReading(5, {})
    assert host_reading(host_record(empty)) == empty
    assert host_domain(domain_record(HostDomain("dram-0"))).energy_range_joules is None


@pytest.mark.parametrize("range_joules", [0.0, -1.0])
def test_a_range_that_cannot_be_is_an_error(range_joules: float) -> None:
    """With it every wrap would be wrong, so the trace is refused by name."""
    with pytest.raises(TraceError, match="dram-0"):
        host_domain(wire.HostDomain(domain="dram-0", energy_range_joules=range_joules))


@pytest.mark.parametrize(
    "record",
    [
        wire.HostSample(time_ns=1, busy_cpu_seconds=1.0),
        wire.HostSample(time_ns=1, busy_cpu_seconds=-1.0, total_cpu_seconds=2.0),
        wire.HostSample(time_ns=1, busy_cpu_seconds=1.0, total_cpu_seconds=1e300),
        wire.HostSample(time_ns=1, busy_cpu_seconds=1.0, total_cpu_seconds=2.0, engine_cpu_seconds={"e": -1}),
    ],
)
def test_cpu_times_that_cannot_be_are_not_known(record: wire.HostSample) -> None:
    """The energy of such a sample counts; who spent it is then not known."""
    assert host_reading(record).cpu is None
