"""The cases of the benchmark of diagnoses: which services, and what changes between their windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.planted import Case, Plant
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.workload import CODE, RequestClass
from joulescope.simulation.worlds import H100_LLAMA_8B, WORLDS

_GROWING = RequestClass("growing", 0.6, 150, 0.5, 350, 0.6, 1024)
_ROOMY = replace(
    H100_LLAMA_8B,
    classes=(_GROWING, replace(CODE, weight=0.4)),
    limits=EngineLimits(kv_cache_tokens=80_000),
)
"""A service whose KV cache has place enough, until it is cut."""

_ASSIST = RequestClass("assist", 1.0, 300, 0.5, 90, 0.6, 512, prefix_tokens=2400, prefixes=4, acceptance=0.45)
_ALIKE = replace(H100_LLAMA_8B, classes=(_ASSIST,))
"""A service of one task; another that is put in its place has prompts and answers of the same lengths."""

_ALIKE_DRAFTED = replace(WORLDS["speculative"], classes=(replace(_ASSIST, output_median=260),))

_ONE: tuple[Case, ...] = (
    Case("mix: longer prompts", (Plant("mix", 0.6),), rate=4.0),
    Case("mix: another task", (Plant("mix", 0.3),), labelled=True),
    Case(
        "mix: another task of the same lengths",
        (Plant("share", 0.7),),
        world=_ALIKE,
        rate=10.0,
        labelled=True,
    ),
    Case(
        "mix: a task whose drafts are accepted", (Plant("drafted", 0.7),), world=_ALIKE_DRAFTED, labelled=True
    ),
    Case("load: a quarter of the requests", (Plant("load", 0.25),)),
    Case("load: twice the requests", (Plant("load", 2.0),)),
    Case("load: in bursts", (Plant("duty", 0.3),), rate=2.0),
    Case("batch limit 12", (Plant("batch", 12),)),
    Case("KV cache cut to a tenth", (Plant("kv", 0.1),), world=_ROOMY, rate=14.0),
    Case("KV cache cut, with shared prefixes", (Plant("kv", 0.1),), rate=12.0),
    Case("prefix cache lost", (Plant("cache", 1.0),)),
    Case("prefix cache lost in part", (Plant("cache", 0.5),), world=WORLDS["prefix-heavy"]),
    Case("drafts accepted less", (Plant("acceptance", 0.4),), world=WORLDS["speculative"]),
    Case("host slower", (Plant("host", 3.0),)),
    Case("host slower, host-bound", (Plant("host", 2.0),), world=WORLDS["host-bound"]),
    Case("clocks down", (Plant("clocks", 0.7),)),
    Case("power cap", (Plant("cap", 0.6),)),
    Case("two GPUs", (Plant("layout", 2),)),
    Case("FP8", (Plant("precision", 0.55),)),
    Case("kernels slower", (Plant("kernels", 1.2),)),
    Case("GPU hungrier", (Plant("power", 1.2),)),
)

_SEVERAL: tuple[Case, ...] = (
    Case("half the load, slower kernels", (Plant("load", 0.5), Plant("kernels", 1.2))),
    Case("longer prompts, prefix cache lost", (Plant("mix", 0.6), Plant("cache", 1.0)), rate=4.0),
    Case(
        "longer prompts, prefix cache lost, with tasks",
        (Plant("mix", 0.6), Plant("cache", 1.0)),
        rate=4.0,
        labelled=True,
    ),
    Case(
        "another task, drafts accepted less",
        (Plant("drafted", 0.7), Plant("acceptance", 0.5)),
        world=_ALIKE_DRAFTED,
        labelled=True,
    ),
    Case("smaller KV cache, more load", (Plant("kv", 0.1), Plant("load", 2.0)), world=_ROOMY),
    Case("clocks down, less load", (Plant("clocks", 0.7), Plant("load", 0.5))),
    Case("FP8, twice the load", (Plant("precision", 0.55), Plant("load", 2.0))),
    Case("host slower, longer prompts", (Plant("host", 3.0), Plant("mix", 0.6)), rate=4.0),
    Case(
        "clocks down, slower kernels, less load",
        (Plant("clocks", 0.8), Plant("kernels", 1.2), Plant("load", 0.5)),
    ),
)

_OTHER_CLIENTS: tuple[Case, ...] = (
    Case("kernels slower, other clients", (Plant("kernels", 1.2),), seeds=(1, 2)),
    Case("clocks down, other clients", (Plant("clocks", 0.7),), seeds=(1, 2)),
    Case("half the load, other clients", (Plant("load", 0.5),), seeds=(1, 2)),
)

_WAITING: tuple[Case, ...] = (
    Case("closed loop: clocks down", (Plant("clocks", 0.7),), clients=16),
    Case("closed loop: host slower", (Plant("host", 3.0),), clients=16),
    Case("closed loop: kernels slower", (Plant("kernels", 1.2),), clients=32),
    Case("closed loop: half the clients", (Plant("clients", 0.5),), clients=16),
    Case("closed loop: longer prompts", (Plant("mix", 0.4),), clients=24),
    Case(
        "closed loop: clocks down, half the clients",
        (Plant("clocks", 0.7), Plant("clients", 0.5)),
        clients=24,
    ),
)
"""Clients that wait for answers: fewer requests of a slower engine are no cause."""

_OTHER_FORMS: tuple[Case, ...] = (
    Case("clocks that fall at the cap: half the load", (Plant("load", 0.5),), world=WORLDS["dvfs"]),
    Case("mixture of experts: half the load", (Plant("load", 0.5),), world=WORLDS["moe"]),
    Case("leakage that follows heat: GPU hungrier", (Plant("power", 1.2),), world=WORLDS["thermal"]),
    Case("soft roofline: twice the load", (Plant("load", 2.0),), world=WORLDS["blended-roofline"]),
)
"""Worlds in which steps do not cost what the fitted model can say."""

_UNSEEN: tuple[Case, ...] = (
    Case("unseen A: kernels much slower", (Plant("kernels", 1.4),), rate=6.0, seeds=(21, 21)),
    Case("unseen B: KV cache cut to a sixth", (Plant("kv", 0.16),), world=_ROOMY, rate=16.0, seeds=(22, 22)),
    Case("unseen A: host slower", (Plant("host", 2.0),), rate=12.0, seeds=(23, 23)),
    Case("unseen B: clocks down a little", (Plant("clocks", 0.85),), rate=10.0, seeds=(24, 25)),
    Case("unseen A: batch limit and load", (Plant("batch", 20), Plant("load", 1.5)), seeds=(26, 26)),
    Case(
        "unseen B: hungrier, longer prompts",
        (Plant("power", 1.1), Plant("mix", 0.4)),
        rate=5.0,
        seeds=(27, 27),
    ),
    Case("unseen C: closed loop, power cap", (Plant("cap", 0.55),), clients=40, seeds=(31, 31)),
    Case(
        "unseen C: another task, slower kernels",
        (Plant("share", 0.5), Plant("kernels", 1.3)),
        world=_ALIKE,
        rate=9.0,
        seeds=(32, 32),
        labelled=True,
    ),
    Case("unseen C: prefix cache lost in part", (Plant("cache", 0.6),), rate=10.0, seeds=(33, 33)),
    Case(
        "unseen C: host slower, more summaries",
        (Plant("host", 2.0), Plant("mix", 0.25)),
        rate=6.0,
        seeds=(34, 34),
    ),
)
"""Written down when the diagnosis was finished, and run once: the others were looked at while it was made.
Those named A and B were looked at afterwards, when it was made better; those named C were not."""

UNSEEN: Mapping[str, Case] = {case.name: case for case in _UNSEEN}
OTHERS: Mapping[str, Case] = {case.name: case for case in (*_OTHER_CLIENTS, *_OTHER_FORMS)}
WAITING: Mapping[str, Case] = {case.name: case for case in _WAITING}
SINGLE: Mapping[str, Case] = {case.name: case for case in _ONE}
MIXED_CAUSES: Mapping[str, Case] = {case.name: case for case in _SEVERAL}
