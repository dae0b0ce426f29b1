"""An engine's figures once more, by an open label whose values others choose: adapters, tenants, tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from joulescope.label_model import OTHER, LabelTotals, clean
from joulescope.model import PHASES
from joulescope.units import joules_from_uj

_Ints = NDArray[np.int64]

MAX_REFUSED = 10_000
"""So many refused values are told apart; their count stands still then."""

_BASE, _OTHER = 0, 1
"""Codes of what has no value, and of all that got no series."""


class Breakdown:
    """Joules, tokens and ends by the values of one label. Whoever has a series keeps it.

    Requests without a value are not summed: theirs is what the others leave of the engine's own figures. So
    an engine whose requests have none pays nothing for it.

    Args:
        column: of :class:`joulescope.attribution.requests.RequestTable`, with the codes of the values.
        base: name of "no value".
        always: names that have a series from the start.
        most: how many further names get one, in the order in which they come; the rest is ``other``.
    """

    def __init__(self, column: str, base: str, always: Sequence[str], most: int) -> None:
        self.column = column
        self._codes = {base: _BASE, OTHER: _OTHER}
        for name in always:
            self._codes.setdefault(name, len(self._codes))
        self._most = len(self._codes) + most
        self._refused: set[int] = set()
        self._finished = np.zeros(len(self._codes), dtype=np.int64)
        self._generated = np.zeros(len(self._codes), dtype=np.int64)
        self._uj = np.zeros((len(PHASES), len(self._codes)), dtype=np.int64)

    @property
    def refused(self) -> int:
        """Different values that are counted as ``other``."""
        return len(self._refused)

    def code(self, name: str) -> int:
        """The code of a value, which gets a series if there is room."""
        if not name:
            return _BASE
        code = self._codes.get(name)
        if code is None:  # what no label can carry is written as it will be read
            name = clean(name)
            code = self._codes.get(name)
        if code is not None:
            return code
        if len(self._codes) >= self._most:
            if len(self._refused) < MAX_REFUSED:
                self._refused.add(hash(name))
            return _OTHER
        code = self._codes[name] = len(self._codes)
        self._finished, self._generated = np.append(self._finished, 0), np.append(self._generated, 0)
        self._uj = np.pad(self._uj, ((0, 0), (0, 1)))
        return code

    def charge(self, codes: _Ints, paid_uj: _Ints, prefill_uj: _Ints | None) -> None:
        """Takes what requests with these codes paid of an interval, and what of it was for their prompts."""
        count = len(self._codes)
        paid = _by_code(codes, paid_uj, count)
        if prefill_uj is not None:
            prefill = _by_code(codes, prefill_uj, count)
            self._uj[0] += prefill
            paid -= prefill
        self._uj[1] += paid

    def generated(self, codes: _Ints, tokens: _Ints) -> None:
        """Takes tokens that came out of requests with these codes."""
        self._generated += _by_code(codes, tokens, len(self._codes))

    def joined(self, code: int, prefill_uj: int, decode_uj: int, tokens: int) -> None:
        """Takes what a request used while it was counted as one without a value."""
        self._uj[:, code] += (prefill_uj, decode_uj)
        self._generated[code] += tokens

    def finished(self, name: str) -> None:
        """A request of this value is done."""
        self._finished[self.code(name)] += 1

    def totals(self, attributed_uj: Mapping[str, int], generated_tokens: int) -> dict[str, LabelTotals]:
        """By value, in the order in which they came; ``other`` only if anything was refused.

        Args:
            attributed_uj: of the whole engine, by phase.
            generated_tokens: of the whole engine.
        """
        uj, generated = self._uj.copy(), self._generated.copy()
        uj[:, _BASE] = [attributed_uj[phase] for phase in PHASES] - uj[:, _OTHER:].sum(axis=1)
        generated[_BASE] = generated_tokens - generated[_OTHER:].sum()
        columns = zip(uj.T.tolist(), generated.tolist(), self._finished.tolist(), strict=True)
        return {
            name: LabelTotals(dict(zip(PHASES, map(joules_from_uj, spent), strict=True)), tokens, done)
            for name, (spent, tokens, done) in zip(self._codes, columns, strict=True)
            if name != OTHER or self._refused or any(spent) or tokens or done
        }


def _by_code(codes: _Ints, values: _Ints, count: int) -> _Ints:
    """Sums of whole numbers by code; exact below 2**53, and an interval has less than 2**53 uJ (9 GJ)."""
    return np.bincount(codes, values, count).astype(np.int64)
