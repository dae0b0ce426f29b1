"""Kinds of settings that say which adapters, tenants and tasks are told apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from joulescope.errors import ConfigError
from joulescope.label_model import BASE_ADAPTER, NO_TENANT, OTHER

MOST_LISTED = 1000
MOST_CHARACTERS = 200
MOST_CHOICES = 3

_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P<\w+>|\(\?:|\(\?|\{\d*,?\d*\}|.", re.DOTALL)
_FIXED = re.compile(r"\{\d+\}")


@dataclass(frozen=True, slots=True)
class Names:
    """Label values separated by commas, or ``none``."""

    metavar: str = "NAME,...|none"

    def parse(self, text: str) -> tuple[str, ...]:
        if text == "none":
            return ()
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not names:
            raise ValueError("it is one or more names separated by commas, or none")
        if len(names) > MOST_LISTED:
            raise ValueError(f"it has {len(names)} names, {MOST_LISTED} are the most: each costs series")
        taken = {BASE_ADAPTER, NO_TENANT, OTHER}.intersection(names)
        if taken:
            raise ValueError(f"{min(taken)!r} already stands for something else; leave it out")
        return names

    def text(self, value: tuple[str, ...]) -> str:
        return ",".join(value) or "none"


@dataclass(frozen=True, slots=True)
class LabelPattern:
    """A regular expression with a group of this name, of a kind that is quick whatever it is given.

    Clients choose what it is matched against. Matching backtracks, so what multiplies its ways is bounded:
    no repeated groups, no references back, no looking around, and few places with a choice.
    """

    group: str
    metavar: str = "REGEX"

    def parse(self, text: str) -> str:
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"it has {len(text)} characters, {MOST_CHARACTERS} are the most")
        try:
            groups = re.compile(text).groupindex
        except re.error as problem:
            raise ValueError(f"it is no regular expression: {problem}") from None
        if self.group not in groups:
            raise ValueError(
                f"it has no group of that name: write (?P<{self.group}>...) around the {self.group}"
            )
        choices = _choices(text)
        if choices > MOST_CHOICES:
            raise ValueError(
                f"it has {choices} places with a choice (*, +, ?, {{m,n}}, or alternatives), "
                f"{MOST_CHOICES} are the most: clients choose what it is matched against"
            )
        return text

    def text(self, value: str) -> str:
        return value


def _choices(pattern: str) -> int:
    """Places of a valid pattern where matching has a choice.

    Raises:
        ValueError: for what is not allowed at all.
    """
    count, before = 0, ""
    alternatives = [False]
    """Of each group that is open, whether it has any."""
    for token in _TOKEN.findall(pattern):
        if re.fullmatch(r"\\[1-9]", token) or token == "(?":
            raise ValueError("it refers back, looks around or sets flags (\\1, (?=...), (?i)): do without")
        if token in ("*", "+", "?") or (len(token) > 1 and token[0] == "{"):
            if before == ")" and token != "?":
                raise ValueError(f"it repeats a group with {token}; repeat single characters or classes")
            if before in ("*", "+", "?", "{}"):
                continue  # lazy or possessive
            count += not _FIXED.fullmatch(token)
            before = token if len(token) == 1 else "{}"
            continue
        if token == "|":
            count += not alternatives[-1]
            alternatives[-1] = True
        elif token[0] == "(":
            alternatives.append(False)
        elif token == ")":
            alternatives.pop()
        before = token
    return count


def check_tenants(tenant_from: str, tenants: tuple[str, ...], origins: Mapping[str, object]) -> None:
    """Raises ConfigError if tenants are listed that nobody looks for."""
    if tenants and tenant_from == "off":
        raise ConfigError(
            f"tenants are listed ({origins['tenants']}) and tenant_from is off ({origins['tenant_from']}): "
            "say where a tenant is found, request_id or lora, or list none"
        )
