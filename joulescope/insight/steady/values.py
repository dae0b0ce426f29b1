"""What is asked of an engine, what serves it, and how that goes in the long run."""

from __future__ import annotations

from dataclasses import dataclass, fields

from joulescope.minute_model import Laws, Limits


@dataclass(frozen=True, slots=True)
class LengthClass:
    """Requests of about one length, in tokens."""

    weight: float
    """Part of the requests, relative to the other classes."""
    prompt_tokens: float
    output_tokens: float
    cached_tokens: float = 0.0
    """Of the prompt, found in the prefix cache. They take room in the KV cache once for all who share them:
    see :attr:`Workload.shared_tokens`."""
    task: str = ""
    """Which task class they are of; how they are served does not depend on it."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What clients ask for. Exactly one of ``arrivals_per_second`` and ``concurrency`` is given."""

    classes: tuple[LengthClass, ...]
    arrivals_per_second: float | None = None
    """Mean rate of requests that come whenever they like (a Poisson process)."""
    concurrency: float | None = None
    """So many clients, each with one request at a time and another at once. ``inf``: a queue that never
    empties."""
    shared_tokens: float = 0.0
    """KV cache that shared prefixes take."""

    def __post_init__(self) -> None:
        if (self.arrivals_per_second is None) == (self.concurrency is None):
            raise ValueError("a workload has either arrivals_per_second or concurrency")
        load = self.arrivals_per_second if self.concurrency is None else self.concurrency
        if load is None or not load >= 0.0:
            raise ValueError(f"a workload's load must not be negative, got {load}")
        if not sum(each.weight for each in self.classes) > 0.0:
            raise ValueError("a workload needs a class of requests with a weight above 0")
        for each in self.classes:
            if each.weight < 0.0 or each.prompt_tokens < 0.0 or not each.output_tokens >= 0.0:
                raise ValueError(f"weights and lengths must not be negative, got {each}")


@dataclass(frozen=True, slots=True)
class Link:
    """What talking to other GPUs adds to each step, beyond what the laws were fitted with."""

    seconds_per_step: float = 0.0
    seconds_per_token: float = 0.0
    joules_per_token: float = 0.0
    """Of one GPU."""


@dataclass(frozen=True, slots=True)
class Service:
    """What serves: one engine."""

    laws: Laws
    limits: Limits
    gpu_count: int = 1
    tokens_per_pass: float = 1.0
    """Tokens that a decoding request gets of a step; above 1 with speculative decoding."""
    drafted_per_pass: float = 0.0
    """Tokens that are drafted for it, and computed beside the one that it gets in any case."""
    pipeline_parallel: int = 1
    flights: float | None = None
    """Steps under way at a time in a pipeline, where many run; ``None``: one for each stage. What stages wait
    for want of them is no part of the laws' ``wait_seconds``."""
    async_scheduling: bool = True
    """Whether a step is scheduled while the one before still runs; moves the first token only."""
    link: Link = Link()


@dataclass(frozen=True, slots=True)
class Parts:
    """Where joules (or watts) of all GPUs go; their sum is the whole."""

    static: float = 0.0
    """Static power while steps run."""
    weights: float = 0.0
    kv: float = 0.0
    flops: float = 0.0
    sequences: float = 0.0
    waiting: float = 0.0
    """While GPUs wait for the host, or for the other pipeline stages, with requests running."""
    idle: float = 0.0
    """While no request runs."""
    links: float = 0.0
    """Moving activations between GPUs, where :attr:`Service.link` says what that takes."""

    @property
    def total(self) -> float:
        return float(sum(getattr(self, each.name) for each in fields(self)))

    def times(self, factor: float) -> Parts:
        return Parts(*(factor * getattr(self, each.name) for each in fields(self)))


@dataclass(frozen=True, slots=True)
class Operation:
    """How an engine fares in the long run. ``None``: not defined, for nothing comes out or a queue grows."""

    batch: float
    """Mean running requests while any runs, as a step finds them."""
    running: float
    """Mean running requests at any time."""
    step_seconds: float
    """Mean time of the GPUs' work on a step."""
    wait_seconds: float
    """Mean time that they wait for the next."""
    inter_token_seconds: float
    """Mean time from token to token, as requests see it."""
    first_token_seconds: float | None
    """Mean time from arrival to first token, the queue included; ``None`` while the queue grows."""
    queue_seconds: float | None
    """Of that, in the queue."""
    intake_seconds: float
    """Of that, until the engine looks up from the step under way and takes the request in: what it tells of
    itself begins there."""
    tokens_per_second: float
    """Tokens that come out."""
    requests_per_second: float
    watts: float
    """Mean power of all GPUs."""
    joules_per_token: Parts | None
    """By token that comes out."""
    recompute_joules_per_token: float
    """Contained in the parts: what computing again after preemptions costs."""
    prefill_joules_per_token: float
    """Contained in the parts: what prompts add to steps."""
    busy_ratio: float
    """Part of the time in which any request runs."""
    kv_usage_ratio: float | None
    """Mean use of the KV cache while any request runs, 0..1; ``None`` where its size is not known."""
    kv_full_ratio: float
    """Part of the time in which the KV cache holds requests back."""
    preemptions_per_second: float
    saturated: bool
    """Whether more comes than can be served, or clients wait for each other."""
    capacity_requests_per_second: float
    """What it would serve if requests never ran out."""
