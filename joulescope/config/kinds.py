"""Kinds of values that settings have: each reads a text, refuses what is no use, and writes it back."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

UNIX_PATH_BYTES = 107
"""Longest path that fits ``sun_path`` with its closing NUL, ``unix(7)``."""


class Kind(Protocol[T]):
    """How the text of a setting is read and written."""

    @property
    def metavar(self) -> str:
        """What help pages show in place of the value."""
        ...

    def parse(self, text: str) -> T:
        """The value.

        Raises:
            ValueError: if the text is no such value; the message says what would be.
        """
        ...

    def text(self, value: T) -> str:
        """The text from which :meth:`parse` reads the value."""
        ...


def setting(default: T, kind: Kind[T], text: str) -> T:
    """A line of the table. Dataclasses take the field, the type checker sees the default's type."""
    return dataclasses.field(default=default, metadata={"kind": kind, "help": text})


@dataclass(frozen=True, slots=True)
class OrNone(Generic[T]):
    """A value of another kind, or ``none``."""

    kind: Kind[T]

    @property
    def metavar(self) -> str:
        return f"{self.kind.metavar}|none"

    def parse(self, text: str) -> T | None:
        return None if text == "none" else self.kind.parse(text)

    def text(self, value: T | None) -> str:
        return "none" if value is None else self.kind.text(value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One word out of a few."""

    words: tuple[str, ...]

    @property
    def metavar(self) -> str:
        return "|".join(self.words)

    def parse(self, text: str) -> str:
        if text not in self.words:
            raise ValueError(f"it is one of {', '.join(self.words)}")
        return text

    def text(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A number within bounds, both included."""

    low: float
    high: float
    unit: str
    metavar: str = "NUMBER"

    def parse(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"it is a number of {self.unit}") from None
        if not (math.isfinite(value) and self.low <= value <= self.high):
            raise ValueError(f"it lies between {self.low:g} and {self.high:g} {self.unit}")
        return value

    def text(self, value: float) -> str:
        return f"{value:g}"


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within bounds, both included."""

    low: int
    high: int
    unit: str
    metavar: str = "COUNT"

    def parse(self, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"it is a whole number of {self.unit}") from None
        if not self.low <= value <= self.high:
            raise ValueError(f"it lies between {self.low} and {self.high} {self.unit}")
        return value

    def text(self, value: int) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Mode:
    """Permission bits, written in octal with or without a leading ``0`` or ``0o``."""

    metavar: str = "OCTAL"

    def parse(self, text: str) -> int:
        try:
            value = int(text, 8)
        except ValueError:
            raise ValueError("it is octal, such as 0660") from None
        if not 0o600 <= value <= 0o777:
            raise ValueError("it lies between 0600 and 0777, and its owner keeps reading and writing")
        return value

    def text(self, value: int) -> str:
        return f"{value:04o}"


@dataclass(frozen=True, slots=True)
class Listen:
    """``host:port``; an IPv6 host stands in brackets, an empty host means all addresses."""

    metavar: str = "HOST:PORT"

    def parse(self, text: str) -> str:
        host, colon, port = text.rpartition(":")
        if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
            raise ValueError("it is host:port, such as 127.0.0.1:5685 or [::1]:5685")
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError("its port lies between 0 and 65535")
        return f"{host or '0.0.0.0'}:{int(port)}"

    def text(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Gpus:
    """``engine``, ``all``, or UUIDs separated by commas."""

    metavar: str = "engine|all|UUID,..."

    def parse(self, text: str) -> str:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if parts in (["engine"], ["all"]):
            return parts[0]
        if not parts or not all(part.startswith(("GPU-", "MIG-")) for part in parts):
            raise ValueError("it is engine, all, or UUIDs as nvidia-smi -L prints them (GPU-...)")
        return ",".join(dict.fromkeys(parts))

    def text(self, value: str) -> str:
        return value


Factors = tuple[tuple[str, float], ...]
"""Factors by GPU; the one of all GPUs that are not named stands under an empty name, unless it is 1."""


def factor_of(gpu: str, factors: Factors) -> float:
    """The GPU's own factor, or that of all others."""
    known = dict(factors)
    return known.get(gpu, known.get("", 1.0))


@dataclass(frozen=True, slots=True)
class Calibration:
    """``UUID=FACTOR`` separated by commas; a factor without a UUID is that of all other GPUs."""

    low: float
    high: float
    metavar: str = "FACTOR|UUID=FACTOR,..."

    def parse(self, text: str) -> Factors:
        found: dict[str, float] = {}
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            raise ValueError("it is a factor such as 1.05, or factors by GPU such as GPU-...=1.05")
        for part in parts:
            gpu, equals, factor = (word.strip() for word in part.rpartition("="))
            if equals and not gpu.startswith("GPU-"):
                raise ValueError(f"{gpu!r} is no GPU's UUID as nvidia-smi -L prints it (GPU-...)")
            if gpu in found:
                raise ValueError(f"it has two factors for {gpu or 'all other GPUs'}; keep one")
            found[gpu] = self._factor(factor, gpu or "all GPUs")
        return tuple((gpu, factor) for gpu, factor in found.items() if gpu or factor != 1.0)

    def text(self, value: Factors) -> str:
        return ",".join(f"{gpu}={factor!r}" if gpu else repr(factor) for gpu, factor in value) or "1.0"

    def _factor(self, text: str, whose: str) -> float:
        try:
            factor = float(text)
        except ValueError:
            raise ValueError(f"the factor of {whose} is a number, not {text!r}") from None
        if not self.low <= factor <= self.high:
            raise ValueError(
                f"the factor of {whose} lies between {self.low:g} and {self.high:g}: "
                "it is the joules truly drawn for each that the GPU shows"
            )
        return factor


@dataclass(frozen=True, slots=True)
class SocketPath:
    """Path of a Unix socket; ``~`` is the home directory."""

    metavar: str = "PATH"

    def parse(self, text: str) -> str:
        path = _path(text)
        if len(os.fsencode(path)) > UNIX_PATH_BYTES:
            raise ValueError(f"a Unix socket's path has at most {UNIX_PATH_BYTES} bytes; shorten it")
        return path

    def text(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class FilePath:
    """Path of a file; ``-`` stands for standard output where ``dash`` allows it."""

    dash: bool = False

    @property
    def metavar(self) -> str:
        return "PATH|-" if self.dash else "PATH"

    def parse(self, text: str) -> str:
        if text == "-" and not self.dash:
            raise ValueError("it is a file's path; standard output would not do here")
        return _path(text)

    def text(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Folder:
    """Path of a folder; ``~`` is the home directory."""

    metavar: str = "PATH"

    def parse(self, text: str) -> str:
        return _path(text)

    def text(self, value: str) -> str:
        return value


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("it is a path and holds no NUL character")
    return os.path.expanduser(text)
