"""How many examples hypothesis tries: all that a test asks for, or a third where time is short."""

from __future__ import annotations

import os

SHORT = os.environ.get("SHORT_TESTS") == "1"
"""Set by ``make test-fast``. Not one of JOULESCOPE_...: those are settings, and an unknown one is refused."""


def examples(count: int) -> int:
    """As many in CI and ``make test``, a third in ``make test-fast``."""
    return -(-count // 3) if SHORT else count
