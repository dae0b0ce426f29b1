"""Ledgers made of numbers: requests and minutes that balance, written as Parquet in the ledger's layout.

Vectors throughout, so that a benchmark can have 10⁷ requests in seconds. What was put in is handed back, for
truth that no query had a part in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from joulescope.ledger.tables import arrow_schema

NS = 10**9
MINUTE_NS = 60 * NS
DAY_NS = 86_400 * NS
UTC_TIME = pa.timestamp("us", tz="UTC")
BEGIN_NS = 1_769_817_600 * NS
"""2026-01-31T00:00Z: the second day of a ledger is in another month."""

REASONS = np.array(["stop", "length", "abort"])
TASKS = np.array(["", "chat", "code"])


@dataclass(frozen=True)
class Recipe:
    """What a ledger is to hold. Requests are spread evenly over the time."""

    requests: int = 2000
    days: int = 2
    engines: int = 2
    tenants: int = 3
    unmeasured: float = 0.01
    """Part of the requests whose joules are not known; the next likewise."""
    incomplete: float = 0.02
    open_uj: int = 5_000_000
    """Of requests that were still open at the end, on each engine."""
    unowned_uj: int = 7_000_001
    """Measured while no engine was there."""
    seed: int = 7
    files_a_day: int = 1
    row_group: int = 65_536


def requests_of(recipe: Recipe, day: int) -> dict[str, np.ndarray]:
    """The requests of one day, sorted by their end; ``joules_uj`` is -1 where joules are not known."""
    random = np.random.default_rng([recipe.seed, day])
    count = recipe.requests // recipe.days
    engine = random.integers(0, recipe.engines, count)
    output = random.geometric(1 / 250, count)
    prompt = random.geometric(1 / 900, count)
    end = BEGIN_NS + day * DAY_NS + np.sort(random.integers(0, DAY_NS, count))
    joules = (random.lognormal(0.0, 0.3, count) * (output * 300_000 + prompt * 9_000)).astype(np.int64)
    joules[random.random(count) < recipe.unmeasured] = -1
    reason = REASONS[random.choice(3, count, p=[0.8, 0.17, 0.03])]
    return {
        "engine": engine,
        "tenant": random.zipf(1.6, count) % recipe.tenants,
        "lora": random.integers(0, 4, count),
        "task": TASKS[random.integers(0, 3, count)],
        "finish_reason": reason,
        "prompt_tokens": prompt,
        "cached_tokens": prompt * random.integers(0, 2, count) // 2,
        "output_tokens": np.where(random.random(count) < 0.001, 0, output),
        "end_unix_ns": end,
        "start_unix_ns": end - output * 20_000_000,
        "joules_uj": joules,
        "wasted_uj": np.where((reason == "abort") & (joules > 0), joules // 3, 0),
        "complete": random.random(count) >= recipe.incomplete,
        "request_id": _ids(random, count),
    }


def _ids(random: np.random.Generator, count: int) -> np.ndarray:
    """As vLLM makes them: nothing that compresses."""
    digits = np.frombuffer(random.bytes(16 * count).hex().encode(), "S32").astype("U32")
    return np.char.add("chatcmpl-", digits)


def request_table(made: Mapping[str, np.ndarray]) -> pa.Table:
    """These requests as rows of the ledger."""
    joules = made["joules_uj"]
    known = joules >= 0
    prefill = np.where(known, joules // 5, 0)
    count = len(joules)

    def amount(microjoules: np.ndarray) -> pa.Array:
        return pa.array(microjoules / 1e6, mask=~known)

    def named(prefix: str, column: str, empty: bool = False) -> pa.Array:
        names = [f"{prefix}{number}" for number in range(int(made[column].max()) + 1)]
        if empty:
            names[0] = ""
        return pa.DictionaryArray.from_arrays(pa.array(made[column].astype(np.int32)), names).cast(
            pa.string()
        )

    start, end = made["start_unix_ns"], made["end_unix_ns"]
    ids = pa.array(made["request_id"])
    given: dict[str, Any] = {
        "request_id": ids,
        "external_id": ids,
        "engine": named("engine-", "engine"),
        "model": named("model-", "engine"),
        "tenant": named("tenant-", "tenant"),
        "lora": named("adapter-", "lora", empty=True),
        "task": pa.array(made["task"]),
        "finish_reason": pa.array(made["finish_reason"]),
        "attributed_joules": amount(joules),
        "marginal_joules": amount(joules // 2),
        "prefill_joules": amount(prefill),
        "decode_joules": amount(joules - prefill),
        "wasted_joules": amount(made["wasted_uj"]),
        "avoided_joules": amount(made["cached_tokens"] * 9_000),
        "complete": pa.array(made["complete"]),
        "start_time": pa.array(start // 1000, UTC_TIME),
        "end_time": pa.array(end // 1000, UTC_TIME),
        "first_token_time": pa.array((start + 80_000_000) // 1000, UTC_TIME),
        "first_token_unix_ns": pa.array(start + 80_000_000),
        **{name: pa.array(made[name]) for name in made if name.endswith(("_tokens", "_unix_ns"))},
    }
    texts = {"kind": "generate", "unit": "token", "work_unit": "token", "software": "vllm"}
    schema = arrow_schema("requests")
    return pa.table([_column(field, given, texts, count) for field in schema], schema)


def _column(field: pa.Field, given: Mapping[str, Any], texts: Mapping[str, str], count: int) -> pa.Array:
    if field.name in given:
        return given[field.name].cast(field.type)
    if pa.types.is_string(field.type):
        return pa.array(np.full(count, texts.get(field.name, "")))
    if pa.types.is_integer(field.type) and not field.name.endswith("_ns"):
        return pa.array(np.zeros(count, np.int64))
    return pa.nulls(count, field.type)


def minute_rows(recipe: Recipe, made: Mapping[str, np.ndarray], day: int) -> dict[str, np.ndarray]:
    """The minutes that these requests balance with: each joule was drawn in the minute in which its request
    ended. Idle, overhead and unattributed are whole microjoules of odd size."""
    minutes_a_day = DAY_NS // MINUTE_NS
    begin = BEGIN_NS + day * DAY_NS
    minute = (made["end_unix_ns"] - begin) // MINUTE_NS
    engines = recipe.engines
    cell = made["engine"] * minutes_a_day + minute
    known = np.maximum(made["joules_uj"], 0)
    attributed = np.bincount(cell, known, engines * minutes_a_day).astype(np.int64)
    tokens = np.bincount(cell, made["output_tokens"], engines * minutes_a_day).astype(np.int64)
    if day == recipe.days - 1:
        attributed[minutes_a_day - 1 :: minutes_a_day] += recipe.open_uj
    random = np.random.default_rng([recipe.seed, day, 1])
    size = len(attributed)
    rows = {
        "engine": np.repeat(np.arange(engines), minutes_a_day),
        "start_ns": np.tile(begin + np.arange(minutes_a_day) * MINUTE_NS, engines),
        "prefill": attributed // 5,
        "decode": attributed - attributed // 5,
        "idle": random.integers(0, 900_000_000, size),
        "overhead_startup": random.integers(0, 2, size) * 3_000_003,
        "overhead_preemption": random.integers(0, 1_000_000, size),
        "unattributed": random.integers(0, 500_000, size),
        "wasted_abort": attributed // 100,
        "generated": tokens,
    }
    return {name: _with_unowned(name, column, recipe, begin, day) for name, column in rows.items()}


def _with_unowned(name: str, column: np.ndarray, recipe: Recipe, begin: int, day: int) -> np.ndarray:
    if day:
        return column
    more = {"engine": -1, "start_ns": begin, "unattributed": recipe.unowned_uj}.get(name, 0)
    return np.append(column, more)


def minute_table(rows: Mapping[str, np.ndarray]) -> pa.Table:
    """These minutes as rows of the ledger."""
    count = len(rows["engine"])
    parts = [name for name in rows if name not in ("engine", "start_ns", "generated", "wasted_abort")]
    measured = sum(rows[name] for name in parts)
    owned = rows["engine"] >= 0
    engine = np.where(owned, np.char.add("engine-", rows["engine"].astype("U6")), "")
    model = np.where(owned, np.char.add("model-", rows["engine"].astype("U6")), "")
    given: dict[str, Any] = {
        "start": pa.array(rows["start_ns"] // 1000, UTC_TIME),
        "end": pa.array((rows["start_ns"] + MINUTE_NS) // 1000, UTC_TIME),
        "engine": pa.array(engine),
        "model": pa.array(model),
        "served_model": pa.array(model),
        "measured_joules": pa.array(measured / 1e6),
        **{f"{name}_joules": pa.array(rows[name] / 1e6) for name in (*parts, "wasted_abort")},
        "generated_tokens": pa.array(rows["generated"]),
        "gpu_seconds": pa.array(np.full(count, 60.0)),
        "load_seconds": pa.array(np.where(owned, 60.0, 0.0)),
        "load_busy_seconds": pa.array(np.where(rows["generated"] > 0, 30.0, 0.0)),
        "gpu_count": pa.array(np.ones(count, np.int64)),
    }
    schema = arrow_schema("minutes")
    return pa.table([_minute_column(field, given, count) for field in schema], schema)


def _minute_column(field: pa.Field, given: Mapping[str, Any], count: int) -> pa.Array:
    if field.name not in given and pa.types.is_floating(field.type):
        return pa.array(np.zeros(count))
    return _column(field, given, {}, count)


def write(root: Path, recipe: Recipe) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Writes a ledger day by day and hands out what each day was made of: requests, minutes."""
    for day in range(recipe.days):
        made = requests_of(recipe, day)
        rows = minute_rows(recipe, made, day)
        folder = f"date={datetime.fromtimestamp((BEGIN_NS + day * DAY_NS) // NS, timezone.utc):%Y-%m-%d}"
        for number, part in enumerate(np.array_split(np.arange(len(made["engine"])), recipe.files_a_day)):
            some = {name: column[part[0] : part[-1] + 1] for name, column in made.items()}
            name = f"made-{day * recipe.files_a_day + number:06d}.parquet"
            _save(root / "requests" / folder / name, request_table(some), recipe)
        _save(root / "minutes" / folder / f"made-{day:06d}.parquet", minute_table(rows), recipe)
        yield made, rows


def _save(path: Path, table: pa.Table, recipe: Recipe) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", row_group_size=recipe.row_group)


def files_of(root: Path, table: str) -> list[str]:
    return sorted(map(str, root.glob(f"{table}/date=*/*.parquet")))
