"""Settings of the link between nodes: kinds of values, and what must be set together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from joulescope.config.kinds import Listen
from joulescope.errors import ConfigError

if TYPE_CHECKING:
    from joulescope.config.table import Settings


@dataclass(frozen=True, slots=True)
class HostPort:
    """``host:port`` to connect to."""

    metavar: str = "HOST:PORT"

    def parse(self, text: str) -> str:
        if text.startswith(":") or text.endswith(":0"):
            raise ValueError("it is the host and port of the head, such as leader.example:5686")
        return Listen().parse(text)

    def text(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Name:
    """A name of at most 64 printable characters."""

    metavar: str = "NAME"

    def parse(self, text: str) -> str:
        if not (text.isprintable() and 0 < len(text) <= 64):
            raise ValueError("it has 1 to 64 printable characters")
        return text

    def text(self, value: str) -> str:
        return value


def check_link(settings: Settings, origins: Mapping[str, object]) -> None:
    """A link has its three files, or there is none.

    Raises:
        ConfigError: if one is missing.
    """
    wants = next((name for name in ("link_listen", "link_connect") if getattr(settings, name)), None)
    missing = [
        name
        for name in ("link_cert_file", "link_key_file", "link_ca_file")
        if getattr(settings, name) is None
    ]
    if wants and missing:
        raise ConfigError(
            f"{wants} ({origins[wants]}) needs {', '.join(missing)} too: links between nodes are never "
            "without TLS and certificates of both ends; docs/multi-node.md shows how to make them"
        )
