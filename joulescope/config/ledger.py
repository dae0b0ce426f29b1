"""Settings of the ledger: kinds of values, and what must be set together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from joulescope import urls
from joulescope.config.kinds import Folder, Number, OrNone, Whole, setting
from joulescope.config.label_settings import LabelSettings
from joulescope.errors import ConfigError

if TYPE_CHECKING:
    from joulescope.config.table import Settings


def is_store(place: str) -> bool:
    """Whether a place is the URL of an object store, and no local folder."""
    return "://" in place and not place.startswith("file://")


@dataclass(frozen=True, slots=True)
class LedgerPlace:
    """Path of a folder, or URL of one in an object store."""

    metavar: str = "PATH|URL"

    def parse(self, text: str) -> str:
        if "://" not in text:
            return Folder().parse(text)
        try:
            parts = urlsplit(text)
        except ValueError as problem:
            raise ValueError(f"it is a URL such as s3://bucket/ledger ({problem})") from None
        if parts.scheme == "file":
            return Folder().parse(text.removeprefix("file://"))
        if urls.shown(text) != text:
            raise ValueError(
                "credentials and options do not belong into the URL; the store's own variables hold them, "
                "such as AWS_ACCESS_KEY_ID, and fsspec's configuration file the options"
            )
        if not parts.scheme or not (parts.netloc or parts.path.strip("/")):
            raise ValueError("it is a URL such as s3://bucket/ledger")
        return text.rstrip("/")

    def text(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class LedgerSettings(LabelSettings):
    """Part of :class:`joulescope.config.table.Settings`, which inherits it."""

    ledger: str | None = setting(
        None,
        OrNone(LedgerPlace()),
        "Folder, or URL of an object store as fsspec knows it (s3://bucket/ledger), in which finished "
        "requests and minutes of engines are kept as Parquet files. Needs the extra ledger.",
    )
    ledger_spool: str | None = setting(
        None,
        OrNone(Folder()),
        "Where the ledger is in an object store: the local folder in which its files are collected until the "
        "store has them. On a volume that outlives the pod, if they are to.",
    )
    ledger_flush_seconds: float = setting(
        10.0,
        Number(0.1, 600.0, "seconds"),
        "How often what has finished is written to the ledger's disk and synced, seconds: so much is lost at "
        "most when the sidecar is killed or the power fails.",
    )
    ledger_rotate_seconds: float = setting(
        3600.0,
        Number(10.0, 86400.0, "seconds"),
        "After how long what was written becomes a Parquet file, and goes to the object store, seconds.",
    )
    ledger_rotate_mebibytes: int = setting(
        8,
        Whole(1, 256, "MiB"),
        "How much of it becomes one sooner, MiB before it is compressed: it passes through memory whole.",
    )
    ledger_max_mebibytes: int = setting(
        4096,
        Whole(16, 1_000_000_000, "MiB"),
        "How large the ledger's folder, or its spool, may grow, MiB; beyond it the oldest files go, and are "
        "counted. An object store is not looked at: bound it by a rule of its own.",
    )
    ledger_max_days: float = setting(
        400.0,
        Number(1.0, 100_000.0, "days"),
        "How many days files stay in the ledger's folder, or wait in its spool.",
    )


def check_ledger(settings: Settings, origins: Mapping[str, object]) -> None:
    """A ledger in a store has a spool, and no other has.

    Raises:
        ConfigError: if it is not so.
    """
    in_store = settings.ledger is not None and is_store(settings.ledger)
    if in_store and settings.ledger_spool is None:
        raise ConfigError(
            f"ledger ({origins['ledger']}) is an object store and needs ledger_spool too: a local folder in "
            "which its files are collected, such as /var/lib/joulescope/spool"
        )
    if settings.ledger_spool is not None and not in_store:
        raise ConfigError(
            f"ledger_spool ({origins['ledger_spool']}) is of use only where ledger is the URL of an object "
            "store; a ledger in a folder collects its files there: leave ledger_spool away"
        )
