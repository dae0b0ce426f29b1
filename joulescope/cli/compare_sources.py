"""What `joulescope compare` is given: runs of joulescope and results of other benchmarks, as sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from joulescope.cli.minutes_source import read_minutes, split_span
from joulescope.cli.request_samples import read_samples
from joulescope.errors import ComparisonError, MinuteError
from joulescope.insight.compare.from_minutes import NO_TASK, sources_of
from joulescope.insight.compare.imports.fields import Skipped
from joulescope.insight.compare.imports.read import SUFFIXES, looks_like_benchmark, read_benchmarks
from joulescope.insight.compare.values import Setup, Source
from joulescope.terminal.target import Target, target_of

_NAMED = re.compile(r"([\w .+×()-]{1,40})=(.+)")
_LEDGER_FOLDERS = ("minutes", "requests", "open")
_BENCHMARK_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix != ".jsonl")


@dataclass(frozen=True, slots=True)
class Reading:
    """How sources are read."""

    by_task: bool = False
    tasks: tuple[str, ...] = ()
    quantiles: bool = False
    """Whether figures are asked for that only single requests tell."""
    find_target: Callable[[str], Target] = target_of


def split_name(text: str) -> tuple[str, str]:
    """``NAME=SOURCE``; a file that is really called so is not taken apart."""
    found = _NAMED.fullmatch(text)
    if found is None or Path(text).exists() or "://" in found[1]:
        return "", text
    return found[1].strip(), found[2]


def read_sources(texts: Sequence[str], reading: Reading, skipped: Skipped) -> list[tuple[str, Source]]:
    """All sources with their names, in the order given.

    Raises:
        JoulescopeError: of the first that cannot be read.
    """
    found = []
    for text in texts:
        name, source = split_name(text)
        found += [(name, each) for each in _read(source, reading, skipped)]
    return pooled(found)


def _read(text: str, reading: Reading, skipped: Skipped) -> list[Source]:
    if is_benchmark(text):
        sources = read_benchmarks(Path(text), skipped)
        if reading.tasks:
            sources = [each for each in sources if each.setup.task in reading.tasks]
        return sources
    minutes = read_minutes(text, find_target=reading.find_target)
    sources = sources_of(minutes, text, by_task=reading.by_task, tasks=reading.tasks)
    if not sources:
        raise MinuteError(f"{text}: {_nothing(reading)}")
    if not reading.quantiles:
        return sources
    return list(_with_quantiles(sources, text, skipped))


def _nothing(reading: Reading) -> str:
    if reading.tasks:
        return f"no request of {', '.join(reading.tasks)} is in it; leave --task out to see what there is"
    return "no engine did anything in it"


def _with_quantiles(sources: Iterable[Source], text: str, skipped: Skipped) -> Iterator[Source]:
    samples = read_samples(split_span(text)[0], text)
    if samples is None:
        skipped.add("sources without single requests, so without quantiles: give a trace or a ledger", text)
        yield from sources
        return
    for source in sources:
        keys = {part.key for part in source.parts}
        own = [each for each in samples if each.key in keys and _is_of(source, each.task)]
        yield replace(source, samples=tuple(own))


def _is_of(source: Source, task: str) -> bool:
    return not source.origin.divided or source.setup.task == (task or NO_TASK)


def is_benchmark(text: str) -> bool:
    """Whether another program's results are meant: by the suffix, or a folder that is no ledger."""
    path = Path(text)
    if "://" in text or text == "-":
        return False
    if path.is_dir():
        return not any((path / name).is_dir() for name in _LEDGER_FOLDERS)
    if path.suffix == ".jsonl":
        return looks_like_benchmark(path)
    return path.suffix in _BENCHMARK_SUFFIXES


def only(found: Sequence[tuple[str, Source]], words: Sequence[str]) -> list[tuple[str, Source]]:
    """Those of which some fact holds every one of the words, big or small letters alike.

    Raises:
        ComparisonError: if none is left.
    """

    def facts(name: str, source: Source) -> str:
        setup = source.setup
        facts = (
            name,
            setup.model,
            setup.precision,
            setup.gpu,
            f"{setup.gpu_count} gpu",
            setup.parallel,
            setup.task,
        )
        return "\n".join((*facts, source.origin.path)).lower()

    kept = [
        (name, source) for name, source in found if all(word.lower() in facts(name, source) for word in words)
    ]
    if found and not kept:
        there = sorted(
            {f"{source.setup.model} {source.setup.gpu} {source.setup.task}".strip() for _, source in found}
        )
        raise ComparisonError(
            f"--only {' --only '.join(words)}: nothing is left of {len(found)} sides; "
            f"there are {'; '.join(there[:8])}"
        )
    return kept


def pooled(found: Sequence[tuple[str, Source]]) -> list[tuple[str, Source]]:
    """What has one given name and one setup is one side: `a=monday.jsonl a=tuesday.jsonl`."""
    sides: dict[object, tuple[str, Source]] = {}
    for place, (name, source) in enumerate(found):
        key = (name, source.setup, source.origin.format) if name else place
        if key not in sides:
            sides[key] = (name, source)
            continue
        before = sides[key][1]
        sides[key] = (
            name,
            replace(
                before,
                parts=before.parts + source.parts,
                remarks=tuple(dict.fromkeys(before.remarks + source.remarks)),
                samples=before.samples + source.samples,
            ),
        )
    return list(sides.values())


def renamed(found: Sequence[tuple[str, Source]]) -> list[tuple[str, Source]]:
    """Named after their files, or folders, where nothing else tells two sides apart."""
    paths: dict[tuple[str, Setup], list[Path]] = {}
    for name, source in found:
        paths.setdefault((name, source.setup), []).append(Path(source.origin.path))

    def named(name: str, source: Source) -> str:
        alike = paths[name, source.setup]
        return name or (_own_part(Path(source.origin.path), alike) if len(alike) > 1 else "")

    return [(named(name, source), source) for name, source in found]


def _own_part(path: Path, alike: Sequence[Path]) -> str:
    """The name of the file, or of the nearest folder that no other has: every `results.json` is called so."""
    others = {part for other in alike if other != path for part in other.parts}
    return next((part for part in reversed(path.parts) if part not in others), path.name)
