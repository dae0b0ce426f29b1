"""Writes the pages that are made from tables; with ``--check`` only says which are out of date."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from joulescope.config import CONFIG_VARIABLE, TABLE
from joulescope.export.metrics_page import render as metrics_page
from tools.generated import ROOT, write_or_check

DOCS = ROOT / "docs"

CONFIGURATION = f"""\
# Configuration

<!-- Written by `make docs` from the table in joulescope/config/table.py: change the table, not this page. -->

A setting has one name in all places: `sample_hz` is the flag `--sample-hz`, the environment variable
`JOULESCOPE_SAMPLE_HZ` and the key `sample_hz` of a YAML file. A flag wins over the environment, the
environment over the file, the file over the default. The file is named by `--config` or by
`{CONFIG_VARIABLE}`; `joulescope config example` prints one to start with.

`joulescope config show` prints each value and where it came from, down to the line of the file. It takes
the same flags as `joulescope serve`.

A name that no setting has is an error, in the file and among the `JOULESCOPE_` variables too, and the
message says what was probably meant. A variable that is set but empty counts as not set. Left alone are
`JOULESCOPE_DISABLED`, which belongs to the hook, what belongs to the middleware in vLLM, and the variables
that Kubernetes adds to every pod for a Service whose name begins with `joulescope`.

The hook in vLLM's processes reads two of these variables and no file: `JOULESCOPE_SOCKET`, where to
report, and `JOULESCOPE_DISABLED=1`, which switches it off for good; the middleware there has
[some of its own](answer.md#switching-it-on). OpenTelemetry is configured by its own
standard `OTEL_` variables; see [metrics](metrics.md#opentelemetry).

"""


def configuration_page() -> str:
    """The page of settings."""
    parts = [CONFIGURATION]
    for setting in TABLE.values():
        values = setting.kind.metavar.replace("|", "`, `")
        parts.append(
            f"## `{setting.name}`\n\n{setting.help}\n\n"
            f"Flag `{setting.flag}`, variable `{setting.variable}`. Values: `{values}`. "
            f"Default: `{setting.text(setting.default)}`.\n\n"
        )
    return "".join(parts).rstrip("\n") + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "configuration.md": configuration_page,
    "metrics.md": metrics_page,
}
"""What makes each generated page of ``docs/``."""


def pages(folder: Path = DOCS) -> dict[Path, str]:
    """Each generated page below the folder, as the tables have it."""
    return {folder / name: render() for name, render in PAGES.items()}


if __name__ == "__main__":
    sys.exit(write_or_check(pages(), sys.argv[1:], "docs"))
