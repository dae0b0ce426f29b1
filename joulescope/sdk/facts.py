"""Who an engine is: the greeting with which its sessions begin, checked when the engine is made."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from uuid import uuid4

from joulescope import __version__
from joulescope.hook.environment import DEFAULT_SOCKET, is_disabled, named_socket
from joulescope.sdk.records import HELLO, Record

log = logging.getLogger("joulescope.sdk")

MAX_SOCKET_BYTES = 107
"""What ``sun_path`` of unix(7) holds, less the byte that ends it."""

FLOPS_PER_WORK = 1e13
"""Said of a unit of work by engines that declare no cost: so much that what all requests share is little
beside it, and joules follow the work. What a unit really takes is learned; see
:meth:`joulescope.attribution.learn.PriorRegression.learn`."""

_UUID = re.compile(r"(?:GPU|MIG)-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Cost:
    """What a step costs, summed over the engine's GPUs; it sets how joules are shared, never how many.

    FLOPs of a step = work · ``flops_per_work`` + Σ (work · context) · ``flops_per_work_context`` + outputs ·
    ``flops_per_output``; bytes = ``weight_bytes`` + Σ context · ``bytes_per_context``. A request's context
    is the work that was done for it before, in tokens its position. The joules that a byte and a FLOP take
    are learned from the GPU, so that only proportions matter.

    Raises:
        ValueError: if a figure is below 0 or not finite, or all are 0.
    """

    weight_bytes: float = 0.0
    """Read once in each step, whoever is in it."""
    flops_per_work: float = 0.0
    bytes_per_context: float = 0.0
    """Of a key-value cache and the like."""
    flops_per_work_context: float = 0.0
    flops_per_output: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise ValueError(f"Cost.{name} is {value!r}: it must be a finite number, 0 or above")
        if not any(asdict(self).values()):
            raise ValueError("Cost() says nothing: give a figure, or leave the cost out to share by work")

    def facts(self) -> Record:
        """As the wire has it."""
        return {
            "source": "declared",
            "weight_bytes": float(self.weight_bytes),
            "kv_bytes_per_token": float(self.bytes_per_context),
            "flops_per_token": float(self.flops_per_work),
            "flops_per_token_context": float(self.flops_per_work_context),
            "flops_per_sample": float(self.flops_per_output),
        }


BY_WORK: Record = {"source": "work", "flops_per_token": FLOPS_PER_WORK}


@dataclass(frozen=True)
class Identity:
    """What an engine says of itself, apart from its process."""

    name: str
    model: str
    gpus: Sequence[str]
    unit: str
    work_unit: str
    software: str
    cost: Cost | None

    def hello(self, time_ns: int, wall_ns: int, instance_id: str) -> Record:
        """The greeting; ``instance_id`` is the same after a reconnect, and another in another process."""
        engine: Record = {
            "instance_id": instance_id,
            "name": self.name,
            "model": self.model,
            "tensor_parallel": max(len(self.gpus), 1),
            "software": self.software,
            "unit": self.unit,
            "work_unit": self.work_unit,
            "gpus": list(self.gpus),
            "cost": BY_WORK if self.cost is None else self.cost.facts(),
        }
        return {
            "type": HELLO,
            "time_ns": time_ns,
            "pid": os.getpid(),
            "ppid": os.getppid(),
            "hook_version": __version__,
            "wall_ns": wall_ns,
            "capabilities": ["progress"],
            "engine": engine,
        }


def new_instance() -> str:
    """An id that no other engine has."""
    return uuid4().hex


def gpus_of(named: Sequence[str] | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """UUIDs of the engine's GPUs: those named, or else those of ``CUDA_VISIBLE_DEVICES``.

    That variable is believed where it holds whole UUIDs only. Indices and shortened UUIDs are the CUDA
    runtime's to resolve, and it may count other than the driver does.

    Raises:
        ValueError: if a name is empty, not a string, or given twice.
    """
    if named is None:
        visible = [part.strip() for part in environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
        return tuple(dict.fromkeys(visible)) if all(map(_UUID.fullmatch, visible)) else ()
    if isinstance(named, str):
        raise ValueError(f"gpus is the string {named!r}: give a list of UUIDs, as in [{named!r}]")
    for gpu in named:
        if not isinstance(gpu, str) or not gpu:
            raise ValueError(f"gpus has {gpu!r}: give UUIDs as nvidia-smi -L shows them (GPU-…)")
    if len(set(named)) < len(named):
        raise ValueError(f"gpus names one GPU twice: {', '.join(named)}")
    return tuple(named)


def socket_of(named: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> str | None:
    """Where to report to: as named, or by ``JOULESCOPE_SOCKET``, or the usual place; ``None`` if switched
    off, or if the variable names a path that no socket can have, of which the log tells.

    Raises:
        ValueError: if the path named here is longer than a Unix socket's can be.
    """
    if is_disabled(environ):
        return None
    path = (named_socket(environ) if named is None else os.fspath(named)) or DEFAULT_SOCKET
    if len(os.fsencode(path)) <= MAX_SOCKET_BYTES:
        return path
    problem = f"the socket's path has more than {MAX_SOCKET_BYTES} bytes: {path}; choose a shorter one"
    if named is not None:
        raise ValueError(problem)
    log.warning("joulescope: switched off, JOULESCOPE_SOCKET cannot be used (%s)", problem)
    return None
