"""How many examples hypothesis tries: all that a test asks for, or a third where time is short."""

from __future__ import annotations

import os

SHORT = os.environ.get("JOULESCOPE_TESTS") == "short"
"""Set by ``make test-fast``."""


def examples(count: int) -> int:
    """As many in CI and ``make test``, a third in ``make test-fast``."""
    return -(-count // 3) if SHORT else count
