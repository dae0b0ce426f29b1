"""Checks of how the sidecar's pages are served: the web configuration file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from joulescope.config import Settings
from joulescope.doctor.findings import Finding, Severity
from joulescope.errors import ConfigError


def check_serving(settings: Settings, wall_seconds: float) -> Iterator[Finding]:
    """Whether the file that ``web_config_file`` names can be used, what it comes to, and what is doubtful.

    ``wall_seconds`` is the wall time now, to which the certificate's is compared.
    """
    if settings.web_config_file is None:
        return
    try:
        from joulescope.export.web_config_file import Sources
        from joulescope.export.web_config_report import facts, warnings
        from joulescope.export.web_config_rules import read_rules
    except ModuleNotFoundError:
        yield _finding(
            Severity.NOTE,
            f"{settings.web_config_file} cannot be read without the sidecar's packages",
            "pip install 'joulescope-inference[sidecar]'",
        )
        return
    try:
        rules = read_rules(Path(settings.web_config_file), Sources())
    except ConfigError as problem:
        yield _finding(
            Severity.ERROR,
            f"{problem}. The sidecar does not start with this file, and one that runs lets nobody in",
            "Mend the file; docs/serving.md has what it may hold",
        )
        return
    yield _finding(Severity.OK, "; ".join(facts(rules)))
    for warning in warnings(rules, wall_seconds):
        yield _finding(Severity.WARNING, warning)


def scheme(settings: Settings) -> str:
    """By which scheme the sidecar's pages are to be asked for, as far as the file tells."""
    if settings.web_config_file is None:
        return "http"
    try:
        from joulescope.export.web_config_file import Sources
        from joulescope.export.web_config_rules import read_rules

        rules = read_rules(Path(settings.web_config_file), Sources())
    except (ConfigError, ModuleNotFoundError):
        return "http"
    return "http" if rules.context is None else "https"


def _finding(severity: Severity, said: str, mend: str = "") -> Finding:
    return Finding("serving", severity, said, mend)
