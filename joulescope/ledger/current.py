"""Which Parquet files of a ledger count: a compact file takes the place of those whose rows it has.

All may be there at once, while they are replaced or because the process ended meanwhile. Nothing is counted
twice then, and nothing left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from joulescope.ledger.convert import Looked
from joulescope.ledger.layout import is_compact
from joulescope.ledger.place import Place, Stored


@dataclass(slots=True)
class Current:
    """Files of a table that count, by stem, and what else was found out."""

    files: dict[str, tuple[Place, Stored]] = field(default_factory=dict)
    done: list[tuple[Place, Stored]] = field(default_factory=list)
    """All their rows are in compact files that count."""
    replaces: dict[str, frozenset[str]] = field(default_factory=dict)
    """By stem of a compact file that counts, what it takes the place of."""

    @property
    def replaced(self) -> frozenset[str]:
        return frozenset().union(*self.replaces.values())


def current(
    found: Collection[tuple[Place, Stored]],
    look: Callable[[Place, Stored], Looked | None],
    reject: Callable[[Place, Stored, str], None],
) -> Current:
    """Sorts out files of a table, in the order in which they are to be preferred.

    Args:
        look: at a file; ``None`` if it is gone.
        reject: is told of what does not count, and why.
    """
    result = Current()
    compact: dict[str, tuple[Place, Stored, frozenset[str]]] = {}
    for place, stored in found:
        if is_compact(stored.stem) and stored.stem not in compact:
            seen = _seen(place, stored, look, reject)
            if seen is not None:
                compact[stored.stem] = place, stored, seen.replaces
    names = {stored.stem for _, stored in found}
    for stem in _that_count({stem: replaces for stem, (_, _, replaces) in compact.items()}, names):
        place, stored, replaces = compact.pop(stem)
        result.files[stem] = place, stored
        result.replaces[stem] = replaces
    replaced = result.replaced
    for place, stored, _ in compact.values():
        if stored.stem not in replaced:
            reject(place, stored, "has rows that another compact file has too: two compactions ran at once")
    for place, stored in found:
        if stored.stem in replaced:
            result.done.append((place, stored))
        elif stored.stem in result.files or is_compact(stored.stem):
            continue
        elif _seen(place, stored, look, reject) is not None:
            result.files[stored.stem] = place, stored
    return result


def _seen(
    place: Place,
    stored: Stored,
    look: Callable[[Place, Stored], Looked | None],
    reject: Callable[[Place, Stored, str], None],
) -> Looked | None:
    seen = look(place, stored)
    if seen is not None and seen.wrong:
        reject(place, stored, seen.wrong)
        return None
    return seen


def _that_count(replaces: Mapping[str, frozenset[str]], there: Collection[str]) -> list[str]:
    """Of compact files those that are in no other, and share no row with one that counts.

    Where two share some, because two compactions ran at once on a store, neither being in the other: one
    that may have removed what it replaces counts before one that has not, so that no row is missing.
    """
    inner = frozenset().union(*replaces.values())
    outer = sorted(
        (stem for stem in replaces if stem not in inner),
        key=lambda stem: (len(replaces[stem] & frozenset(there)), -len(replaces[stem]), stem),
    )
    kept: list[str] = []
    taken: set[str] = set()
    for stem in outer:
        if not replaces[stem] & taken:
            kept.append(stem)
            taken |= replaces[stem]
    return kept
