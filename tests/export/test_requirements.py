"""How tests ask for programs."""

from __future__ import annotations

import pytest

from tests.requirements import need_program


def test_a_missing_program_skips_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a developer's machine a test that cannot run says which program it lacks."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        need_program("no-such-program")


def test_a_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ``CI=true`` a test may not vanish in silence."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        need_program("no-such-program")


def test_a_program_that_is_there_is_found() -> None:
    """The path of a program on PATH comes back."""
    assert need_program("sh").endswith("/sh")
