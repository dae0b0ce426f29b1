"""The flags of the settings, made from their table, for every command that takes them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection
from typing import Any

import click

from joulescope.config import CONFIG_VARIABLE, TABLE, Settings
from joulescope.config.load import Origins, load

_CONFIG = "config_path"

TASK_SETTINGS = ("task_from", "tasks", "max_tasks", "task_pattern", "task_lengths")
"""Which say of which task class a request is."""


def settings_options(*, exclude: Collection[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds ``--config`` and a flag for each setting; the command receives ``settings`` and ``origins``.

    ``exclude`` names settings that get no flag here, because the command decides them itself; their
    values still come from the environment, the file or the default.
    """
    unknown = set(exclude) - set(TABLE)
    if unknown:
        raise ValueError(f"no such settings: {', '.join(sorted(unknown))}")
    names = [name for name in TABLE if name not in exclude]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(*args: Any, **kwargs: Any) -> Any:
            settings, origins = _take(kwargs, names)
            return function(*args, settings=settings, origins=origins, **kwargs)

        for option in reversed([_config_option(), *map(_option, names)]):
            option(command)
        return command

    return decorate


def task_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for each of :data:`TASK_SETTINGS`, as in `serve`; the command receives texts by these names."""
    for name in reversed(TASK_SETTINGS):
        setting = TABLE[name]
        function = click.option(setting.flag, metavar=setting.kind.metavar, help=setting.help)(function)
    return function


def _take(kwargs: dict[str, Any], names: list[str]) -> tuple[Settings, Origins]:
    flags: dict[str, str | None] = {name: kwargs.pop(name) for name in names}
    return load(flags, os.environ, kwargs.pop(_CONFIG))


def _config_option() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--config", _CONFIG, metavar="PATH", help=f"YAML file of settings.  [variable {CONFIG_VARIABLE}]"
    )


def _option(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Takes the text as it is: reading and refusing it is the table's business, for all three places."""
    setting = TABLE[name]
    text = f"{setting.help}  [default {setting.text(setting.default)}; variable {setting.variable}]"
    return click.option(setting.flag, name, metavar=setting.kind.metavar, help=text)
