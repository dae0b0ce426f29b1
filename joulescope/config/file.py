"""The YAML file of settings, read as texts with the lines on which they stand."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from joulescope.errors import ConfigError


def read_entries(path: str) -> Iterator[tuple[str, str | None, int]]:
    """Key, text and line (from 1) of every entry of a YAML mapping; ``None`` stands for ``null``.

    The text is what is written, not what YAML makes of it: to YAML 1.1 ``0660`` is the number 432.
    A list becomes its items joined by commas.

    Raises:
        ConfigError: if the file cannot be read, is not YAML, is no mapping of scalars and lists, or
            names a key twice.
    """
    root = _compose(path)
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{_place(path, root)}: expected settings as 'name: value', one a line")
    seen: dict[str, int] = {}
    for key_node, value_node in root.value:
        line = key_node.start_mark.line + 1
        key = _scalar(path, key_node) or "null"
        if key in seen:
            raise ConfigError(f"{path}:{line}: {key} is already set on line {seen[key]}; keep one of them")
        seen[key] = line
        yield key, _text(path, key, value_node), line


def _compose(path: str) -> yaml.Node | None:
    try:
        with open(path, encoding="utf-8") as file:
            node: yaml.Node | None = yaml.compose(file, Loader=yaml.SafeLoader)
            return node
    except OSError as problem:
        raise ConfigError(f"{path}: cannot read the configuration: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{path}: is not UTF-8 at byte {problem.start}; save it as UTF-8") from None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = f"{path}:{mark.line + 1}" if mark else path
        raise ConfigError(f"{place}: is not YAML: {problem.problem or problem.context}") from None
    except yaml.YAMLError as problem:
        raise ConfigError(f"{path}: is not YAML: {problem}") from None


def _text(path: str, key: str, node: yaml.Node) -> str | None:
    if isinstance(node, yaml.SequenceNode):
        return ",".join(_scalar(path, item) or "" for item in node.value)
    if isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{_place(path, node)}: {key} holds a mapping; settings are not nested")
    return _scalar(path, node)


def _scalar(path: str, node: yaml.Node) -> str | None:
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{_place(path, node)}: expected a single value here")
    return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def _place(path: str, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"
