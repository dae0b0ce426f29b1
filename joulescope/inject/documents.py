"""YAML in, YAML out: comments, order and quotes stay as people wrote them."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from joulescope.errors import ConfigError
from joulescope.inject.engine import NoEngine
from joulescope.inject.kinds import Node, PodTemplate, Unfit, documents_of, templates_of
from joulescope.inject.patch import inject, remove
from joulescope.inject.pod import Injection

_WIDTH = 4096
"""Longer lines than anybody writes: none is folded that was not."""

_MOST_COPIES = 100_000
"""Parts of a document that aliases may unfold to."""


@dataclass
class Result:
    """What became of a file.

    ``text``: as it is now. ``changed``: pod templates that joulescope is in, or was taken out of.
    ``notes``: what a reader should know of the rest.
    """

    text: str
    changed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def inject_text(text: str, injection: Injection, container: str = "", name: str = "standard input") -> Result:
    """Puts joulescope beside each vLLM in a file of manifests.

    Raises:
        ConfigError: if the text is no YAML, or joulescope cannot be beside a vLLM in it.
    """

    def put(template: PodTemplate, result: Result) -> None:
        if template.worker and not injection.link_secret:
            # Of a run that had one: its head listens no more.
            if remove(template, labels=not template.inline):
                result.changed.append(template.place)
            result.notes.append(
                f"{template.place} left as it is: its pods are further nodes of an engine, for which "
                "--link-secret is needed (docs/multi-node.md)"
            )
            return
        if template.worker and not (template.head_address or injection.link_connect):
            result.notes.append(
                f"{template.place} left as it is: nothing in its pods says where the head is; "
                "name it with --link-connect"
            )
            return
        try:
            inject(template, injection, container)
        except NoEngine as error:
            result.notes.append(f"left as it is: {error}")
        else:
            result.changed.append(template.place)

    return _each_template(text, name, put)


def remove_text(text: str, name: str = "standard input") -> Result:
    """Takes joulescope out of a file of manifests.

    Raises:
        ConfigError: if the text is no YAML.
    """

    def take(template: PodTemplate, result: Result) -> None:
        if remove(template):
            result.changed.append(template.place)

    return _each_template(text, name, take)


def _each_template(text: str, name: str, act: Callable[[PodTemplate, Result], None]) -> Result:
    pieces = _pieces(text)
    result = Result(text)
    for index, piece in enumerate(pieces):
        if _has_no_content(piece):
            continue
        document, write = _json(piece) or _read(piece, name)
        if isinstance(document, MutableMapping) and _act_on(document, act, result, name):
            ending = "\r\n" if "\r\n" in piece else "\n"
            mark = "\ufeff" if piece.startswith("\ufeff") else ""
            pieces[index] = mark + write(document).replace("\n", ending)
    result.text = "".join(pieces)
    return result


def _has_no_content(piece: str) -> bool:
    """Comments, or directives (``%YAML 1.1``) of the document behind the next ``---``: handed through."""
    return all(not line.strip() or line.startswith(("#", "%")) for line in piece.splitlines())


def _read(piece: str, name: str) -> tuple[Any, Callable[[Any], str]]:
    """A document, and what writes it as it was written."""
    yaml = _yaml(piece)
    try:
        document = yaml.load(piece.replace("\r\n", "\n"))
    except (YAMLError, RecursionError) as error:
        raise ConfigError(f"{name} is not YAML: {' '.join(str(error).split())}") from error

    def write(changed: Any) -> str:
        out = io.StringIO()
        yaml.dump(changed, out)
        return out.getvalue()

    return document, write


def _json(piece: str) -> tuple[Any, Callable[[Any], str]] | None:
    """The same for JSON, which stays JSON: what begins like it is not read as YAML everywhere."""
    if not piece.lstrip().startswith("{"):
        return None
    try:
        document = json.loads(piece)
    except (ValueError, RecursionError):
        return None
    lines = piece.strip().splitlines()
    indent = len(lines[1]) - len(lines[1].lstrip()) if len(lines) > 1 else 0
    return document, lambda changed: json.dumps(changed, indent=indent or None, ensure_ascii=False) + "\n"


def _act_on(document: Node, act: Callable[[PodTemplate, Result], None], result: Result, name: str) -> bool:
    """Whether the document was changed. Documents that were not are handed through as they are."""
    before = len(result.changed)
    try:
        _own_shared_parts(document)
    except _TooMuch as error:
        raise ConfigError(
            f"{name}: aliases of YAML (*name) unfold to more than {_MOST_COPIES} parts: write them out"
        ) from error
    for single in documents_of(document):
        for template in templates_of(single):
            if isinstance(template, Unfit):
                result.notes.append(f"{template.place} left as it is: {template.advice}")
            else:
                act(template, result)
    return len(result.changed) > before


def _pieces(text: str) -> list[str]:
    """The documents of a stream, each with the line that ends it, so that joined they are the text."""
    pieces: list[str] = []
    current: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.rstrip() == "---" or line.startswith("--- "):
            pieces.append("".join(current))
            pieces.append(line)
            current = []
        else:
            current.append(line)
    return [*pieces, "".join(current)]


class _TooMuch(Exception):
    """A few lines of aliases of aliases can mean more parts than there is memory."""


def _own_shared_parts(document: Node) -> None:
    """YAML aliases let places share a part; what is added in one of them is not to appear in all.

    The items of a list may share parts too, so that this is done for a whole document at once.

    Raises:
        _TooMuch: if more than `_MOST_COPIES` parts would have to be copied.
    """
    seen: set[int] = set()
    left = iter(range(_MOST_COPIES))

    def visit(node: Any) -> None:
        if isinstance(node, MutableMapping):
            for key, value in node.items():
                if _is_seen(value):
                    node[key] = _copy(value, left)
                visit(node[key])
        elif isinstance(node, list):
            for index, value in enumerate(node):
                if _is_seen(value):
                    node[index] = _copy(value, left)
                visit(node[index])

    def _is_seen(value: Any) -> bool:
        if not isinstance(value, MutableMapping | list):
            return False
        known = id(value) in seen
        seen.add(id(value))
        return known

    visit(document)


def _copy(node: Any, left: Iterator[int]) -> Any:
    if next(left, None) is None:
        raise _TooMuch
    if isinstance(node, MutableMapping):
        return CommentedMap((key, _copy(value, left)) for key, value in node.items())
    return [_copy(value, left) for value in node] if isinstance(node, list) else node


def _yaml(text: str) -> YAML:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    yaml.allow_duplicate_keys = False
    sequence = 2 if _indents_sequences(text) else 0
    yaml.indent(mapping=2, sequence=sequence + 2, offset=sequence)
    return yaml


def _indents_sequences(text: str) -> bool:
    """Whether dashes of lists stand deeper than the key above them; most manifests agree with themselves."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for above, below in itertools.pairwise(lines):
        if above.rstrip().endswith(":") and below.lstrip().startswith("- "):
            key = len(above) - len(above.lstrip(" -"))
            return len(below) - len(below.lstrip()) > key
    return False
