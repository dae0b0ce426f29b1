"""The host's domains and readings as they stand in a trace, and back."""

from __future__ import annotations

import math

from joulescope.errors import TraceError
from joulescope.hook import wire
from joulescope.host_model import CpuTimes, HostDomain, HostReading

_MOST_SECONDS = 1e15
"""A CPU time beyond this is a mistake."""


def domain_record(info: HostDomain) -> wire.HostDomain:
    """The record that comes before the domain's first sample."""
    return wire.HostDomain(domain=info.domain, zone=info.zone, energy_range_joules=info.energy_range_joules)


def host_domain(record: wire.HostDomain) -> HostDomain:
    """The domain that a record tells of; its sensor is ``replayed``.

    Raises:
        TraceError: if its range cannot be one: every wrap would be counted wrongly.
    """
    range_joules = record.energy_range_joules
    if range_joules is not None and not 0 < range_joules < math.inf:
        raise TraceError(
            f"the trace gives the host domain {record.domain} the energy_range_joules {range_joules:g}, "
            "which is not above 0; mend its host_domain record"
        )
    return HostDomain(record.domain, record.zone, range_joules, sensor="replayed")


def host_record(reading: HostReading) -> wire.HostSample:
    """One reading as a record."""
    record = wire.HostSample(time_ns=reading.time_ns, energy_joules=dict(reading.energy_joules))
    if reading.cpu is not None:
        record.busy_cpu_seconds = reading.cpu.busy_seconds
        record.total_cpu_seconds = reading.cpu.total_seconds
        record.engine_cpu_seconds = dict(reading.cpu.engine_seconds)
        record.unseen_engines = list(reading.cpu.unseen_engines)
    return record


def host_reading(record: wire.HostSample) -> HostReading:
    """The reading that a record holds; its CPU times count if the host's are there and none is absurd."""
    cpu = None
    host = (record.busy_cpu_seconds, record.total_cpu_seconds)
    sane = all(
        seconds is not None and 0 <= seconds < _MOST_SECONDS
        for seconds in (*host, *record.engine_cpu_seconds.values())
    )
    if sane and record.busy_cpu_seconds is not None and record.total_cpu_seconds is not None:
        cpu = CpuTimes(
            busy_seconds=record.busy_cpu_seconds,
            total_seconds=record.total_cpu_seconds,
            engine_seconds=record.engine_cpu_seconds,
            unseen_engines=tuple(record.unseen_engines),
        )
    return HostReading(record.time_ns, record.energy_joules, cpu)
