"""All checks in their order, and how they are printed."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence

import joulescope
from joulescope.clock import WallAnchor
from joulescope.doctor.engine import check_hook, check_sidecar, check_socket
from joulescope.doctor.findings import Finding, Severity, worst
from joulescope.doctor.gpus import check_gpus
from joulescope.doctor.place import Place
from joulescope.doctor.sampler import check_sampler
from joulescope.doctor.serving import check_serving
from joulescope.doctor.surroundings import check_clock, check_container, check_python, check_settings

WATCH_SECONDS = 3.0
"""How long the meters are watched: thirty ticks of a counter that ticks every 100 ms."""

_WORDS = {Severity.OK: "ok", Severity.NOTE: "note", Severity.WARNING: "warning", Severity.ERROR: "ERROR"}
_INDENT = 21


def examine(place: Place, seconds: float = WATCH_SECONDS) -> list[Finding]:
    """Runs every check; nothing is changed by it."""
    settings, findings = check_settings(place)
    return [
        *check_python(),
        *check_container(place),
        *findings,
        *check_clock(place),
        *check_gpus(settings, place, seconds),
        *check_socket(settings, place),
        *check_serving(settings, WallAnchor.now().wall_ns / 1e9),
        *check_sidecar(settings),
        *check_hook(place),
        *check_sampler(place),
    ]


def text_of(findings: Sequence[Finding], width: int | None = None) -> str:
    """A paragraph a finding, with an arrow before what mends it, and a verdict at the end."""
    width = width or min(shutil.get_terminal_size((100, 24)).columns, 120)
    lines = []
    for finding in findings:
        label = f"{_WORDS[finding.severity]:<9}{finding.check:<12}"
        lines.append(_wrapped(finding.said, label, width))
        if finding.mend:
            lines.append(_wrapped(finding.mend, f"{'':<{_INDENT - 2}}→ ", width))
    return "\n".join(lines) + f"\n\n{_verdict(findings)}\n"


def json_of(findings: Sequence[Finding]) -> str:
    """One object: version, the worst severity, and all findings in order."""
    told = {
        "version": joulescope.__version__,
        "worst": worst(findings).name.lower(),
        "findings": [
            {
                "check": finding.check,
                "severity": finding.severity.name.lower(),
                "said": finding.said,
                "mend": finding.mend,
            }
            for finding in findings
        ],
    }
    return json.dumps(told, indent=2)


def _wrapped(text: str, label: str, width: int) -> str:
    return textwrap.fill(
        text,
        width,
        initial_indent=label,
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _verdict(findings: Sequence[Finding]) -> str:
    counts = {severity: sum(each.severity is severity for each in findings) for severity in Severity}
    errors, warnings = counts[Severity.ERROR], counts[Severity.WARNING]
    if errors:
        return f"{errors} error{'s' * (errors > 1)}, {warnings} warning{'s' * (warnings != 1)}."
    if warnings:
        return f"It works, with {warnings} warning{'s' * (warnings > 1)}."
    return "All is well."
