"""The guard against skipped tests: it sees them, and lets only those pass that have a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_skips import main, problems, read_allowed, skipped_tests

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_one"/>
<testcase classname="tests.a" name="test_two[x]"><skipped type="pytest.skip" message="no gcc"/></testcase>
<testcase classname="tests.b" name="test_three"><skipped type="pytest.xfail" message="known"/></testcase>
</testsuite></testsuites>"""


def test_skips_and_expected_failures_are_found() -> None:
    """Both kinds are listed by id with their reason."""
    assert skipped_tests(REPORT) == (3, {"tests.a::test_two[x]": "no gcc", "tests.b::test_three": "known"})


def test_only_tests_on_the_list_may_be_skipped() -> None:
    """A glob of the list covers its tests and no others."""
    count, skipped = skipped_tests(REPORT)
    assert problems(count, skipped, {"tests.a::*": "why"}) == ["tests.b::test_three was skipped: known"]
    assert problems(count, skipped, {"tests.?::*": "why"}) == []


def test_a_report_without_tests_is_a_problem() -> None:
    """A run that collected nothing does not pass for one that skipped nothing."""
    assert problems(*skipped_tests("<testsuites/>"), {}) == ["the report has no tests at all"]


def test_the_list_needs_a_reason_for_each_line() -> None:
    """Comments and empty lines are skipped; a line without a reason is refused."""
    assert read_allowed("# a\n\ntests.a::* because of b\n") == {"tests.a::*": "because of b"}
    with pytest.raises(ValueError, match="not said why"):
        read_allowed("tests.a::*\n")


def test_the_exit_code_tells(tmp_path: Path) -> None:
    """1 with a skip that is not on the list, 0 when all are."""
    report, allowed = tmp_path / "report.xml", tmp_path / "allowed"
    report.write_text(REPORT)
    for text, code in (("", 1), ("tests.* x\n", 0)):
        allowed.write_text(text)
        assert main([str(report), str(allowed)]) == code
