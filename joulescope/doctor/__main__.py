"""``python -m joulescope.doctor``: the same as ``joulescope doctor``, where only the hook is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from joulescope.doctor.findings import EXIT_CODES, worst
from joulescope.doctor.place import Place
from joulescope.doctor.report import WATCH_SECONDS, examine, json_of, text_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Examines this machine or container; the exit code tells the worst that was found."""
    parser = argparse.ArgumentParser(
        prog="joulescope doctor",
        description="Tell what is wrong with this installation, and what mends it. Ends with 0 if nothing "
        "is, 10 if joulescope works and tells less than it could, 20 if it cannot work here.",
    )
    parser.add_argument("--json", action="store_true", help="One JSON object in place of the text.")
    parser.add_argument(
        "--seconds",
        type=float,
        default=WATCH_SECONDS,
        help="How long to watch the meters. [default %(default)g]",
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.seconds <= 3600:
        parser.error(f"--seconds must lie within 0..3600, got {options.seconds:g}")
    findings = examine(Place(), options.seconds)
    print(json_of(findings) if options.json else text_of(findings), end="\n" if options.json else "")
    return EXIT_CODES[worst(findings)]


if __name__ == "__main__":
    sys.exit(main())
