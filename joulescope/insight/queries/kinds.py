"""Names for what Ibis hands out: a checker does not know its types, and it is imported only when needed."""

from __future__ import annotations

from typing import Any, TypeAlias

Table: TypeAlias = Any
"""An ``ibis.Table``: a question, not yet an answer."""

Column: TypeAlias = Any
"""An ``ibis.Column``, or a figure made of one."""
