"""Patches modules without importing them: now if they are loaded, else right after their import.

The plugin entry point runs in processes that never build an engine (the API server, the model
inspection subprocess). Importing vLLM's scheduler there would cost seconds and could initialise a device, so
the hook only leaves a note with the import system.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Patch = Callable[[ModuleType], None]


class PostImport(MetaPathFinder):
    """A finder that finds nothing itself: it lets the others find, and patches what they load."""

    def __init__(self) -> None:
        self._patches: dict[str, Patch] = {}

    @classmethod
    def installed(cls) -> PostImport:
        """The finder that this process already has, or a new one: registering twice must not stack them."""
        return next((finder for finder in sys.meta_path if isinstance(finder, cls)), None) or cls()

    def when_loaded(self, module_name: str, patch: Patch) -> None:
        """Calls ``patch`` with the module as soon as it is loaded, at most once."""
        module = sys.modules.get(module_name)
        if module is not None and not _is_loading(module):
            patch(module)
            return
        self._patches[module_name] = patch
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        patch = self._patches.pop(fullname, None)
        if patch is None:
            return None
        self._leave_if_done()
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return _with_patch(spec, patch)
        return None

    def _leave_if_done(self) -> None:
        if not self._patches and self in sys.meta_path:
            sys.meta_path.remove(self)


def tolerant(
    patch: Callable[[ModuleType, str], None], argument: str, *, complain: Callable[[Exception], None]
) -> Patch:
    """``patch`` with its second argument filled in, unable to break the import that it follows."""

    def apply(module: ModuleType) -> None:
        try:
            patch(module, argument)
        except Exception as error:
            complain(error)

    return apply


def _is_loading(module: ModuleType) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _with_patch(spec: ModuleSpec, patch: Patch) -> ModuleSpec:
    """Makes this one loader run ``patch`` after the module's body; its type and source stay as they are."""
    loader = spec.loader
    execute = getattr(loader, "exec_module", None)
    if execute is None:
        return spec

    def exec_module(module: ModuleType) -> None:
        vars(loader).pop("exec_module", None)
        execute(module)
        patch(module)

    try:
        vars(loader)["exec_module"] = exec_module
    except TypeError:
        return spec
    return spec
