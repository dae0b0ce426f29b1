"""Files that an estimate reads: parameters, lengths that were observed, throughputs that were measured."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from joulescope.errors import ConfigError
from joulescope.insight.estimate.distributions import Distribution, empirical
from joulescope.insight.estimate.expression import Call
from joulescope.insight.estimate.throughput import Point

INLINE_VALUES = 64
"""That many different values are written out in a parameter file; of more, the file is named, by digest."""


def read_text(path: Path, where: str) -> str:
    """A file's text.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark before the first column
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ConfigError(f"{where}: cannot read {path}: {reason}") from error


def read_document(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        document = yaml.safe_load(read_text(path, "parameters"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of a date that is none, of depth
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path}: a mapping of parameters is expected; joulescope estimate --show prints one"
        )
    return document


def write_document(document: Mapping[str, Any]) -> str:
    """A document as YAML, in its order."""
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=110)


def empirical_from_file(call: Call) -> Distribution:
    """``empirical(FILE)``: one number a line; ``column=NAME``: of a CSV file with a heading.

    Raises:
        ConfigError: the file cannot be read, holds no number, or is another than when it was first read.
    """
    given = call.take(required=("file",), optional=("column", "sha256"))
    path = Path(str(given["file"]))
    text = read_text(path, call.where)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    wanted = given.get("sha256", digest)
    if str(wanted) != digest:
        raise call.error(f"{path} has changed: its SHA-256 begins with {digest}")
    column = given.get("column")
    values = Counter(_numbers(text, None if column is None else str(column), call, path))
    if not values:
        raise call.error(f"{path} holds no number")
    if len(values) <= INLINE_VALUES:
        return empirical(sorted(values), [values[value] for value in sorted(values)])
    asked = f"{path}, {'' if column is None else f'column={column}, '}sha256='{digest}'"
    return empirical(sorted(values), [values[value] for value in sorted(values)], asked)


def _numbers(text: str, column: str | None, call: Call, path: Path) -> Iterator[float]:
    for number, cell in _cells(text, column, call, path):
        try:
            value = float(cell)
        except ValueError:
            raise call.error(f"{path}, line {number}: {cell!r:.40} is no number") from None
        if not math.isfinite(value):
            raise call.error(f"{path}, line {number}: {cell} is not finite")
        yield value


def _cells(text: str, column: str | None, call: Call, path: Path) -> Iterator[tuple[int, str]]:
    if column is None:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                yield number, line.strip()
        return
    names, rows = _table(text, path)
    if column not in names:
        raise call.error(f"{path} has no column {column}; it has {', '.join(names)}")
    for number, row in rows:
        yield number, row[column] or ""


def _table(text: str, path: Path) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    """The heading of a CSV table, and its rows with the number of their lines.

    Raises:
        ConfigError: it is none.
    """
    reader = csv.DictReader(io.StringIO(text))
    try:
        return list(reader.fieldnames or ()), [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ConfigError(f"{path}, after line {reader.line_num}: not CSV: {error}") from error


# --------------------------------------------------------------------------------------------- points


def read_points(path: Path) -> list[Point]:
    """Measured throughputs: a CSV table, or results of ``vllm bench serve``.

    CSV has the columns ``input_tokens`` and ``output_tokens`` (means of a query), ``tokens_per_second`` and
    perhaps ``weight``. A result of vLLM (JSON, or one a line) has ``completed``, ``duration``,
    ``total_input_tokens`` and ``total_output_tokens``.

    Raises:
        ConfigError: it is neither; the message names the line.
    """
    text = read_text(path, "throughput")
    if text.lstrip().startswith(("{", "[")):
        found = [
            _of_benchmark(each, f"{path}, result {at}") for at, each in enumerate(_results(text, path), 1)
        ]
    else:
        found = list(_of_table(text, path))
    if not found:
        raise ConfigError(f"{path}: no throughput in it")
    return found


def _results(text: str, path: Path) -> list[Any]:
    try:
        whole = json.loads(text)
        return whole if isinstance(whole, list) else [whole]
    except (ValueError, RecursionError):
        pass
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: neither JSON nor JSON lines: {error}") from error


def _of_benchmark(result: Any, where: str) -> Point:
    keys = ("completed", "duration", "total_input_tokens", "total_output_tokens")
    if not isinstance(result, dict) or not all(isinstance(result.get(key), int | float) for key in keys):
        raise ConfigError(
            f"{where}: not a result of vllm bench serve: it needs the numbers {', '.join(keys)}"
        )
    try:
        completed, seconds, inputs, outputs = (float(result[key]) for key in keys)
    except OverflowError:
        raise ConfigError(f"{where}: a number in it is too large") from None
    return _point(
        (inputs / completed, outputs / completed, outputs / seconds) if completed and seconds else (), where
    )


def _of_table(text: str, path: Path) -> Iterator[Point]:
    names, rows = _table(text, path)
    columns = ("input_tokens", "output_tokens", "tokens_per_second")
    missing = [column for column in columns if column not in names]
    if missing:
        raise ConfigError(f"{path}: the heading lacks {', '.join(missing)}: columns are parted by commas")
    for number, row in rows:
        where = f"{path}, line {number}"
        try:
            cells = [float(row[column]) for column in (*columns, *(["weight"] if row.get("weight") else []))]
        except (TypeError, ValueError):
            raise ConfigError(f"{where}: a cell is no number") from None
        yield _point(cells, where)


def _point(figures: tuple[float, ...] | list[float], where: str) -> Point:
    if not figures or not all(0.0 < figure < math.inf for figure in figures):
        raise ConfigError(f"{where}: tokens, seconds and rates are to be above 0")
    return Point(*figures)
