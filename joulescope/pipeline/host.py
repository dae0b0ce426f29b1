"""Readings of the host in, its ledger out: meters and accounts of CPU packages and DRAM, wired.

A part of :class:`joulescope.pipeline.Pipeline`, and like it driven from one thread. It knows nothing of GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from joulescope.attribution.host import HostAccount
from joulescope.hook import wire
from joulescope.host_model import CpuTimes, HostDomain, HostDomainTotals, HostReading, HostTotals
from joulescope.host_records import domain_record, host_record
from joulescope.sampling.host_meter import DomainMeter, HostMeters, cpu_share
from joulescope.units import NANOSECONDS_PER_SECOND, joules_from_uj

FRESH_NS = 5 * NANOSECONDS_PER_SECOND
"""A domain that was not read for so long is down: readings come once a second."""


class Recorder(Protocol):
    """Takes the records of a trace."""

    def __call__(self, records: list[wire.AnyRecord]) -> None: ...


class HostPipeline:
    """The host's accounts since the sidecar started.

    ``record`` gets what comes in as records, so that a replay comes to the same figures.
    """

    def __init__(self, record: Recorder) -> None:
        self._record = record
        self._meters = HostMeters()
        self._accounts: dict[str, HostAccount] = {}
        self._readable: frozenset[str] = frozenset()
        self._failures: Mapping[str, int] = {}
        self._cpu: CpuTimes | None = None
        self._busy_cpu_seconds: float | None = None
        self._engine_cpu_seconds: dict[str, float] = {}

    def found(self, domains: Iterable[HostDomain]) -> None:
        """These domains can be read from now on, and no others."""
        domains = list(domains)
        self._readable = frozenset(info.domain for info in domains)
        self._meters.found(domains)
        self._record([domain_record(info) for info in domains])

    def add_found(self, info: HostDomain) -> None:
        """One more domain can be read: a trace tells of them one by one."""
        self._readable |= {info.domain}
        self._meters.found([info])

    def down(self, failures: Mapping[str, int]) -> None:
        """No domain can be read until the next :meth:`found`."""
        self._readable, self._failures = frozenset(), failures

    def read(self, reading: HostReading, failures: Mapping[str, int] | None = None) -> None:
        """Takes a reading into the accounts."""
        self._failures = self._failures if failures is None else failures
        self._count_cpu(reading.cpu)
        for interval in self._meters.add(reading):
            self._accounts.setdefault(interval.domain, HostAccount()).add(interval)
        self._record([host_record(reading)])

    def _count_cpu(self, cpu: CpuTimes | None) -> None:
        if cpu is None:
            return
        share, self._cpu = cpu_share(self._cpu, cpu), cpu
        self._busy_cpu_seconds = (self._busy_cpu_seconds or 0.0) + (share.busy_seconds if share else 0.0)
        for engine in cpu.engine_seconds:
            spent_seconds = share.engine_seconds[engine] if share else 0.0
            self._engine_cpu_seconds[engine] = self._engine_cpu_seconds.get(engine, 0.0) + spent_seconds

    def totals(self, now_ns: int, engines: Iterable[str]) -> HostTotals:
        """The ledgers as of now; ``engines`` are those that are connected."""
        unseen = self._cpu.unseen_engines if self._cpu is not None else ()
        counted = self._cpu.engine_seconds if self._cpu is not None else {}
        return HostTotals(
            domains=tuple(self._domain(meter, now_ns) for meter in self._meters.domains.values()),
            busy_cpu_seconds=self._busy_cpu_seconds,
            engine_cpu_seconds=dict(self._engine_cpu_seconds),
            engines_visible={
                engine: engine not in unseen for engine in engines if engine in unseen or engine in counted
            },
        )

    def _domain(self, meter: DomainMeter, now_ns: int) -> HostDomainTotals:
        account, domain = self._accounts.get(meter.info.domain, HostAccount()), meter.info.domain
        seen = dict.fromkeys(self._engine_cpu_seconds, 0)
        return HostDomainTotals(
            info=meter.info,
            measured_joules=joules_from_uj(account.measured_uj),
            attributed_joules={
                engine: joules_from_uj(uj) for engine, uj in {**seen, **account.attributed_uj}.items()
            },
            other_joules=joules_from_uj(account.other_uj),
            idle_joules=joules_from_uj(account.idle_uj),
            unattributed_joules={key: joules_from_uj(uj) for key, uj in account.unattributed_uj.items()},
            residual_joules=joules_from_uj(account.residual_uj),
            idle_power_watts=account.idle.least_watts if account.idle.quiet else None,
            intervals=account.intervals,
            wraps=meter.wraps,
            resets=meter.resets,
            rejected_intervals=meter.rejected,
            read_failures=self._failures.get(domain, 0),
            up=domain in self._readable and now_ns - meter.time_ns <= FRESH_NS,
        )
