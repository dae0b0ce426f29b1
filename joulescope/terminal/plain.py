"""A reading as one line of text, for logs, pipes and terminals that cannot move their cursor."""

from __future__ import annotations

from collections.abc import Iterable

from joulescope.model import Snapshot
from joulescope.terminal.balance import Balance, joules_text
from joulescope.terminal.history import total_watts
from joulescope.terminal.requests_table import one_unit


def plain_line(snapshot: Snapshot, previous: Snapshot | None) -> str:
    """No colours, no cursor movement; ``previous`` is an earlier snapshot, from which rates are taken."""
    balance = Balance.of(snapshot)
    requests = balance.prefill_joules + balance.decode_joules
    per_token = joules_per_output_token(snapshot, previous)
    watts = total_watts(snapshot.gpus)
    unit = one_unit(engine.info.unit for engine in snapshot.engines)
    fields = {
        "power": "-" if watts is None else f"{watts:.0f} W",
        "running": _count(engine.running for engine in snapshot.engines),
        "waiting": _count(engine.waiting for engine in snapshot.engines),
        "finished": str(sum(sum(engine.requests_finished.values()) for engine in snapshot.engines)),
        f"J/{unit}": "-" if per_token is None else f"{per_token:.3f}",
        "measured": joules_text(balance.measured_joules),
        "requests": joules_text(requests),
        "idle": joules_text(balance.idle_joules),
        "overhead": joules_text(balance.overhead_joules),
        "unattributed": joules_text(balance.unattributed_joules),
    }
    return "  ".join(f"{name} {text}" for name, text in fields.items())


def joules_per_output_token(snapshot: Snapshot, previous: Snapshot | None) -> float | None:
    """Attributed joules per generated token, or other unit of output, since ``previous``; ``None`` if there
    is nothing to divide."""
    joules = _attributed_joules(snapshot) - (_attributed_joules(previous) if previous else 0.0)
    tokens = _generated(snapshot) - (_generated(previous) if previous else 0)
    return joules / tokens if tokens > 0 and joules > 0 else None


def _attributed_joules(snapshot: Snapshot) -> float:
    return sum(gpu.attributed_joules for gpu in snapshot.gpus)


def _generated(snapshot: Snapshot) -> int:
    return sum(engine.tokens.get("generated", 0) for engine in snapshot.engines)


def _count(values: Iterable[int | None]) -> str:
    known = [value for value in values if value is not None]
    return str(sum(known)) if known else "-"
