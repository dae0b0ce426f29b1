"""The small language of distributions: ``name(value, key=value, key=[value, value])``, or a number alone."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from joulescope.errors import ConfigError

Value = float | str | tuple[float, ...]

_CALL = re.compile(r"([A-Za-z][A-Za-z-]*)\s*\((.*)\)", re.DOTALL)
_COMMA = re.compile(r",(?![^\[]*\])")
"""A comma that stands in no list."""


@dataclass(frozen=True, slots=True)
class Call:
    """A name and its arguments, as they were written."""

    where: str
    """What it is the value of, for messages."""
    text: str
    name: str
    positional: tuple[Value, ...]
    named: Mapping[str, Value]

    def error(self, problem: str) -> ConfigError:
        """An error that says where and what was written."""
        return ConfigError(f"{self.where}: {self.text}: {problem}")

    def take(self, *, required: Sequence[str] = (), optional: Sequence[str] = ()) -> dict[str, Value]:
        """The arguments by name; those without a name are the first of the required.

        Raises:
            ConfigError: one is missing, twice there, or not known.
        """
        if len(self.positional) > len(required):
            raise self.error(f"too many values; it takes {_listed([*required, *optional])}")
        values = dict(zip(required, self.positional, strict=False))
        for key, value in self.named.items():
            if key in values:
                raise self.error(f"{key} comes twice")
            if key not in required and key not in optional:
                raise self.error(f"{key} is not known; it takes {_listed([*required, *optional])}")
            values[key] = value
        missing = [key for key in required if key not in values]
        if missing:
            raise self.error(f"{_listed(missing)} is missing")
        return values

    def number(self, value: Value, key: str) -> float:
        """A value as a number.

        Raises:
            ConfigError: it is none.
        """
        if not isinstance(value, float):
            raise self.error(f"{key} is to be a number")
        return value

    def numbers(self, **kwargs: Sequence[str]) -> dict[str, float]:
        """:meth:`take`, where all are numbers."""
        return {key: self.number(value, key) for key, value in self.take(**kwargs).items()}


def parse_call(text: str, where: str) -> Call | float:
    """Reads one expression.

    Raises:
        ConfigError: it is none.
    """
    stripped = text.strip()
    number = _number(stripped)
    if number is not None:
        return number
    found = _CALL.fullmatch(stripped)
    if found is None:
        raise ConfigError(f"{where}: {text!r} is neither a number nor an expression such as uniform(1, 2)")
    positional: list[Value] = []
    named: dict[str, Value] = {}
    parts = _COMMA.split(found[2]) if found[2].strip() else []
    for part in parts:
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals:
            if named:
                raise ConfigError(f"{where}: {text}: {key} stands without a name after values that have one")
            positional.append(_value(key, text, where))
        elif key in named:
            raise ConfigError(f"{where}: {text}: {key} comes twice")
        else:
            named[key] = _value(value, text, where)
    return Call(where, stripped, found[1].lower(), tuple(positional), named)


def _value(text: str, whole: str, where: str) -> Value:
    if text.startswith("[") and text.endswith("]"):
        numbers = [_number(each) for each in text[1:-1].split(",") if each.strip()]
        if not numbers or None in numbers:
            raise ConfigError(f"{where}: {whole}: {text} is not a list of numbers")
        return tuple(number for number in numbers if number is not None)
    if not text:
        raise ConfigError(f"{where}: {whole}: a value is missing")
    number = _number(text)
    return text.strip("'\"") if number is None else number


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) or "nothing"


def number_text(value: float) -> str:
    """The shortest text that reads back as the same number; whole ones without a point."""
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else repr(float(value))
