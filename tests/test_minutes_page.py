"""docs/minutes.md names every column, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from joulescope.minutes import CELL_COLUMNS, COLUMNS

PAGE = Path(__file__).parents[1] / "docs" / "minutes.md"


def test_the_page_names_every_column() -> None:
    """Whatever is added to a minute is written down."""
    named = set(re.findall(r"`([a-z_]+)`", PAGE.read_text()))
    assert not {*COLUMNS, *CELL_COLUMNS} - named


def test_the_page_names_no_column_that_is_none() -> None:
    """In the first cells of its tables."""
    cells = re.findall(r"^\| (`[^|]*`) \|", PAGE.read_text(), re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}
    assert named <= {*COLUMNS, *CELL_COLUMNS}
    assert len(named) > 100
