"""From the bytes that a terminal sends to the names of keys."""

from __future__ import annotations

import codecs
import re

_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~]|[^\[O\x1b])")
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")

_NAMES = {
    "[A": "up",
    "[B": "down",
    "[C": "right",
    "[D": "left",
    "OA": "up",
    "OB": "down",
    "OC": "right",
    "OD": "left",
    "[5~": "page-up",
    "[6~": "page-down",
    "[H": "home",
    "[F": "end",
    "OH": "home",
    "OF": "end",
    "[1~": "home",
    "[4~": "end",
    "[7~": "home",
    "[8~": "end",
    "[Z": "back-tab",
}
_LETTERS = {
    "\r": "enter",
    "\n": "enter",
    "\t": "tab",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x03": "ctrl-c",
    "\x0c": "ctrl-l",
}


class KeyDecoder:
    """Takes bytes as they come, however they are cut, and hands out names of keys.

    Letters are their own names. Sequences that no key here has are swallowed whole, so that a mouse or an
    answer of the terminal does not act as letters.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    @property
    def pending(self) -> bool:
        """Whether an escape has come and what it begins is not known: call :meth:`flush` after a while."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[str]:
        """The keys that are complete now."""
        text = self._held + self._decoder.decode(data)
        self._held = ""
        keys = []
        while text:
            if text[0] != "\x1b":
                keys.append(_LETTERS.get(text[0], text[0]))
                text = text[1:]
            elif (found := _SEQUENCE.match(text)) is not None:
                if (name := _NAMES.get(found.group()[1:])) is not None:
                    keys.append(name)
                text = text[found.end() :]
            elif _BEGUN.match(text):
                self._held, text = text, ""
            else:  # an escape before another, or a sequence that is none
                keys.append("escape")
                text = text[1:]
        return [key for key in keys if len(key) > 1 or key.isprintable()]

    def flush(self) -> list[str]:
        """Nothing came after an escape: it was the key itself."""
        held, self._held = self._held, ""
        return ["escape"] if held else []
