"""The columns of GPUs and engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from joulescope.model import EngineTotals, GpuStatus, GpuTotals, Snapshot
from joulescope.terminal.glyphs import DASH, clean, count, figure, joules_unit, percent, small
from joulescope.terminal.history import EngineNow, GpuNow, History, engine_now, gpu_now
from joulescope.terminal.tables import Column, shown

_ALMOST_FULL = 0.95
_HOT_CELSIUS = 85.0
_DEARER, _MUCH_DEARER, _SURE = 1.1, 1.2, 3.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU and how its joules of the last seconds divide."""

    totals: GpuTotals
    now: GpuNow

    @property
    def name(self) -> str:
        info = self.totals.info
        index = "" if info.index is None else f"{info.index} "
        return index + clean(info.name.removeprefix("NVIDIA ") or info.gpu)

    @property
    def status(self) -> GpuStatus | None:
        reading = self.totals.reading if self.totals.up else None
        return None if reading is None else reading.status

    @property
    def watts(self) -> float | None:
        reading = self.totals.reading if self.totals.up else None
        return None if reading is None else reading.power_watts

    @property
    def power_text(self) -> str:
        """Power and limit. A MIG instance has no power of its own to show."""
        if self.totals.info.parent:
            return "MIG"
        if self.watts is None:
            return "no reading"
        status = self.status
        limit = status.power_limit_watts if status is not None else None
        limit = limit or self.totals.info.power_limit_watts
        return f"{self.watts:.0f} W" if limit is None else f"{self.watts:.0f}/{limit:.0f} W"

    @property
    def utilization(self) -> float | None:
        """SM activity where performance counters tell it, else what the driver calls utilisation."""
        reading = self.totals.reading if self.totals.up else None
        if reading is None:
            return None
        active = None if reading.status is None else reading.status.sm_active_ratio
        return reading.sm_utilization_ratio if active is None else active

    @property
    def memory_text(self) -> str:
        reading = self.totals.reading if self.totals.up else None
        used = None if reading is None else reading.memory_used_bytes
        total = self.totals.info.memory_total_bytes
        if used is None:
            return DASH
        return f"{used / 2**30:.0f} GiB" if total is None else f"{used / 2**30:.0f}/{total / 2**30:.0f} GiB"

    @property
    def held_back(self) -> str:
        """What holds its clocks back; empty where nothing does or it is not known."""
        reasons = None if self.status is None else self.status.throttle_reasons
        return ",".join(sorted(reasons or ()))


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine and what it did of late."""

    totals: EngineTotals
    now: EngineNow
    index: float | None = None
    """What its work cost over what the same work should have cost, of late."""

    @property
    def index_style(self) -> str:
        """Stands out where the work costs more than usual, by more than the expected figure is sure of."""
        baseline = self.totals.baseline
        if self.index is None or baseline is None:
            return ""
        unsure = 1.0 + _SURE * (baseline.error_ratio or 0.0)
        return (
            "bold red"
            if self.index > max(_MUCH_DEARER, unsure)
            else ("yellow" if self.index > max(_DEARER, unsure) else "")
        )

    @property
    def name(self) -> str:
        return clean(self.totals.info.engine)

    @property
    def model(self) -> str:
        info = self.totals.info
        return clean(info.served_model or info.model or info.software)


def gpu_rows(snapshot: Snapshot, earlier: Snapshot | None) -> list[Gpu]:
    return [Gpu(each, gpu_now(each, earlier)) for each in snapshot.gpus]


def engine_rows(snapshot: Snapshot, history: History) -> list[Engine]:
    earlier = history.earlier()
    return [
        Engine(each, engine_now(each, snapshot, earlier), history.index_of(each.info.engine))
        for each in snapshot.engines
    ]


def needed_engine_columns(rows: Sequence[Engine]) -> list[Column[Engine]]:
    """Without the baseline where none is compared with one."""
    compared = any(row.totals.baseline is not None for row in rows)
    return [column for column in ENGINE_COLUMNS if compared or column.name not in ("index", "learned")]


GPU_COLUMNS: tuple[Column[Gpu], ...] = (
    Column[Gpu](
        "gpu",
        "GPU",
        lambda row: row.name,
        20,
        left=True,
        grows=12,
        value=lambda row: row.totals.info.gpu,
        ascending=True,
    ),
    Column[Gpu](
        "power",
        "power",
        lambda row: row.power_text,
        11,
        value=lambda row: row.watts,
        style=lambda row: "red" if row.power_text == "no reading" else "bold",
    ),
    shown("utilization", "util", lambda row: row.utilization, percent, 5, rank=1),
    Column[Gpu]("memory", "memory", lambda row: row.memory_text, 10, rank=4),
    shown("attributed", "attrib", lambda row: row.now.attributed_ratio, percent, 6, rank=2),
    shown("idle", "idle", lambda row: row.now.idle_ratio, percent, 5, rank=1),
    shown("measured", "measured", lambda row: row.totals.measured_joules, joules_unit, 9, rank=3),
    Column[Gpu](
        "temperature",
        "temp",
        lambda row: figure(row.status.temperature_celsius if row.status else None, 0, "C"),
        5,
        rank=5,
        style=lambda row: "yellow" if _is_hot(row) else "",
    ),
    Column[Gpu](
        "clock",
        "SM clock",
        lambda row: _megahertz(row.status),
        8,
        rank=6,
        value=lambda row: _hertz(row.status),
    ),
    Column[Gpu](
        "dram", "DRAM", lambda row: percent(row.status.dram_active_ratio if row.status else None), 5, rank=7
    ),
    Column[Gpu](
        "held_back",
        "held back by",
        lambda row: row.held_back or DASH,
        12,
        rank=8,
        left=True,
        grows=24,
        style=lambda row: "yellow" if row.held_back else "",
    ),
)

ENGINE_COLUMNS: tuple[Column[Engine], ...] = (
    Column[Engine](
        "engine",
        "engine",
        lambda row: row.name,
        11,
        left=True,
        grows=13,
        value=lambda row: row.name,
        ascending=True,
        middle=True,
        style=lambda row: "" if row.totals.up else "red",
    ),
    Column[Engine](
        "model", "model", lambda row: row.model, 16, rank=9, left=True, grows=30, value=lambda row: row.model
    ),
    Column[Engine](
        "running",
        "run",
        lambda row: count(row.totals.running) if row.totals.up else "gone",
        4,
        value=lambda row: row.totals.running,
        style=lambda row: "bold" if row.totals.up else "red",
    ),
    shown(
        "waiting",
        "wait",
        lambda row: row.totals.waiting,
        count,
        4,
        style=lambda row: "yellow" if row.totals.waiting else "",
    ),
    shown(
        "kv",
        "KV",
        lambda row: row.totals.kv_usage_ratio,
        percent,
        5,
        rank=1,
        style=lambda row: "yellow" if (row.totals.kv_usage_ratio or 0.0) > _ALMOST_FULL else "",
    ),
    Column[Engine](
        "batch",
        "batch",
        lambda row: count(row.totals.batch_tokens if row.totals.up else None),
        5,
        rank=4,
        value=lambda row: row.totals.batch_tokens,
    ),
    shown("outputs", "{unit}/s", lambda row: row.now.outputs_per_second, count, 8, rank=5),
    Column[Engine](
        "prefill",
        "prefill",
        lambda row: figure(row.now.prefill_watts, 0, "W"),
        7,
        rank=3,
        value=lambda row: row.now.prefill_watts,
    ),
    Column[Engine](
        "decode",
        "decode",
        lambda row: figure(row.now.decode_watts, 0, "W"),
        7,
        rank=3,
        value=lambda row: row.now.decode_watts,
    ),
    shown(
        "per_output",
        "J/{unit}",
        lambda row: row.now.joules_per_output,
        small,
        8,
        style=lambda row: "bold green",
    ),
    shown("per_output_ever", "ever", lambda row: row.now.joules_per_output_ever, small, 6, rank=2),
    Column[Engine](
        "next",
        "next J",
        lambda row: small(row.totals.next_token_joules if row.totals.up else None),
        6,
        rank=6,
        value=lambda row: row.totals.next_token_joules,
    ),
    Column[Engine](
        "index",
        "index",
        lambda row: figure(row.index, 2),
        5,
        rank=1,
        value=lambda row: row.index,
        style=lambda row: row.index_style,
    ),
    Column[Engine](
        "learned",
        "learned",
        lambda row: percent(row.totals.baseline.learned_ratio if row.totals.baseline else None),
        7,
        rank=10,
    ),
    shown("joules", "joules", lambda row: sum(row.totals.attributed_joules.values()), joules_unit, 9, rank=7),
    shown("finished", "finished", lambda row: sum(row.totals.requests_finished.values()), count, 8, rank=8),
    shown("preempted", "preempt", lambda row: row.totals.preemptions, count, 7, rank=8),
)


def _is_hot(row: Gpu) -> bool:
    return row.status is not None and (row.status.temperature_celsius or 0.0) >= _HOT_CELSIUS


def _hertz(status: GpuStatus | None) -> float | None:
    return None if status is None else status.sm_clock_hertz


def _megahertz(status: GpuStatus | None) -> str:
    hertz = _hertz(status)
    return figure(None if hertz is None else hertz / 1e6, 0, "MHz")
