"""Parts of the daemon as the settings ask for them, and its account in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

from joulescope.attribution.efficiencies import Efficiencies
from joulescope.baselines.store import BaselineFolder
from joulescope.clock import Clock, WallAnchor
from joulescope.config import Settings
from joulescope.daemon.baseline_keeper import BaselineKeeper
from joulescope.daemon.label_rules import policy_of
from joulescope.export import RequestSink
from joulescope.export.web_config_rules import WebRules
from joulescope.ingest.trace import TraceWriter
from joulescope.model import GpuTotals
from joulescope.pipeline import Pipeline, Scope
from joulescope.sampling.power import poll_hertz
from joulescope.sampling.sampler import Sampler, SamplerEvent
from joulescope.sampling.timer import DeadlineTimer
from joulescope.sensors import Sensor
from joulescope.units import ns_from_seconds


def balance_line(gpu: GpuTotals) -> str:
    """The account of one GPU in a line, joules to the microjoule."""
    overhead_joules, lost_joules = sum(gpu.overhead_joules.values()), sum(gpu.unattributed_joules.values())
    return (
        f"{gpu.info.gpu}: measured {gpu.measured_joules:.6f} J = attributed {gpu.attributed_joules:.6f}"
        f" + idle {gpu.idle_joules:.6f} + overhead {overhead_joules:.6f} + unattributed {lost_joules:.6f},"
        f" residual {gpu.residual_joules:.6f}"
    )


def outcomes_of(sinks: Iterable[RequestSink]) -> dict[tuple[str, str], int]:
    """What became of requests, by exporter and outcome."""
    return {(sink.name, outcome): count for sink in sinks for outcome, count in sink.counts().items()}


def pipeline_of(
    settings: Settings, wall: WallAnchor | None, recorder: TraceWriter | None, keeper: BaselineKeeper
) -> Pipeline:
    anchor = wall or WallAnchor.now()
    efficiencies = Efficiencies(
        keeper.find,
        learn_seconds=settings.baseline_learn_seconds,
        wall_seconds=lambda time_ns: anchor.wall_of(time_ns) / 1e9,
    )
    return Pipeline(
        policy_of(settings),
        Scope(all_gpus=settings.gpus == "all", uuids=settings.gpu_uuids),
        window_ns=ns_from_seconds(settings.window_seconds),
        wall=anchor,
        calibration=settings.calibration_factor,
        recorder=recorder,
        efficiencies=efficiencies,
        minutes=True,
    )


def keeper_of(settings: Settings) -> BaselineKeeper:
    folder = settings.baseline_dir
    return BaselineKeeper(None if folder is None else BaselineFolder(Path(folder)))


def sampler_of(
    settings: Settings,
    open_sensor: Callable[[], Sensor],
    clock: Clock,
    deliver: Callable[[SamplerEvent], None],
) -> Sampler:
    return Sampler(
        open_sensor,
        DeadlineTimer(clock, 1.0 / settings.sample_hz, Random()),
        clock,
        deliver,
        period_of=lambda gpus: 1.0 / poll_hertz(gpus, settings.sample_hz, settings.power_sample_hz),
    )


def rules_of(settings: Settings, clock: Clock) -> WebRules:
    """Who may ask, and over what."""
    file = settings.web_config_file
    return WebRules(None if file is None else Path(file), clock)
