"""What is kept of past readings: for rates of the last seconds and sparklines of the last minutes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from joulescope.model import EngineTotals, GpuTotals, OpenRequest, Snapshot
from joulescope.terminal.source import Reading

RATES_NS = 10_000_000_000
"""Rates are taken over so long: joules are settled half a second at a time, and a batch comes and goes."""

MIN_RATES_NS = 2_000_000_000
"""Over less a rate says more of when joules were settled than of how many."""

INDEX_SECONDS = 60.0
"""The index of efficiency is taken over so long."""

KEPT_NS = 600_000_000_000
MAX_POINTS = 8192

RequestKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Point:
    """What a sparkline needs of one reading."""

    time_ns: int
    life: int
    """Counters of different lives are not comparable: the sidecar was restarted between them."""
    watts: float | None
    attributed_joules: float
    generated: int
    baselines: Mapping[str, tuple[float, float]]
    """By engine: actual and expected joules of the work that was compared."""


def key_of(request: OpenRequest) -> RequestKey:
    return request.engine, request.request_id


class History:
    """Past readings of one source, oldest first; bounded in time and number."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=MAX_POINTS)
        self._snapshots: deque[Snapshot] = deque()
        self._requests: deque[tuple[int, dict[RequestKey, float]]] = deque()
        self._life = 0

    def add(self, reading: Reading) -> None:
        """Takes in a reading; one that says what is known already changes nothing."""
        snapshot = reading.snapshot
        latest = self._snapshots[-1] if self._snapshots else None
        if latest is not None and _another_life(latest, snapshot):
            self._life += 1
            self._snapshots.clear()
            self._requests.clear()
            latest = None
            if self._points and self._points[-1].time_ns >= snapshot.time_ns:
                self._points.clear()  # the machine was restarted, and its clock with it
        if latest is not None and snapshot.time_ns <= latest.time_ns:
            return
        self._snapshots.append(snapshot)
        self._points.append(_point(snapshot, self._life))
        if reading.requests is not None:
            joules = {
                key_of(each): each.attributed_joules
                for each in reading.requests.open
                if each.attributed_joules is not None
            }
            self._requests.append((reading.requests.time_ns, joules))
        while snapshot.time_ns - self._points[0].time_ns > KEPT_NS:
            self._points.popleft()
        while snapshot.time_ns - self._snapshots[0].time_ns > RATES_NS:
            self._snapshots.popleft()
        while self._requests and snapshot.time_ns - self._requests[0][0] > RATES_NS // 2:
            self._requests.popleft()

    def copy(self) -> History:
        """What is kept now, which does not grow: for a view that is paused."""
        copied = History()
        copied._points = self._points.copy()
        copied._snapshots = self._snapshots.copy()
        copied._requests = self._requests.copy()
        copied._life = self._life
        return copied

    @property
    def seconds(self) -> float:
        """How far back it goes."""
        return (self._points[-1].time_ns - self._points[0].time_ns) / 1e9 if self._points else 0.0

    def earlier(self) -> Snapshot | None:
        """The snapshot that rates are taken against; ``None`` while there is none old enough."""
        if self._snapshots and self._snapshots[-1].time_ns - self._snapshots[0].time_ns >= MIN_RATES_NS:
            return self._snapshots[0]
        return None

    def watts_of(self, request: OpenRequest, time_ns: int) -> float | None:
        """What a request has drawn of late; ``None`` where it is too young to say."""
        key = key_of(request)
        for before_ns, joules in self._requests:
            if time_ns - before_ns < MIN_RATES_NS:
                break
            if key in joules and request.attributed_joules is not None:
                return (request.attributed_joules - joules[key]) * 1e9 / (time_ns - before_ns)
        return None

    def index_of(self, engine: str) -> float | None:
        """Actual over expected joules of the last minute's work; ``None`` where too little was compared."""
        if not self._points or engine not in self._points[-1].baselines:
            return None
        latest = self._points[-1]
        for point in self._points:
            seconds = (latest.time_ns - point.time_ns) / 1e9
            if point.life == latest.life and engine in point.baselines and seconds <= INDEX_SECONDS:
                actual = latest.baselines[engine][0] - point.baselines[engine][0]
                expected = latest.baselines[engine][1] - point.baselines[engine][1]
                return actual / expected if expected > 0 and actual >= 0 else None
        return None

    def watts(self, columns: int, seconds: float) -> list[float | None]:
        """Mean power in each of ``columns`` equal stretches of the last ``seconds``, oldest first."""
        return [_mean_watts(points) for points in self._stretches(columns, seconds)]

    def joules_per_output(self, columns: int, seconds: float) -> list[float | None]:
        """Attributed joules per unit of output in each stretch; ``None`` where nothing came out."""
        figures: list[float | None] = []
        before: Point | None = None
        for points in self._stretches(columns, seconds):
            figures.append(_per_output(before, points))
            before = points[-1] if points else before
        return figures

    def _stretches(self, columns: int, seconds: float) -> list[list[Point]]:
        """The points by stretch. Stretches stand still in time, so that a line moves as a whole."""
        stretches: list[list[Point]] = [[] for _ in range(columns)]
        if not self._points or columns < 1:
            return stretches
        width_ns = max(int(seconds * 1e9) // columns, 1)
        last = self._points[-1].time_ns // width_ns
        for point in self._points:
            column = columns - 1 - (last - point.time_ns // width_ns)
            if column >= 0:
                stretches[column].append(point)
        return stretches


def _another_life(before: Snapshot, after: Snapshot) -> bool:
    return before.sidecar.start_wall_seconds != after.sidecar.start_wall_seconds


def _point(snapshot: Snapshot, life: int) -> Point:
    return Point(
        time_ns=snapshot.time_ns,
        life=life,
        watts=total_watts(snapshot.gpus),
        attributed_joules=sum(gpu.attributed_joules for gpu in snapshot.gpus),
        generated=sum(engine.tokens.get("generated", 0) for engine in snapshot.engines),
        baselines={
            engine.info.engine: (engine.baseline.actual_joules, engine.baseline.expected_joules)
            for engine in snapshot.engines
            if engine.baseline is not None
            and engine.baseline.actual_joules is not None
            and engine.baseline.expected_joules is not None
        },
    )


def _mean_watts(points: Sequence[Point]) -> float | None:
    known = [point.watts for point in points if point.watts is not None]
    return sum(known) / len(known) if known else None


def _per_output(before: Point | None, points: Sequence[Point]) -> float | None:
    if not points:
        return None
    first = before if before is not None and before.life == points[-1].life else points[0]
    outputs = points[-1].generated - first.generated
    joules = points[-1].attributed_joules - first.attributed_joules
    return joules / outputs if outputs > 0 and joules > 0 else None


def total_watts(gpus: Iterable[GpuTotals]) -> float | None:
    """Power of all GPUs that answer; ``None`` if none does."""
    known = [gpu.reading.power_watts for gpu in gpus if gpu.up and gpu.reading is not None]
    watts = [each for each in known if each is not None]
    return sum(watts) if watts else None


@dataclass(frozen=True, slots=True)
class EngineNow:
    """What one engine did of late. ``None`` where it is not known yet."""

    prefill_watts: float | None = None
    decode_watts: float | None = None
    joules_per_output: float | None = None
    """Of the last seconds."""
    joules_per_output_ever: float | None = None
    """Since the sidecar met it."""
    outputs_per_second: float | None = None
    steps_per_second: float | None = None


def engine_now(engine: EngineTotals, snapshot: Snapshot, earlier: Snapshot | None) -> EngineNow:
    """The engine's figures since ``earlier``."""
    ever = _ratio(sum(engine.attributed_joules.values()), engine.tokens.get("generated", 0))
    before = _same_engine(engine, earlier)
    if before is None or earlier is None:
        return EngineNow(joules_per_output_ever=ever)
    seconds = (snapshot.time_ns - earlier.time_ns) / 1e9
    phases = {phase: _phase(engine, phase) - _phase(before, phase) for phase in ("prefill", "decode")}
    outputs = engine.tokens.get("generated", 0) - before.tokens.get("generated", 0)
    return EngineNow(
        prefill_watts=phases["prefill"] / seconds,
        decode_watts=phases["decode"] / seconds,
        joules_per_output=_ratio(sum(phases.values()), outputs),
        joules_per_output_ever=ever,
        outputs_per_second=outputs / seconds,
        steps_per_second=(engine.steps - before.steps) / seconds,
    )


def _same_engine(engine: EngineTotals, earlier: Snapshot | None) -> EngineTotals | None:
    engines = earlier.engines if earlier is not None else ()
    return next((each for each in engines if each.info.engine == engine.info.engine), None)


def _phase(engine: EngineTotals, phase: str) -> float:
    return sum(joules for (_, each), joules in engine.attributed_joules.items() if each == phase)


def _ratio(joules: float, outputs: int) -> float | None:
    return joules / outputs if joules > 0 and outputs > 0 else None


@dataclass(frozen=True, slots=True)
class GpuNow:
    """How a GPU's joules of the last seconds divide, ratios 0..1; ``None`` where none were measured."""

    attributed_ratio: float | None = None
    idle_ratio: float | None = None


def gpu_now(gpu: GpuTotals, earlier: Snapshot | None) -> GpuNow:
    """The GPU's shares since ``earlier``; of all its joules where there is no earlier one."""
    gpus = earlier.gpus if earlier is not None else ()
    before = next((each for each in gpus if each.info.gpu == gpu.info.gpu), None)

    def since(figure: Callable[[GpuTotals], float]) -> float:
        return figure(gpu) - (figure(before) if before is not None else 0.0)

    measured = since(lambda each: each.measured_joules)
    if measured <= 0:
        return GpuNow()
    return GpuNow(
        attributed_ratio=since(lambda each: each.attributed_joules) / measured,
        idle_ratio=since(lambda each: each.idle_joules) / measured,
    )
