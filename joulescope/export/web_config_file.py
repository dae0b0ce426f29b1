"""How the web configuration file is read: what it holds by key, with the line for whoever has to mend it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import yaml

from joulescope.errors import ConfigError

MAX_BYTES = 1 << 20
"""Longest file that is read; real ones have some kilobytes."""

_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NULL = "tag:yaml.org,2002:null"


class Sources:
    """The files that were read, and what they held then."""

    def __init__(self) -> None:
        self._held: dict[Path, bytes] = {}

    def read(self, path: Path, place: str = "") -> bytes:
        """What a file holds; ``place`` is where it is named.

        Raises:
            ConfigError: if it cannot be read.
        """
        try:
            held = _read(path)
        except OSError as problem:
            raise ConfigError(f"{place and place + ': '}{path} cannot be read: {problem.strerror}") from None
        if len(held) > MAX_BYTES:
            raise ConfigError(f"{place and place + ': '}{path} has more than {MAX_BYTES} bytes")
        self._held[path] = held
        return held

    def unchanged(self) -> bool:
        """Whether every file still holds the same; one that cannot be read does not."""
        try:
            return all(_read(path) == held for path, held in self._held.items())
        except OSError:
            return False


class Block:
    """A mapping of the file, complete with its place. It is false where it holds nothing."""

    def __init__(self, path: Path, name: str, line: int, nodes: Mapping[str, tuple[yaml.Node, int]]) -> None:
        self._path = path
        self._name = name
        self._line = line
        self._nodes = nodes

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def names(self) -> Sequence[str]:
        """Its keys, in the order of the file."""
        return list(self._nodes)

    def place(self, key: str) -> str:
        """File, line and name of a key, or of the block itself where the key is not there."""
        line = self._nodes[key][1] if key in self._nodes else self._line
        name = ".".join(part for part in (self._name, key) if part)
        return f"{self._path}:{line}: {name}"

    def error(self, key: str, complaint: str) -> ConfigError:
        """What is wrong with a key, to be raised."""
        return ConfigError(f"{self.place(key)} {complaint}")

    def text(self, key: str) -> str:
        """A single value as it is written; empty if there is none."""
        if key not in self._nodes:
            return ""
        return self._scalar(key, self._nodes[key][0])

    def texts(self, key: str) -> Sequence[str] | None:
        """A list of single values; ``None`` if there is none."""
        node = self._nodes.get(key, (None, 0))[0]
        if node is None or node.tag == _NULL:
            return None
        if not isinstance(node, yaml.SequenceNode):
            raise self.error(key, "is a list, one '- value' a line")
        return [self._scalar(key, item) for item in node.value]

    def flag(self, key: str, default: bool) -> bool:
        """``true`` or ``false``."""
        text = self.text(key)
        if not text:
            return default
        if text.lower() not in _FLAGS:
            raise self.error(key, "is true or false")
        return _FLAGS[text.lower()]

    def block(self, key: str, known: Sequence[str] | None) -> Block:
        """A mapping within this one; empty if there is none. ``known``: keys it may have, or any.

        Raises:
            ConfigError: if it is no mapping, has an unknown key, or one twice.
        """
        name = ".".join(part for part in (self._name, key) if part)
        if key not in self._nodes:
            return Block(self._path, name, self._line, {})
        node, line = self._nodes[key]
        return Block(self._path, name, line, _entries(self._path, name, node, known))

    def _scalar(self, key: str, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(key, "is a single value")
        return "" if node.tag == _NULL else str(node.value)


def top_block(path: Path, sources: Sources, known: Sequence[str]) -> Block:
    """The whole file.

    Raises:
        ConfigError: if it cannot be read, is no YAML, or is empty. An empty file is what a writer leaves
            for a moment, or a disk that ran full, and would take all protection away.
    """
    text = sources.read(path)
    try:
        node = yaml.compose(text.decode(), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{path}: is not UTF-8 at byte {problem.start}; save it as UTF-8") from None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{place}: is not YAML: {problem.problem or problem.context}") from None
    except yaml.YAMLError as problem:
        raise ConfigError(f"{path}: is not YAML: {problem}") from None
    if node is None:
        raise ConfigError(f"{path}: is empty and would protect nothing; write {{}} if that is meant")
    return Block(path, "", 1, _entries(path, "", node, known))


def _entries(
    path: Path, name: str, node: yaml.Node, known: Sequence[str] | None
) -> Mapping[str, tuple[yaml.Node, int]]:
    if node.tag == _NULL:
        return {}
    what = name or "the file"
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: {what} holds 'key: value' lines")
    found: dict[str, tuple[yaml.Node, int]] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        if known is not None and key not in known:
            raise ConfigError(f"{path}:{line}: {what} has no {key!r}{_meant(key, known)}")
        if key in found:
            raise ConfigError(
                f"{path}:{line}: {key} stands already on line {found[key][1]}; keep one of them"
            )
        found[key] = (value_node, line)
    return found


def _meant(key: str, known: Sequence[str]) -> str:
    close = get_close_matches(key, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; it may have {', '.join(known)}"


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
