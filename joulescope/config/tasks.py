"""Kinds of settings that say of which task class a request is: sources in order, and rules on lengths."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from joulescope.errors import ConfigError
from joulescope.label_model import ANY, NO_TASK, OTHER, TASK_SOURCES, Bounds, LengthRule

if TYPE_CHECKING:
    from joulescope.config.label_settings import LabelSettings

LENGTHS = tuple(field.name for field in fields(LengthRule) if field.name != "name")
MOST_RULES = 20
MOST_LENGTH = 10**9

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_CONDITION = re.compile(r"(\w+)\s*(>=|<=|==|=|>|<)\s*(\d+)", re.ASCII)
_EXAMPLE = "summarise: prompt >= 4096 and output < 512"


@dataclass(frozen=True, slots=True)
class TaskSources:
    """Sources in the order in which they are asked, separated by commas, or ``off``."""

    metavar: str = "SOURCE,...|off"

    def parse(self, text: str) -> tuple[str, ...]:
        if text == "off":
            return ()
        sources = tuple(source.strip() for source in text.split(",") if source.strip())
        unknown = [source for source in sources if source not in TASK_SOURCES]
        if unknown or not sources:
            said = f"{unknown[0]!r} is no source: " if unknown else ""
            raise ValueError(f"{said}it is off, or some of {', '.join(TASK_SOURCES)} separated by commas")
        if len(set(sources)) < len(sources):
            raise ValueError("it names a source twice; the first that says anything is believed anyway")
        return sources

    def text(self, value: tuple[str, ...]) -> str:
        return ",".join(value) or "off"


@dataclass(frozen=True, slots=True)
class LengthRules:
    """Rules separated by semicolons, commas or new lines, or ``none``.

    ``rule = name ":" condition {"and" condition}``, ``condition = length comparison number``, where a length
    is one of :data:`LENGTHS` and a comparison one of ``>= > <= < =``.
    """

    metavar: str = "NAME: CONDITION and ...; ...|none"

    def parse(self, text: str) -> tuple[LengthRule, ...]:
        if text == "none":
            return ()
        parts = [part.strip() for part in re.split(r"[;,\n]", text) if part.strip()]
        if not parts:
            raise ValueError(f"it is rules such as {_EXAMPLE!r}, or none")
        if len(parts) > MOST_RULES:
            raise ValueError(f"it has {len(parts)} rules, {MOST_RULES} are the most")
        return tuple(map(_rule, parts))

    def text(self, value: tuple[LengthRule, ...]) -> str:
        return "; ".join(map(_text, value)) or "none"


def _rule(text: str) -> LengthRule:
    name, colon, conditions = (part.strip() for part in text.partition(":"))
    if not colon:
        raise ValueError(f"{text!r} has no colon: a rule is a name and conditions, such as {_EXAMPLE!r}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a task: letters, digits, _ . and -, at most 63")
    if name in (NO_TASK, OTHER):
        raise ValueError(f"{name!r} already stands for something else; choose another name")
    bounds: dict[str, Bounds] = {}
    for condition in re.split(r"\band\b", conditions):
        length, told = _bounds(name, condition.strip())
        bounds[length] = both = _both(bounds.get(length, ANY), told)
        if both[1] is not None and both[1] < both[0]:
            raise ValueError(f"{name} can never hold: no {length} is that long and that short at once")
    return LengthRule(name, **bounds)


def _bounds(name: str, condition: str) -> tuple[str, Bounds]:
    """The length that a condition is about, and what it asks of it."""
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise ValueError(
            f"{name}: {condition!r} is no condition: write a length ({', '.join(LENGTHS)}), one of "
            ">= > <= < =, and a whole number, and join several by 'and'"
        )
    length, comparison, digits = match.groups()
    if length not in LENGTHS:
        close = difflib.get_close_matches(length, LENGTHS, n=1)
        guess = f", did you mean {close[0]}?" if close else ""
        raise ValueError(f"{name}: {length!r} is no length: it is one of {', '.join(LENGTHS)}{guess}")
    if len(digits) > 10 or (number := int(digits)) > MOST_LENGTH:
        raise ValueError(f"{name}: {digits} is longer than any {length}")
    if comparison == "<" and number == 0:
        raise ValueError(f"{name} can never hold: no {length} is shorter than 0")
    return length, {
        ">=": (number, None),
        ">": (number + 1, None),
        "<=": (0, number),
        "<": (0, number - 1),
    }.get(comparison, (number, number))


def _both(one: Bounds, other: Bounds) -> Bounds:
    tops = [top for top in (one[1], other[1]) if top is not None]
    return max(one[0], other[0]), min(tops) if tops else None


def _text(rule: LengthRule) -> str:
    conditions: list[str] = []
    for length in LENGTHS:
        least, most = getattr(rule, length)
        if least == most:
            conditions.append(f"{length} = {least}")
            continue
        if least:
            conditions.append(f"{length} >= {least}")
        if most is not None:
            conditions.append(f"{length} <= {most}")
    return f"{rule.name}: {' and '.join(conditions or ['prompt >= 0'])}"


def check_tasks(settings: LabelSettings, origins: Mapping[str, object]) -> None:
    """Raises ConfigError for sources without what they need, and for what no source uses."""
    given = settings.task_from
    needs: Sequence[tuple[str, str, bool]] = (
        ("request_id", "task_pattern", settings.task_pattern is not None),
        ("lengths", "task_lengths", bool(settings.task_lengths)),
    )
    for source, name, is_set in needs:
        if source in given and not is_set:
            raise ConfigError(
                f"task_from asks {source} ({origins['task_from']}) and {name} is none ({origins[name]}): "
                f"set it, or leave {source} out"
            )
        if is_set and source not in given:
            raise ConfigError(
                f"{name} is set ({origins[name]}) and task_from does not ask {source} "
                f"({origins['task_from']}): add {source} to it, or leave {name} out"
            )
    if settings.tasks and not given:
        raise ConfigError(
            f"tasks are listed ({origins['tasks']}) and task_from is off ({origins['task_from']}): say where "
            "a task is found, or list none"
        )
