"""Text, bars and sparklines for terminals of any kind: with or without colours, Unicode or ASCII."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

DASH = "-"
_BLOCKS = "▁▂▃▄▅▆▇█"
_LETTERS = "_.:-=+*#"
_SIZES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def clean(text: str) -> str:
    """Text from outside without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


@dataclass(frozen=True, slots=True)
class Look:
    """What the terminal can show."""

    unicode: bool = True
    colour: bool = True

    def text(self, text: str) -> str:
        """The text in the letters that the terminal knows; ``?`` for others."""
        if self.unicode:
            return text
        for known, plain in (("…", "~"), ("▲", "^"), ("▼", "v"), ("·", "-"), ("─", "-"), ("–", "-")):
            text = text.replace(known, plain)
        return text.encode("ascii", "replace").decode("ascii")

    def spark(self, values: Sequence[float | None], *, lowest: float | None = None) -> str:
        """A line with one letter a value, from ``lowest`` (else the least value) to the greatest."""
        letters = _BLOCKS if self.unicode else _LETTERS
        known = [value for value in values if value is not None]
        if not known:
            return " " * len(values)
        least = min(known) if lowest is None else lowest
        span = max(known) - least
        return "".join(" " if value is None else _letter(letters, value - least, span) for value in values)

    def stacked(self, parts: Sequence[tuple[float, str, str]], cells: int) -> Text:
        """A bar of parts ``(ratio, letter, style)``: blocks in colours, or letters where there are none."""
        bar = Text(no_wrap=True)
        for (ratio, letter, style), count in zip(
            parts, _cells([part[0] for part in parts], cells), strict=True
        ):
            bar.append(("█" if self.unicode and self.colour else letter) * count, style if ratio else "")
        return bar


def _letter(letters: str, height: float, span: float) -> str:
    if span <= 0:
        return letters[len(letters) // 2 - 1]
    return letters[min(max(int(height / span * len(letters)), 0), len(letters) - 1)]


def _cells(ratios: Sequence[float], cells: int) -> list[int]:
    """Cells of each part, ``cells`` in all if the ratios sum to 1: the largest remainders get one more."""
    exact = [max(ratio, 0.0) * cells for ratio in ratios]
    counts = [int(each) for each in exact]
    missing = min(round(sum(exact)), cells) - sum(counts)
    for index in sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])[: max(missing, 0)]:
        counts[index] += 1
    return counts


def figure(value: float | None, digits: int = 0, unit: str = "") -> str:
    """A number with its unit; a dash where it is not known."""
    if value is None:
        return DASH
    return f"{value:.{digits}f}{unit and ' '}{unit}"


def percent(ratio: float | None) -> str:
    return DASH if ratio is None else f"{ratio:.0%}".replace("%", " %")


def count(value: float | None) -> str:
    """A count in four letters or so: 950, 12.3k, 4.5M."""
    if value is None:
        return DASH
    for size, prefix in _SIZES:
        if abs(value) >= 10 * size:
            return f"{value / size:.1f}{prefix}" if abs(value) < 100 * size else f"{value / size:.0f}{prefix}"
    return f"{value:.0f}"


def joules(value: float | None) -> str:
    """Joules in six letters or so, always with at least three figures."""
    if value is None:
        return DASH
    for size, prefix in _SIZES:
        if abs(value) >= 10 * size:
            return f"{value / size:.2f} {prefix}J"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


def joules_unit(value: float | None) -> str:
    """The same with its unit, where the heading does not name it."""
    text = joules(value)
    return text if value is None or text.endswith("J") else f"{text} J"


def small(value: float | None) -> str:
    """Joules per output: three figures, whatever the size."""
    if value is None:
        return DASH
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else count(value)


def duration(seconds: float | None) -> str:
    """8.2s, 48s, 3m04, 2h10, 3d04."""
    if seconds is None:
        return DASH
    whole = int(max(seconds, 0.0))
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f}s"
    if whole < 60:
        return f"{whole}s"
    for size, smaller, letter in ((3600, 60, "m"), (86400, 3600, "h")):
        if whole < size:
            return f"{whole // smaller}{letter}{whole % smaller * 60 // smaller:02d}"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}"
