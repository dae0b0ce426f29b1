"""The guest inside vLLM's processes.

vLLM finds :func:`register` through the entry-point group ``vllm.general_plugins`` and calls it in every
process, the short-lived ones included, perhaps more than once. It opens nothing and imports nothing of
vLLM; it leaves a note with the import system, and only a scheduler or a worker that is made starts a thread.

Environment:

* ``JOULESCOPE_SOCKET``: the sidecar's socket. Unset, the hook looks for :data:`DEFAULT_SOCKET` and does
  nothing if there is none when the process starts.
* ``JOULESCOPE_DISABLED=1``: off.
* ``JOULESCOPE_SAMPLER``: whether a process beside the engine may read its GPUs if the sidecar cannot:
  ``auto`` (NVIDIA GPUs), ``on`` or ``off``.
"""

from __future__ import annotations

import os

from joulescope.hook.environment import DEFAULT_SOCKET, is_disabled, named_socket


def register() -> None:
    """Entry point of the plugin. Never raises: vLLM would not start."""
    try:
        socket_path = _socket_path()
        if socket_path is not None:
            _leave_patches(socket_path)
    except Exception as error:
        _warn(error)


def _socket_path() -> str | None:
    """Where to report to; ``None`` if the hook is switched off or nobody asked for it."""
    if is_disabled(os.environ):
        return None
    named = named_socket(os.environ)
    if named:
        return named
    return DEFAULT_SOCKET if os.path.exists(DEFAULT_SOCKET) else None


def _leave_patches(socket_path: str) -> None:
    from joulescope.hook.patching import PostImport, tolerant
    from joulescope.hook.tap import PATCHES

    finder = PostImport.installed()
    for module_name, patch in PATCHES.items():
        finder.when_loaded(module_name, tolerant(patch, socket_path, complain=_warn))


def _warn(error: Exception) -> None:
    import logging

    logging.getLogger("vllm.joulescope").warning("joulescope: idle, could not register (%r)", error)
