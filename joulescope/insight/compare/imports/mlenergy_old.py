"""What older versions of the ML.ENERGY benchmark wrote, and the tables of its leaderboards.

* The leaderboard's data of version 3 (``public/data/tasks/<task>.json``, and with the same figures
  ``public/data/models/<model>__<task>.json``), one row for each configuration.
* Results of the client of version 2 (``…+results.json``), with ``…+stats.json`` of the server beside: the
  steady window is there. Without it only the joules of the whole run are known.
* Rows of the leaderboard of version 2 (one JSON object a file, keys such as ``Energy/req (J)``).
* Tables of version 1 (``A100_chat_benchmark.csv``), whose requests ran one at a time.

Rows tell means, not how long was measured: no GPU-hours and no interval stand behind them. Fields are those
of the files in https://github.com/ml-energy/leaderboard, /leaderboard-v2 and /benchmark.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from joulescope.errors import ComparisonError
from joulescope.insight.compare.imports.common import degrees, folder_gpu, folder_task
from joulescope.insight.compare.imports.fields import Fields, Skipped
from joulescope.insight.compare.imports.mlenergy import Found
from joulescope.insight.compare.precision import gpu_of, parallel_of, precision_of
from joulescope.insight.compare.values import CLIENT, Mean, Origin, Part, Requests, Setup, Work

LEADERBOARD_3 = "ml.energy leaderboard v3"
CLIENT_2 = "ml.energy v2"
LEADERBOARD_2 = "ml.energy leaderboard v2"
LEADERBOARD_1 = "ml.energy leaderboard v1"
_V1_COLUMNS = {"model", "throughput", "response_length", "latency", "energy"}
_V2_TASKS = ("chat", "code")
"""Names of folders, for language models."""


def is_leaderboard_3(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("configurations"), list)


def leaderboard_3(document: Any, path: Path, skipped: Skipped) -> Iterator[Found]:
    """One part for each configuration; rows that lack a figure are passed over."""
    fields = Fields(document, str(path), "the ML.ENERGY leaderboard v3")
    task = fields.text("task")
    common = {name: fields.values.get(name) for name in ("model_id", "weight_precision")}
    for row in fields.listed("configurations"):
        try:
            yield _row_3(_flat(row, common), task, path)
        except ComparisonError as error:
            skipped.add("rows of the leaderboard that lack a figure", str(error))


def _flat(row: Fields, common: Mapping[str, Any]) -> Fields:
    """A row of a model's file as one of a task's file: what its rows have in common stands above them."""
    layout = row.inner_or_none("parallelization")
    return replace(row, values={**common, **(layout.values if layout is not None else {}), **row.values})


def _row_3(row: Fields, task: str, path: Path) -> Found:
    kind = next(
        (kind for kind in ("token", "image", "video") if f"energy_per_{kind}_joules" in row.values), ""
    )
    if not kind:
        raise row.wrong("energy_per_token_joules", "is missing")
    watts = row.positive("avg_power_watts")
    joules = row.positive(f"energy_per_{kind}_joules")
    model = row.text("model_id")
    setup = Setup(
        model=model,
        precision=precision_of(row.text("weight_precision"), "", model),
        gpu=gpu_of(row.text("gpu_model")),
        gpu_count=row.count_or_none("num_gpus"),
        parallel=_layout(row),
        task=" ".join(filter(None, (task, _picture(row)))),
        unit=kind,
    )
    batch = row.number_or_none("avg_batch_size") or row.number_or_none("batch_size")
    length = row.number_or_none("avg_output_len") if kind == "token" else 1.0
    quantiles = {
        f"itl_p{level}": value / 1e3
        for level, name in ((50, "median"), (90, "p90"), (95, "p95"), (99, "p99"))
        if (value := row.number_or_none(f"{name}_itl_ms"))
    }
    mean = row.number_or_none("mean_itl_ms")
    latency = row.number_or_none("batch_latency_s")
    latencies = {"itl": Mean(mean / 1e3, 1.0)} if mean else {}
    part = Part(
        where=row.place,
        steady=Work(watts, watts / joules, 1.0),
        batch=Mean(batch, 1.0) if batch else None,
        requests=Requests(count=1, output_units=length) if length else Requests(),
        latencies={**latencies, **({"e2e": Mean(latency, 1.0)} if latency else {})},
        quantiles=quantiles,
        group=f"max_num_seqs {row.values.get('max_num_seqs') or row.values.get('batch_size')}",
        lasted=False,
    )
    return setup, Origin(LEADERBOARD_3, str(path), clock=CLIENT), part, ()


def _layout(row: Fields) -> str:
    tensor = row.count_or_none("tensor_parallel") or 1
    expert = row.count_or_none("expert_parallel") or 1
    layout = parallel_of(tensor, 1, row.count_or_none("data_parallel") or 1)
    return " ".join(filter(None, (layout, f"EP{expert}" if expert > 1 else "", *degrees(row))))


def _picture(row: Fields) -> str:
    size = [
        row.values.get(f"image_{name}") or row.values.get(f"video_{name}") for name in ("height", "width")
    ]
    size.append(row.values.get("num_frames"))
    steps = row.values.get("inference_steps")
    return " ".join(
        filter(None, ("x".join(str(each) for each in size if each), f"{steps} steps" if steps else ""))
    )


def is_client_2(document: Any) -> bool:
    return isinstance(document, dict) and "client_side_total_energy" in document


def client_2(document: Any, path: Path, skipped: Skipped) -> Iterator[Found]:
    """The one run of a file of version 2."""
    fields = Fields(document, str(path), "the ML.ENERGY benchmark v2")
    asked, failed = fields.positive("num_requests"), fields.number_or_none("num_failures") or 0.0
    done = asked - failed
    seconds = fields.number_or_none("total_runtime") or fields.positive("total_benchmark_runtime")
    tokens = fields.positive("total_completion_tokens")
    steady, batch = _stats_2(path, skipped)
    gpus = fields.count_or_none("num_gpus")
    model, limit = fields.text("model"), fields.count_or_none("max_num_seqs")
    setup = Setup(
        model=model,
        precision=precision_of("", "", model),
        gpu=gpu_of(fields.text("gpu_model")) or folder_gpu(path),
        gpu_count=gpus,
        software=fields.text("backend"),
        task=folder_task(path),
    )
    latency = fields.number_or_none("latency_per_request")
    part = Part(
        where=str(path),
        steady=steady,
        whole=Work(fields.positive("client_side_total_energy"), tokens, seconds),
        batch=batch,
        gpu_seconds=None if gpus is None else gpus * seconds,
        requests=Requests(
            count=round(done),
            failed=round(failed),
            prompt_tokens=fields.number_or_none("total_prompt_tokens"),
            output_units=tokens,
        ),
        latencies={"e2e": Mean(latency * done, done)} if latency else {},
        group=f"max_num_seqs {limit}" if limit else path.name,
    )
    yield setup, Origin(CLIENT_2, str(path), clock=CLIENT), part, ()


def _stats_2(path: Path, skipped: Skipped) -> tuple[Work | None, Mean | None]:
    """The steady window and its batch: until nobody waits any more, as its leaderboard counts."""
    beside = path.with_name(path.name.replace("+results.json", "+stats.json"))
    if beside == path or not beside.exists():
        skipped.add("no +stats.json beside +results.json: no steady window", str(path))
        return None, None
    try:
        told = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError):
        skipped.add("+stats.json cannot be read: no steady window", str(beside))
        return None, None
    fields = Fields(told if isinstance(told, dict) else {}, str(beside), "the ML.ENERGY benchmark v2")
    nodes = list(fields.listed("steady_state"))
    waiting, running, generated = (
        _numbers(fields, name)
        for name in ("num_waiting_sys", "num_running_sys", "num_generation_tokens_iter")
    )
    end = next((place for place, count in enumerate(waiting[2:], 2) if count == 0), len(waiting))
    energies = [node.energy_of_gpus("energy") for node in nodes]
    joules = sum(energy[0] for energy in energies if energy is not None)
    seconds = max((node.positive("time") for node in nodes), default=0.0)
    if not joules or not seconds or not end:
        skipped.add("+stats.json without a steady window", str(beside))
        return None, None
    return Work(joules, sum(generated[:end]), seconds), Mean(sum(running[:end]) / end * seconds, seconds)


def _numbers(fields: Fields, name: str) -> list[float]:
    value = fields.values.get(name)
    if not isinstance(value, list) or not all(
        isinstance(each, int | float) and 0 <= each < math.inf for each in value
    ):
        raise fields.wrong(name, "is no list of finite numbers from 0 on")
    return value


def is_leaderboard_2(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and "Model" in document
        and any(key.lower().startswith("energy") for key in document)
    )


def leaderboard_2(document: Any, path: Path, skipped: Skipped) -> Iterator[Found]:
    """The one row of a file of the leaderboard of version 2: a language model, or images or videos."""
    fields = Fields(document, str(path), "the ML.ENERGY leaderboard v2")
    made = _language_2(fields, path) if "Energy/req (J)" in document else _pictures_2(fields, path)
    setup, part = made
    yield setup, Origin(LEADERBOARD_2, str(path), clock=CLIENT), part, ()


def _language_2(fields: Fields, path: Path) -> tuple[Setup, Part]:
    length, rate = fields.positive("Avg Output Tokens"), fields.positive("Token tput (tok/s)")
    joules = fields.positive("Energy/req (J)") / length
    tensor, pipeline = fields.count_or_none("TP") or 1, fields.count_or_none("PP") or 1
    batch, pace = fields.number_or_none("Avg BS (reqs)"), fields.number_or_none("Avg TPOT (s)")
    setup = _setup_2(fields, path, "GPU", "token")
    part = Part(
        where=str(path),
        steady=Work(joules * rate, rate, 1.0),
        batch=Mean(batch, 1.0) if batch else None,
        requests=Requests(count=1, output_units=length),
        latencies={"itl": Mean(pace, 1.0)} if pace else {},
        group=path.name,
        lasted=False,
    )
    task = next((folder.name for folder in path.parents if folder.name in _V2_TASKS), "")
    layout = parallel_of(tensor, pipeline, 1)
    return replace(setup, gpu_count=tensor * pipeline, parallel=layout, task=task), part


def _pictures_2(fields: Fields, path: Path) -> tuple[Setup, Part]:
    names = {"Energy/image (J)": "image", "Energy per image (J)": "image", "Energy/video (J)": "video"}
    name = next((name for name in names if name in fields.values), "")
    if not name:
        raise fields.wrong("Energy/image (J)", "is missing")
    batch, seconds = fields.positive("Batch size"), fields.positive("Batch latency (s)")
    gpu = "GPU" if "GPU" in fields.values else "GPU model"
    part = Part(
        where=str(path),
        steady=Work(fields.positive(name) * batch, batch, seconds),
        batch=Mean(batch, 1.0),
        requests=Requests(count=1, output_units=1.0),
        latencies={"e2e": Mean(seconds, 1.0)},
        group=path.name,
        lasted=False,
    )
    return _setup_2(fields, path, gpu, names[name]), part


def _setup_2(fields: Fields, path: Path, gpu: str, unit: str) -> Setup:
    model = fields.text("Model")
    steps = fields.number_or_none("Denoising steps") or fields.number_or_none("Number of inference steps")
    frames = fields.number_or_none("Frames")
    words = (
        folder_task(path),
        f"{frames:.0f} frames" if frames else "",
        f"{steps:.0f} steps" if steps else "",
    )
    task = " ".join(filter(None, words))
    return Setup(model, precision_of("", "", model), gpu_of(fields.text(gpu)), task=task, unit=unit)


def is_table_1(text: str) -> bool:
    head = text.partition("\n")[0].strip().split(",")
    return set(head) >= _V1_COLUMNS


def table_1(text: str, path: Path, skipped: Skipped) -> Iterator[Found]:
    """The rows of a table of version 1; the GPU is in the file's name."""
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise ComparisonError(f"{path}: is no CSV: {error}; get the table again") from None
    for number, row in enumerate(rows, 2):
        try:
            yield _row_1(row, path)
        except (TypeError, ValueError):
            skipped.add("rows of a table of version 1 that lack a figure", f"{path}:{number}")


def _above_0(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError(text)
    return number


def _row_1(row: Mapping[str, str], path: Path) -> Found:
    length, rate = _above_0(row["response_length"]), _above_0(row["throughput"])
    joules, batch = _above_0(row["energy"]) / length, _above_0(row.get("batch_size") or "1")
    setup = Setup(
        model=row["model"],
        precision=precision_of("", "", row["model"]),
        gpu=gpu_of(path.name.split("_")[0]),
        gpu_count=1,
        task=path.name.split("_")[1] if path.name.count("_") > 1 else "",
    )
    part = Part(
        where=f"{path} {row['model']}",
        steady=Work(joules * rate, rate, 1.0),
        batch=Mean(batch, 1.0),
        requests=Requests(count=1, output_units=length),
        latencies={"e2e": Mean(_above_0(row["latency"]), 1.0)},
        group=f"batch {batch:.0f}",
        lasted=False,
    )
    return setup, Origin(LEADERBOARD_1, str(path), clock=CLIENT), part, ()
