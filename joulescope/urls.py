"""URLs as messages may show them: without what may be a secret."""

from __future__ import annotations

import re

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_INSIDE = rf"(?![,;]{_SCHEME})"
_URL = re.compile(rf"(?P<scheme>{_SCHEME})(?P<rest>(?:{_INSIDE}[^\s?#])*)(?:[?#](?:{_INSIDE}\S)*)?")
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:@]*)(?::\d*)?")


def shown(text: str) -> str:
    """A URL, or a text with URLs in it, without their user names, passwords, queries and fragments: a key of
    a store, or a signature, may be in any of them."""
    return _URL.sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    scheme, rest = found["scheme"], found["rest"]
    if _HOST.fullmatch(rest.partition("/")[0]):
        return scheme + rest
    # Keys may have a slash: what stands before the last @ is no host then.
    return scheme + rest.rpartition("@")[2] if "@" in rest else scheme
