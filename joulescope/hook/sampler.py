"""Starts a sampler beside the engine when the sidecar asks for one, and says once if it cannot work.

A sidecar often sees no GPU where the engine's container does. The sampler is a process of its own
(``python -m joulescope.inside``): nothing of NVML runs in the engine. Here it is only started, by
the emitter's thread and by exec, never by a bare fork, which a process that holds CUDA does not survive.
"""

from __future__ import annotations

import contextlib
import os
import site
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from joulescope.hook.emitter import log
from joulescope.hook.environment import sampler_choice
from joulescope.hook.facts import look_up
from joulescope.hook.wire import wanted_in

CANNOT = 64
"""Exit code of a sampler that can never work here: it is not started again."""

FIRST_PAUSE_SECONDS = 10.0
LAST_PAUSE_SECONDS = 600.0
"""Least time from the end of a sampler that failed to the start of the next; it doubles."""

REST_SECONDS = 1.0
"""The same after one that was sent away, or whose sidecar went."""

MAX_WORDS = 500
_KEPT = frozenset({"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LD_LIBRARY_PATH", "PYTHONHOME"})
_KEPT_PREFIXES = ("LC_", "NVIDIA_", "CUDA_", "__NVML_", "JOULESCOPE_")
"""What Python and the driver's library need. ``LD_PRELOAD`` (allocators, profilers), the settings of vLLM
and secrets stay with the engine."""

Spawn = Callable[..., "subprocess.Popen[bytes]"]


class SamplerKeeper:
    """The :class:`~joulescope.hook.emitter.Companion` that keeps at most one sampler.

    :param socket_path: the sidecar's socket, for the sampler's own connection.
    :param identity: instance and data-parallel index of the engine.
    :param spawn: starts a process; as ``subprocess.Popen``.
    :param now_ns: the clock, CLOCK_MONOTONIC nanoseconds.
    """

    def __init__(
        self,
        socket_path: str,
        identity: tuple[str, int],
        *,
        environ: Mapping[str, str] = os.environ,
        spawn: Spawn = subprocess.Popen,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._socket_path = socket_path
        self._identity = identity
        self._environ = environ
        self._spawn = spawn
        self._now_ns = now_ns
        self._owner = os.getpid()
        self._child: subprocess.Popen[bytes] | None = None
        self._asked = self._off = self._announced = self._complained = False
        self._next_ns = 0
        self._pause_seconds = FIRST_PAUSE_SECONDS

    @property
    def pid(self) -> int | None:
        """The sampler's process, while there is one."""
        return None if self._child is None else self._child.pid

    def turn(self, payloads: list[bytes]) -> None:
        """Starts a sampler if one was asked for, and notices the end of the one that ran. Never raises."""
        if self._off:
            return
        try:
            self._turn(payloads)
        except Exception as error:
            self._off = True
            self._complain(f"the sampler could not be started ({error!r})")

    def close(self) -> None:
        """Ends the sampler; it would end by itself when this process does."""
        self._off = True
        child, self._child = self._child, None
        if child is not None and self._owner == os.getpid():
            with contextlib.suppress(Exception):
                child.kill()
                child.wait(1.0)

    def _turn(self, payloads: list[bytes]) -> None:
        if self._owner != os.getpid():  # a forked child: the sampler is its parent's
            self._owner, self._child, self._asked = os.getpid(), None, False
        wanted = wanted_in(payloads) if payloads else None
        if self._child is not None:
            code = self._child.poll()
            if code is not None:
                self._ended(self._child, code)
        elif wanted is not None:
            self._asked = bool(wanted.gpus)
        if self._asked and not self._off and self._now_ns() >= self._next_ns:
            self._start()

    def _start(self) -> None:
        self._asked = False
        instance, index = self._identity
        arguments = ("--socket", self._socket_path, "--instance", instance, "--index", str(index))
        child = self._spawn(
            [sys.executable, "-m", "joulescope.inside", *arguments, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            close_fds=True,
            cwd="/",
            env=sampler_environment(self._environ),
            start_new_session=True,
        )
        self._child = child
        if not self._announced:
            self._announced = True
            log.info("joulescope: the sidecar cannot read this engine's GPUs, process %d does", child.pid)

    def _ended(self, child: subprocess.Popen[bytes], code: int) -> None:
        self._child = None
        words = _last_words(child)
        pause_seconds = REST_SECONDS
        if code != 0:
            self._complain(words or f"the sampler ended with {code}")
            self._off = code == CANNOT
            pause_seconds = self._pause_seconds
            self._pause_seconds = min(2 * pause_seconds, LAST_PAUSE_SECONDS)
        self._next_ns = self._now_ns() + round(pause_seconds * 1e9)

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            log.warning("joulescope: this engine's GPUs are not read here: %s", reason)


def _last_words(child: subprocess.Popen[bytes]) -> str:
    """The last line that an ended sampler left, without waiting for more."""
    if child.stderr is None:
        return ""
    with child.stderr as stderr:
        os.set_blocking(stderr.fileno(), False)
        lines = (stderr.read(1 << 16) or b"").decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:MAX_WORDS] if lines else ""


def sampler_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the sampler gets of the engine's environment; it finds this very joulescope."""
    kept = {name: text for name, text in environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    named = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))
    folders = [os.path.abspath(folder) for folder in named]
    home = str(Path(__file__).absolute().parents[2])
    if home not in (*site.getsitepackages(), site.getusersitepackages()):
        folders.append(home)
    kept["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(folders))
    kept["PYTHONSAFEPATH"] = "1"
    return kept


def keeper_for(
    vllm_config: Any,
    socket_path: str,
    identity: tuple[str, int],
    environ: Mapping[str, str] = os.environ,
) -> SamplerKeeper | None:
    """The keeper of an engine that may have a sampler, by ``JOULESCOPE_SAMPLER``: with ``auto`` where vLLM
    drives NVIDIA GPUs, with ``on`` everywhere, with ``off`` and with a word that is none of these nowhere."""
    choice = sampler_choice(environ)
    if choice is None:
        log.warning(
            "joulescope: JOULESCOPE_SAMPLER cannot be %r: set it to auto, on or off; taken for off",
            environ.get("JOULESCOPE_SAMPLER", "")[:40],
        )
    possible = choice == "on" or (choice == "auto" and _drives_nvidia(vllm_config))
    return SamplerKeeper(socket_path, identity, environ=environ) if possible and sys.executable else None


def _drives_nvidia(vllm_config: Any) -> bool:
    """vLLM calls AMD GPUs ``cuda`` too; torch knows better."""
    hip = look_up(sys.modules.get("torch"), "version.hip")
    return look_up(vllm_config, "device_config.device_type") == "cuda" and hip is None
