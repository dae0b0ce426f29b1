"""What a comparison is made of: parts as the sources tell them, points, sides, and what they come to.

Figures are SI: joules, watts, seconds. ``None`` is not known, never zero. Names of figures are those of
:data:`joulescope.insight.compare.figures.FIGURES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from joulescope.model import TOKEN

ENGINE = "engine"
"""Latencies and batch were seen in the engine: no network, no client."""
CLIENT = "client"
"""Seen by whoever sent the requests."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What served, as far as the source tells; empty or ``None``: it does not."""

    model: str = ""
    precision: str = ""
    gpu: str = ""
    gpu_count: int | None = None
    parallel: str = ""
    software: str = ""
    task: str = ""
    unit: str = TOKEN
    """What comes out: ``token``, ``image``, ``second of audio``."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the figures of a side come from, and by which rule."""

    format: str
    """``joulescope``, ``ml.energy``, ``vllm bench``, ``guidellm``, with the version where there is one."""
    path: str = ""
    method: str = ""
    """Of the division of joules among requests; empty where joules are only totals."""
    clock: str = ENGINE
    divided: bool = False
    """Joules are what a division charged to requests (a task's), not what a meter read of the GPUs."""


@dataclass(frozen=True, slots=True)
class Work:
    """Joules, what came out for them, and in what time."""

    joules: float | None
    units: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Mean:
    """A sum and how many it is of."""

    total: float
    count: float


@dataclass(frozen=True, slots=True)
class Requests:
    """What was asked for in a part: sums over the requests that ended in it."""

    count: int = 0
    failed: int = 0
    """Aborted by the client, or errored; joulescope counts them in ``count`` too, benchmarks do not."""
    unmeasured: int = 0
    prompt_tokens: float | None = None
    cached_tokens: float | None = None
    output_units: float | None = None
    tasks: Mapping[str, int] = field(default_factory=dict)


Key = tuple[str, str, int]
"""Source, engine and start of a minute (seconds since the epoch): in which part a request ended."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The times of one finished request, in seconds."""

    key: Key
    task: str
    e2e: float
    ttft: float | None
    tpot: float | None
    """Mean time from one unit of output to the next; ``None`` where fewer than two came out."""


@dataclass(frozen=True, slots=True)
class Part:
    """The smallest piece that a source tells of: a minute, a run of a benchmark, a batch of images.

    ``steady`` is work with idle left out, ``whole`` with all that was measured. ``batch`` is Σ running
    requests · seconds, over these seconds.
    """

    where: str
    steady: Work | None = None
    whole: Work | None = None
    batch: Mean | None = None
    gpu_seconds: float | None = None
    requests: Requests = Requests()
    latencies: Mapping[str, Mean] = field(default_factory=dict)
    """Means, by figure: ``itl``, ``ttft``, ``e2e``."""
    quantiles: Mapping[str, float] = field(default_factory=dict)
    """As the source gives them, by figure: ``ttft_p90`` and so on."""
    unattributed_joules: float = 0.0
    group: str = ""
    """Parts of one group are one operating point; empty: parts of about one batch are."""
    lasted: bool = True
    """False: the source tells rates only, and ``steady`` is that of one second."""
    ramp: bool = False
    """The load begins or ends in it: it belongs to the whole, and to no point."""
    key: Key | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and the interval that should hold it in 90 % of cases; no ends: how sure is not known."""

    value: float
    low: float | None = None
    high: float | None = None

    def scaled(self, factor: float) -> Figure:
        return Figure(
            self.value * factor,
            None if self.low is None else self.low * factor,
            None if self.high is None else self.high * factor,
        )


@dataclass(frozen=True, slots=True)
class Point:
    """One operating point: what parts under about one load come to."""

    where: str
    figures: Mapping[str, Figure]
    parts: int
    requests: int
    gpu_hours: float | None
    seconds: float | None
    units: float | None

    def value(self, name: str) -> float | None:
        figure = self.figures.get(name)
        return None if figure is None else figure.value


@dataclass(frozen=True, slots=True)
class Mix:
    """What was asked for; ``None`` where the source does not tell."""

    tasks: Mapping[str, float] = field(default_factory=dict)
    """Share of requests by task; empty where tasks are not told apart."""
    prompt_tokens: float | None = None
    output_units: float | None = None
    cached_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """What speaks against taking a side's figures at face value."""

    failed_ratio: float = 0.0
    unmeasured_ratio: float = 0.0
    unattributed_ratio: float = 0.0
    steady_seconds: float | None = None
    remarks: tuple[str, ...] = ()
    """Of the source itself."""


@dataclass(frozen=True, slots=True)
class Source:
    """What was read from one source about one setup, before it is made a side."""

    setup: Setup
    origin: Origin
    parts: tuple[Part, ...]
    remarks: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()
    """Single requests, where they are known and asked for."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that are compared."""

    name: str
    setup: Setup
    origin: Origin
    points: tuple[Point, ...]
    """By batch where it is known, else in the order of the source."""
    whole: Point
    mix: Mix
    quality: Quality


@dataclass(frozen=True, slots=True)
class At:
    """A side at the value that all are matched on."""

    figures: Mapping[str, Figure]
    between: tuple[Point, ...]
    """The points it was interpolated between; one where it lies on a point."""
    form: Mapping[str, float] = field(default_factory=dict)
    """By figure, how far another way between the two points would lead, relative: an error of the form."""
    crossings: int = 1
    """How often the value is met along the side's points; the cheapest is taken."""


@dataclass(frozen=True, slots=True)
class Outside:
    """The side was not observed at that value."""

    low: float | None
    high: float | None
    """What it was observed at; ``None``: the figure is not known of it at all."""


@dataclass(frozen=True, slots=True)
class Match:
    """All sides at one value of one figure."""

    figure: str
    value: float
    sides: Mapping[str, At | Outside]
    within: Mapping[str, Point]
    """By side, the cheapest observed point that is no slower; only where the figure is a latency."""


@dataclass(frozen=True, slots=True)
class Warn:
    """Why figures of two sides should not be laid side by side, or only with care."""

    code: str
    sides: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that is shown. The first side is what the others are compared with."""

    sides: tuple[Side, ...]
    matches: tuple[Match, ...]
    frontier: tuple[tuple[str, Point], ...]
    """Points that no other beats in both inter-token time and joules, fastest first."""
    warnings: tuple[Warn, ...]
    unmatched: tuple[str, ...] = ()
    """Why sides could not be matched."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """What could not be read, by reason."""
    shown: tuple[str, ...] = ()
    """Figures that tables show beside the usual ones."""
