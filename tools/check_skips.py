"""Refuses a test report with skipped tests: ``check_skips.py REPORT.xml ALLOWED``.

REPORT is pytest's ``--junitxml``. ALLOWED has a line for each test that may be skipped: a glob over
``module::name`` (``tests.hook.test_tap::test_*``), a blank, and the reason. Expected failures count as
skipped.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path


def read_allowed(text: str) -> dict[str, str]:
    """Reasons by glob.

    Raises:
        ValueError: for a line without a reason.
    """
    allowed = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        glob, _, reason = line.strip().partition(" ")
        if not reason.strip():
            raise ValueError(f"{glob} may be skipped, but it is not said why")
        allowed[glob] = reason.strip()
    return allowed


def skipped_tests(report: str) -> tuple[int, dict[str, str]]:
    """How many tests the report has, and the reason of each skipped one by its id."""
    cases = list(ElementTree.fromstring(report).iter("testcase"))
    skipped = {}
    for case in cases:
        mark = case.find("skipped")
        if mark is not None:
            skipped[f"{case.get('classname')}::{case.get('name')}"] = mark.get("message") or ""
    return len(cases), skipped


def problems(count: int, skipped: Mapping[str, str], allowed: Mapping[str, str]) -> list[str]:
    """What is wrong with the report; an empty list if nothing is."""
    found = [] if count else ["the report has no tests at all"]
    for test, reason in skipped.items():
        if not any(fnmatchcase(test, glob) for glob in allowed):
            found.append(f"{test} was skipped: {reason}")
    return found


def main(arguments: list[str]) -> int:
    """Prints what is wrong; 1 if something is."""
    report, allowed_path = map(Path, arguments)
    count, skipped = skipped_tests(report.read_text())
    found = problems(count, skipped, read_allowed(allowed_path.read_text()))
    for problem in found:
        print(problem, file=sys.stderr)
    print(f"{count} tests, {len(skipped)} skipped, {len(found)} of them without leave")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
