"""Reads what others' benchmarks wrote: tells formats apart by what is in them, not by their names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from joulescope.errors import ComparisonError
from joulescope.insight.compare.imports import guidellm, mlenergy, mlenergy_old, vllm_bench
from joulescope.insight.compare.imports.common import joined
from joulescope.insight.compare.imports.fields import Skipped
from joulescope.insight.compare.imports.mlenergy import Found
from joulescope.insight.compare.values import Source

SUFFIXES = (".json", ".jsonl", ".yaml", ".yml", ".csv")
KNOWN = (
    "ML.ENERGY (results.json of v3, +results.json of v2, data of its leaderboards v1 to v3), "
    "vLLM (`vllm bench serve --save-result`), GuideLLM (JSON, YAML)"
)
_LONGEST_LINE = 1 << 28
"""Bytes: with ``--save-detailed`` a run of a thousand long answers is a line of tens of MiB."""
_BESIDE = ("prometheus.json", "model_info.json", "config.json", "metadata.json")
"""Files of other kinds that lie among results."""
_FORMATS = (
    (mlenergy.is_language, mlenergy.language),
    (mlenergy.is_diffusion, mlenergy.diffusion),
    (mlenergy_old.is_client_2, mlenergy_old.client_2),
    (mlenergy_old.is_leaderboard_3, mlenergy_old.leaderboard_3),
    (mlenergy_old.is_leaderboard_2, mlenergy_old.leaderboard_2),
    (guidellm.is_report, guidellm.report),
)


def read_benchmarks(path: Path, skipped: Skipped) -> list[Source]:
    """Sources of a file, or of all result files in a folder and below it.

    Raises:
        ComparisonError: if a file that was named cannot be read, or a folder has nothing that can.
    """
    if not path.is_dir():
        found = list(_file(path, skipped))
        if not found:
            raise ComparisonError(f"{path}: holds no run that can be compared: {_why(skipped)}")
        return joined(found)
    found = []
    for file in sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES and each.is_file()):
        if file.name in _BESIDE or file.name.endswith("+stats.json") or file.name.endswith("+args.json"):
            continue
        try:
            found += list(_file(file, skipped))
        except ComparisonError as error:
            skipped.add("files that could not be read", str(error))
    if not found:
        raise ComparisonError(
            f"{path}: no results of a benchmark are in it ({_why(skipped)}); known are {KNOWN}"
        )
    return joined(found)


def _why(skipped: Skipped) -> str:
    return "; ".join(skipped.lines()) or "it is empty"


def _file(path: Path, skipped: Skipped) -> Iterator[Found]:
    text = _text(path)
    if path.suffix == ".csv":
        if not mlenergy_old.is_table_1(text):
            raise ComparisonError(
                f"{path}: its first line is not that of a table of ML.ENERGY v1; known are {KNOWN}"
            )
        yield from mlenergy_old.table_1(text, path, skipped)
        return
    for number, document in _documents(text, path):
        place = f"{path}:{number}" if number else str(path)
        yield from _document(document, path, place, skipped)


def _document(document: Any, path: Path, place: str, skipped: Skipped) -> Iterator[Found]:
    if vllm_bench.is_other_bench(document):
        raise ComparisonError(
            f"{place}: is of `vllm bench throughput` or `latency`, which have no load to compare at; "
            "run `vllm bench serve --save-result`"
        )
    if vllm_bench.is_serve(document) and not mlenergy.is_language(document):
        yield from vllm_bench.serve(document, path, place, skipped)
        return
    for is_format, read in _FORMATS:
        if is_format(document):
            yield from read(document, path, skipped)
            return
    keys = (
        ", ".join(sorted(map(str, document))[:8]) if isinstance(document, dict) else type(document).__name__
    )
    raise ComparisonError(f"{place}: is of no format that is known (it has: {keys}); known are {KNOWN}")


def looks_like_benchmark(path: Path) -> bool:
    """Whether the first line of a file is a run of vLLM's benchmark, which may be told to append lines."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_LINE)
        return vllm_bench.is_serve(json.loads(line))
    except (OSError, ValueError, RecursionError):
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # some programs put a mark at the beginning
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text in UTF-8"
        raise ComparisonError(f"{path}: cannot be read: {reason}; name a file of {KNOWN}") from None


def _documents(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """The document of a file, or with its number each line of several."""
    if path.suffix in (".yaml", ".yml"):
        yield 0, _yaml(text, path)
        return
    try:
        yield 0, json.loads(text)
        return
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or not _is_json(lines[0]):
            raise ComparisonError(f"{path}: is no JSON: {error}; was its benchmark cut off?") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ComparisonError(
                f"{path}:{number}: is no JSON: {error}; was its benchmark cut off?"
            ) from None


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _yaml(text: str, path: Path) -> Any:
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return yaml.load(text, Loader=loader)  # a safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of a date that is none, of depth
        raise ComparisonError(f"{path}: is no YAML: {error}") from None
