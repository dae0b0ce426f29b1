"""An hour of a small simulated fleet, as a Prometheus would have scraped it.

Engines and GPUs are those of :mod:`joulescope.simulation`; what they tell goes through the sidecar's own
pipeline and table of metrics, every quarter of a minute. It knows joules, tokens and batches. What
it does not know is made up here, in proportion to power, so that every panel has something to draw: clocks,
temperature and performance counters of the GPUs, the host's joules, and CPU and memory of the sidecars.
"""

from __future__ import annotations

import math
import random
import re
import subprocess
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from joulescope.attribution.efficiencies import Efficiencies
from joulescope.attribution.labels import LabelRules
from joulescope.attribution.policy import Policy
from joulescope.clock import ManualClock, SystemClock, WallAnchor
from joulescope.config import Settings
from joulescope.daemon.minute_keeper import MinuteKeeper
from joulescope.export.metrics import METRICS
from joulescope.export.prometheus import family_of
from joulescope.gpu_model import GpuStatus
from joulescope.hook import wire
from joulescope.host_model import CpuTimes, HostDomain, HostReading
from joulescope.model import GpuReading, Snapshot
from joulescope.pipeline import Pipeline, Scope
from joulescope.sensors.simulated import SimulatedSensor
from joulescope.simulation.fleet import Fleet
from joulescope.simulation.parts import Change, World
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.workload import PlannedRequest, Workload
from joulescope.simulation.worlds import DRAFTER_1B, WORLDS
from joulescope.surroundings_model import Multipliers
from joulescope.units import ns_from_seconds

SECONDS = 3600.0
SCRAPE_SECONDS = 15.0
_POLL_SECONDS = 0.2
_SETTLE_SECONDS = 0.6
_LEARN_SECONDS = 900.0
_DIAGNOSIS = Settings(diagnosis_seconds=300.0, diagnosis_last_seconds=600.0, diagnosis_before_seconds=1200.0)
"""Twenty minutes back and not an hour, which is all that there is."""
_START_NS = 1_000_000_000_000
_EURO_PER_KWH, _PUE = 0.21, 1.25
_ADAPTERS = (("", 0.55), ("support-de", 0.25), ("legal-review", 0.12), ("sql-helper", 0.08))


@dataclass(frozen=True)
class Site:
    """One sidecar of the fleet, with one engine."""

    cluster: str
    instance: str
    world: World
    peak_per_second: float
    load: Callable[[float], float]
    """Part of the peak that arrives, 0 to 1, by the part of the hour that is over."""
    seed: int
    adapters: bool = False
    comes_after_seconds: float = 0.0
    """The engine says hello so late; before, its GPUs are nobody's."""
    loads_seconds: float = 0.0
    """It loads its weights for so long after its hello."""


def _wave(hour: float) -> float:
    return 0.5 + 0.3 * math.sin(2 * math.pi * 3.4 * hour) + 0.1 * math.sin(2 * math.pi * 11.0 * hour)


def _bursts(hour: float) -> float:
    return 0.9 if math.sin(2 * math.pi * 3.2 * hour) > -0.2 else 0.12


def _quiet(hour: float) -> float:
    return 0.5 if 0.45 < hour < 0.8 else 0.04


def _steady(hour: float) -> float:
    return 0.75 + 0.15 * math.sin(2 * math.pi * (1.4 * hour + 0.3))


def _dearer(world: World, factor: float, at_ratio: float) -> World:
    """The same, but from then on the same work costs more."""
    gpu = replace(
        world.hardware,
        joules_per_byte=factor * world.hardware.joules_per_byte,
        joules_per_flop=factor * world.hardware.joules_per_flop,
        active_watts=factor * world.hardware.active_watts,
    )
    return replace(world, change=Change(gpu, at_ratio))


_SPECULATIVE = replace(
    WORLDS["calibrated"],
    drafter=DRAFTER_1B,
    limits=replace(WORLDS["speculative"].limits, kv_cache_tokens=16_000),
)

SITES = (
    Site("fra-1", "node-a:5685", _dearer(WORLDS["calibrated"], 1.2, 0.66), 13.0, _wave, 11, adapters=True),
    Site("fra-1", "node-b:5685", WORLDS["tensor-parallel-2"], 4.0, _steady, 12),
    Site("ams-2", "node-c:5685", WORLDS["moe"], 5.0, _bursts, 13),
    Site("ams-2", "node-d:5685", _SPECULATIVE, 4.0, _quiet, 14, True, 420.0, 150.0),
)


class Told:
    """What one sidecar is told in the hour: records and readings, and its snapshots at every scrape."""

    def __init__(self, site: Site, seconds: float, wall_ns: int) -> None:
        self._site, self._seconds = site, seconds
        limits: EngineLimits = site.world.limits
        self._serves_ns = _START_NS + ns_from_seconds(site.comes_after_seconds + site.loads_seconds)
        change = site.world.change
        self.fleet = Fleet(
            site.world,
            self._arrivals(),
            start_ns=_START_NS,
            limits=limits,
            ledger=None,
            seed=site.seed,
            change_ns=_START_NS + ns_from_seconds(seconds * change.at_ratio) if change else None,
        )
        self._clock = ManualClock(_START_NS)
        self._sensor = SimulatedSensor(self.fleet, self._clock)
        self._beside = Beside(site)
        anchor = WallAnchor(_START_NS, wall_ns)
        learns = Efficiencies(
            learn_seconds=_LEARN_SECONDS, wall_seconds=lambda time_ns: anchor.wall_of(time_ns) / 1e9
        )
        # The simulation's request ids begin with the kind of service: here each is a tenant, and a task.
        labels = LabelRules(
            tenant_from="request_id",
            tenant_pattern=re.compile(r"(?P<tenant>[a-z]+)-"),
            task_from=("request_id",),
            task_pattern=re.compile(r"(?P<task>[a-z]+)-"),
        )
        self.pipeline = Pipeline(
            Policy(labels=labels), Scope(all_gpus=True), wall=anchor, efficiencies=learns, minutes=True
        )
        self._minutes = MinuteKeeper(self.pipeline, settings=_DIAGNOSIS, clock=SystemClock())

    def _arrivals(self) -> Iterator[PlannedRequest]:
        luck = random.Random(self._site.seed)
        workload = Workload(
            self._site.peak_per_second,
            self._serves_ns,
            classes=self._site.world.classes,
            seed=self._site.seed,
            max_prompt_tokens=self._site.world.max_prompt_tokens,
        )
        for plan in workload:
            over = (plan.arrival_ns - _START_NS) / 1e9 / self._seconds
            if over > 1:
                return
            if luck.random() < self._site.load(over):
                yield plan

    def snapshots(self) -> Iterator[Snapshot]:
        """One at every scrape."""
        self.pipeline.gpus_found(self._sensor.gpus())
        self.pipeline.host.found([HostDomain("package-0"), HostDomain("dram-0")])
        polls_each = round(SCRAPE_SECONDS / _POLL_SECONDS)
        settles_each = round(_SETTLE_SECONDS / _POLL_SECONDS)
        diagnoses_each = round(_DIAGNOSIS.diagnosis_seconds / _POLL_SECONDS)
        for poll in range(round(self._seconds / _POLL_SECONDS) + 1):
            self._poll(poll)
            if poll % settles_each == 0:
                self.pipeline.settle(self._clock.time_ns)
                self.pipeline.drain_finished()
                self._minutes.turn()
            if poll % diagnoses_each == 0:
                self._minutes.diagnoses.step()
            if poll % polls_each == 0:
                snapshot = self._minutes.beside(self.pipeline.snapshot(self._clock.time_ns))
                yield replace(
                    snapshot, multipliers=self._beside.multipliers(poll * _POLL_SECONDS / self._seconds)
                )

    def _poll(self, poll: int) -> None:
        before_ns = self._clock.time_ns
        now_ns = self._clock.time_ns = _START_NS + ns_from_seconds(poll * _POLL_SECONDS)
        hello_ns = _START_NS + ns_from_seconds(self._site.comes_after_seconds)
        if before_ns <= hello_ns < now_ns:
            for greeting in self.fleet.hellos(hello_ns):
                self.pipeline.take(greeting.session, (greeting,), now_ns)
        records = list(self.fleet.advance(now_ns))
        if hello_ns < now_ns <= self._serves_ns:
            loads = wire.Overhead(
                session=1, start_ns=max(before_ns, hello_ns), end_ns=now_ns, reason="startup"
            )
            records.append(loads)
        if now_ns > hello_ns:
            for record in records:
                if isinstance(record, wire.RequestStart) and self._site.adapters:
                    record.lora = _adapter_of(record.request_id)
                self.pipeline.take(record.session, (record,), now_ns)
        readings = [self._beside.of_gpu(each, now_ns) for each in self._sensor.read()]
        self.pipeline.read(readings)
        if poll % 5 == 0:
            drawn = sum(each.power_watts or 0.0 for each in readings)
            names = self.pipeline.sessions.engine_sessions()
            self.pipeline.host.read(self._beside.of_host(drawn, now_ns, next(iter(names), "")))


def _adapter_of(request_id: str) -> str:
    at = zlib.crc32(request_id.encode()) / 2**32
    for name, share in _ADAPTERS:
        at -= share
        if at < 0:
            return name
    return ""


@dataclass
class Beside:
    """What the simulation does not know, made up in proportion to power."""

    site: Site
    _luck: random.Random = field(init=False)
    _warm: dict[str, tuple[float, int]] = field(default_factory=dict)
    _joules: dict[str, float] = field(default_factory=lambda: {"package-0": 0.0, "dram-0": 0.0})
    _cpu: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    _host_ns: int = _START_NS

    def __post_init__(self) -> None:
        self._luck = random.Random(self.site.seed)

    def of_gpu(self, reading: GpuReading, now_ns: int) -> GpuReading:
        """The reading with clocks, temperature and performance counters."""
        limit = self.site.world.hardware.power_limit_watts
        busy = max(0.0, ((reading.power_watts or 0.0) - 100.0) / (limit - 100.0))
        celsius, then_ns = self._warm.get(reading.gpu, (41.0, now_ns))
        toward = 34.0 + 40.0 * busy
        celsius += (toward - celsius) * (1 - math.exp(-(now_ns - then_ns) / 60e9))
        self._warm[reading.gpu] = (celsius, now_ns)
        capped = busy > 0.9
        status = GpuStatus(
            gpu=reading.gpu,
            time_ns=now_ns,
            power_limit_watts=limit,
            sm_clock_hertz=(1980e6 - (240e6 * (busy - 0.9) / 0.1 if busy > 0.9 else 0.0)) // 15e6 * 15e6,
            memory_clock_hertz=2619e6,
            temperature_celsius=round(celsius),
            throttle_reasons=frozenset({"power_cap"}) if capped else frozenset(),
            graphics_active_ratio=min(1.0, 1.3 * busy),
            sm_active_ratio=min(0.97, 0.9 * busy + 0.02 * self._luck.random()),
            tensor_active_ratio=0.25 * busy,
            dram_active_ratio=min(0.9, 0.75 * math.sqrt(busy)) if busy else 0.0,
        )
        return replace(reading, status=status)

    def of_host(self, gpu_watts: float, now_ns: int, engine: str) -> HostReading:
        """CPU packages and memory: quiet, they draw 62 W and 9 W."""
        seconds, self._host_ns = (now_ns - self._host_ns) / 1e9, now_ns
        work = min(gpu_watts / 700.0, 2.0) if engine else 0.0
        self._joules["package-0"] += seconds * (62.0 + 48.0 * work + 6.0 * self._luck.random())
        self._joules["dram-0"] += seconds * (9.0 + 4.0 * work)
        busy = seconds * (0.9 + 5.0 * work)
        for at, more in enumerate((busy, seconds * 128, seconds * 4.4 * work)):
            self._cpu[at] += more
        times = CpuTimes(self._cpu[0], self._cpu[1], {engine: self._cpu[2]} if engine else {})
        return HostReading(now_ns, dict(self._joules), times)

    def multipliers(self, hour: float) -> Multipliers:
        """PUE, a grid whose intensity changes, and a price; the grid of one cluster is cleaner."""
        grams_per_kwh = (310.0 if self.site.cluster == "fra-1" else 265.0) - 60.0 * math.sin(2.2 * hour)
        return Multipliers(
            pue_ratio=_PUE,
            carbon_grams_per_joule=grams_per_kwh / 3.6e6,
            price_per_joule=_EURO_PER_KWH / 3.6e6,
            currency="EUR",
        )


def _write(site: Site, seconds: float, wall_ns: int, path: Path) -> None:
    """One sidecar's hour in OpenMetrics text with times, as ``promtool`` reads it back."""
    target = {"cluster": site.cluster, "instance": site.instance, "job": "joulescope"}
    with path.open("w", encoding="utf-8") as file:
        for number, snapshot in enumerate(Told(site, seconds, wall_ns).snapshots()):
            at = f"{snapshot.wall_seconds:.3f}"
            for metric in METRICS:
                for sample in family_of(metric, snapshot).samples:
                    file.write(_line(sample.name, {**sample.labels, **target}, sample.value, at))
            since = number * SCRAPE_SECONDS
            file.write(_line("process_cpu_seconds_total", target, 3.0 + 0.031 * since, at))
            file.write(_line("process_resident_memory_bytes", target, 88e6, at))
            file.write(_line("up", target, 1.0, at))


def _line(name: str, labels: dict[str, str], value: float, at: str) -> str:
    inside = ",".join(f"{key}={_quoted(text)}" for key, text in labels.items())
    return f"{name}{{{inside}}} {value!r} {at}\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def record(folder: Path, end_wall_seconds: float, seconds: float = SECONDS) -> None:
    """Writes blocks of a Prometheus database into ``folder``; needs ``promtool``."""
    folder.mkdir(parents=True, exist_ok=True)
    wall_ns = int((end_wall_seconds - seconds) * 1e9)
    parts = [folder / f"{site.instance.partition(':')[0]}.txt" for site in SITES]
    with ProcessPoolExecutor(2) as pool:
        running = [
            pool.submit(_write, site, seconds, wall_ns, path) for site, path in zip(SITES, parts, strict=True)
        ]
        for each in running:
            each.result()
    whole = folder / "recording.om"
    with whole.open("wb") as file:
        for path in parts:
            file.write(path.read_bytes())
            path.unlink()
        file.write(b"# EOF\n")
    subprocess.run(
        [
            "promtool",
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            "--quiet",
            str(whole),
            str(folder / "data"),
        ],
        check=True,
    )
