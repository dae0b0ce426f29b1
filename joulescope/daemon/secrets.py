"""Secrets that settings name: where they are, never what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from joulescope.errors import ConfigError
from joulescope.factors.sources import clean_token, token_of_file

Token = Callable[[], str]
"""Reads a token anew. Raises :class:`~joulescope.errors.FetchError` if it cannot be had now."""


def token_of(setting: str, place: str | None, environ: Mapping[str, str]) -> Token | None:
    """How to come by a token. A variable cannot change any more: a bad one is refused now.

    Raises:
        ConfigError: if the variable holds none.
    """
    if place is None:
        return None
    kind, _, where = place.partition(":")
    if kind == "file":
        return token_of_file(where)
    try:
        token = clean_token(environ.get(where, ""))
    except ValueError as problem:
        raise ConfigError(f"{setting} names the variable {where}: {problem}; set it, or unset both") from None
    return lambda: token
