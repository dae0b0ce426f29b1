"""The variables that whoever reports reads, and the place to report to where they say nothing."""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_SOCKET = "/run/joulescope/joulescope.sock"


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Whether ``JOULESCOPE_DISABLED`` says so."""
    return environ.get("JOULESCOPE_DISABLED", "").strip().lower() in {"1", "true", "yes", "on"}


def named_socket(environ: Mapping[str, str]) -> str:
    """The socket that ``JOULESCOPE_SOCKET`` names; empty if it names none."""
    return environ.get("JOULESCOPE_SOCKET", "").strip()


def sampler_choice(environ: Mapping[str, str]) -> str | None:
    """``auto``, ``on`` or ``off``, as ``JOULESCOPE_SAMPLER`` says; ``None`` if it says something else."""
    choice = environ.get("JOULESCOPE_SAMPLER", "").strip().lower() or "auto"
    return choice if choice in ("auto", "on", "off") else None
