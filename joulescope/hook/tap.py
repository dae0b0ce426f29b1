"""Wraps what vLLM built: the only file that reaches into vLLM's objects and classes.

Schedulers are wrapped one instance at a time, after their constructor: a class that overrides
``schedule`` (``--scheduler-cls``, asynchronous and out-of-tree schedulers) is seen like any other, and
nothing is counted twice through ``super()``. In the engine's thread a wrapper takes two timestamps and
queues a tuple of references; everything else happens in the emitter's thread.
"""

from __future__ import annotations

import atexit
import functools
import os
import time
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

from joulescope.hook.contract import REQUIRED, inspect_running
from joulescope.hook.emitter import PROGRESS, Emitter, Inlet, log
from joulescope.hook.facts import engine_hello, engine_identity, worker_hello
from joulescope.hook.sampler import keeper_for
from joulescope.hook.translate import ADDED, FREED, SCHEDULED, UPDATED, Gauges, SchedulerTranslator
from joulescope.hook.wire import SAMPLER, Hello, Overhead

WORKER_POLL_SECONDS = 1.0
SHUTDOWN_SECONDS = 0.2
TAP_ATTRIBUTE = "_joulescope_tap"
_ORIGINAL = "_joulescope_original"
_PATCHED = "_joulescope_patched"


class SchedulerTap:
    """The hook's presence in one scheduler: its wrappers, its translator, its emitter.

    It refers to the scheduler weakly, so that an engine that is dropped without a shutdown is freed.

    :param scheduler: a constructed ``vllm.v1.core.sched.scheduler.Scheduler`` of any subclass.
    :param vllm_config: the configuration the scheduler was constructed with.
    :param socket_path: where the sidecar listens.
    """

    def __init__(self, scheduler: Any, vllm_config: Any, socket_path: str) -> None:
        self._scheduler = weakref.ref(scheduler)
        self._vllm_config = vllm_config
        self._wrapped: list[str] = []
        self._facts: Hello | None = None
        self._identity = engine_identity(vllm_config)
        keeper = keeper_for(vllm_config, socket_path, self._identity)
        self._capabilities = [PROGRESS, *([SAMPLER] if keeper else []), *inspect_running()[0]]
        translator = SchedulerTranslator(
            find_request=self._find_request,
            gauges=self._gauges,
            complain=self._complain,
            ends_reported=hasattr(scheduler, "_free_request"),
            ids_randomized=_ids_are_randomized(),
        )
        self.emitter = Emitter(
            socket_path,
            self._hello,
            translator=translator,
            on_failure=lambda _reason: self.detach(),
            companion=keeper,
        )

    def attach(self) -> None:
        """Wraps the scheduler's methods and starts the thread. Raises nothing on the engine's later calls."""
        put, inlet = self.emitter.put, self.emitter.inlet
        self._wrap("schedule", lambda inner: wrap_schedule(inner, inlet))
        self._wrap("update_from_output", lambda inner: wrap_update(inner, inlet))
        self._wrap("add_request", lambda inner: wrap_add(inner, put))
        self._wrap("_free_request", lambda inner: wrap_free(inner, put))
        self._wrap("shutdown", self._wrap_shutdown)
        scheduler = self._scheduler()
        setattr(scheduler, TAP_ATTRIBUTE, self)
        weakref.finalize(scheduler, self.emitter.close, 0.0).atexit = False
        atexit.register(self.emitter.close, SHUTDOWN_SECONDS)
        self.emitter.start()

    def detach(self) -> None:
        """Puts the scheduler's own methods back; a wrapper that someone else has wrapped stays, idle."""
        scheduler = self._scheduler()
        for name in self._wrapped:
            wrapper = vars(scheduler).get(name) if scheduler is not None else None
            if getattr(wrapper, TAP_ATTRIBUTE, None) is not self:
                continue
            original = getattr(wrapper, _ORIGINAL)
            if original is None:
                delattr(scheduler, name)
            else:
                setattr(scheduler, name, original)
        self._wrapped = []

    def _wrap(self, name: str, wrap: Callable[[Any], Any]) -> None:
        scheduler = self._scheduler()
        inner = getattr(scheduler, name, None)
        if inner is not None:
            wrapper = functools.wraps(inner)(wrap(inner))
            setattr(wrapper, TAP_ATTRIBUTE, self)
            setattr(wrapper, _ORIGINAL, vars(scheduler).get(name))
            self._wrapped.append(name)
            setattr(scheduler, name, wrapper)

    def _wrap_shutdown(self, inner: Any) -> Any:
        emitter = self.emitter

        def shutdown(*args: Any, **kwargs: Any) -> Any:
            emitter.close(SHUTDOWN_SECONDS, "shutdown")
            return inner(*args, **kwargs)

        return shutdown

    # ------------------------------------------------- what the emitter's thread asks of the scheduler

    def _hello(self) -> Hello:
        if self._facts is None:
            scheduler = self._scheduler()
            self._facts = engine_hello(self._vllm_config, scheduler, self._capabilities, self._identity)
        return _as_of_now(self._facts)

    def _find_request(self, request_id: str) -> Any:
        return getattr(self._scheduler(), "requests", {}).get(request_id)

    def _gauges(self) -> Gauges:
        scheduler = self._scheduler()
        if scheduler is None:
            return None, None, None
        held = getattr(scheduler, "kv_holding_waiting", ())
        waiting = len(scheduler.waiting) + len(held) if hasattr(scheduler, "waiting") else None
        running = len(scheduler.running) if hasattr(scheduler, "running") else None
        manager = getattr(scheduler, "kv_cache_manager", None)
        return waiting, running, getattr(manager, "usage", None)

    def _complain(self, error: Exception) -> None:
        self.emitter.count_error(error)


def wrap_schedule(inner: Any, inlet: Inlet) -> Any:
    """Like the next one written out in full: a call of ``put`` would cost the engine as much again."""
    (queue, bound, refuse), now = inlet, time.monotonic_ns
    append = queue.append

    def schedule(*args: Any, **kwargs: Any) -> Any:
        start_ns = now()
        output = inner(*args, **kwargs)
        item = (SCHEDULED, start_ns, now(), output)
        if len(queue) < bound[0]:
            append(item)
        else:
            refuse(item)
        return output

    return schedule


def wrap_update(inner: Any, inlet: Inlet) -> Any:
    (queue, bound, refuse), now = inlet, time.monotonic_ns
    append = queue.append

    def update_from_output(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        start_ns = now()
        results = inner(scheduler_output, *args, **kwargs)
        item = (UPDATED, start_ns, now(), scheduler_output, results)
        if len(queue) < bound[0]:
            append(item)
        else:
            refuse(item)
        return results

    return update_from_output


def wrap_add(inner: Any, put: Callable[[object], None]) -> Any:
    """The statistics of the prefill are taken now: vLLM hands them out with the first token."""

    def add_request(request: Any, *args: Any, **kwargs: Any) -> Any:
        put((ADDED, time.monotonic_ns(), request, getattr(request, "prefill_stats", None)))
        return inner(request, *args, **kwargs)

    return add_request


def wrap_free(inner: Any, put: Callable[[object], None]) -> Any:
    def _free_request(request: Any, *args: Any, **kwargs: Any) -> Any:
        put((FREED, time.monotonic_ns(), request))
        return inner(request, *args, **kwargs)

    return _free_request


def _as_of_now(facts: Hello) -> Hello:
    """A fresh greeting from facts that do not change; the process may have forked since."""
    facts.time_ns, facts.wall_ns = time.monotonic_ns(), time.time_ns()
    facts.pid, facts.ppid = os.getpid(), os.getppid()
    return facts


def _ids_are_randomized() -> bool:
    return os.environ.get("VLLM_DISABLE_REQUEST_ID_RANDOMIZATION", "0").strip().lower() in {"", "0", "false"}


# --------------------------------------------------------------------- patches of vLLM's classes


def patch_scheduler(module: ModuleType, socket_path: str) -> None:
    """Makes every ``Scheduler`` that is constructed from now on report; ``module`` is the scheduler's."""

    def attach(scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if hasattr(scheduler, TAP_ATTRIBUTE):
            return
        _, lacking = inspect_running()
        if REQUIRED in lacking:
            log.warning("joulescope: idle, this vLLM lacks %s", ", ".join(lacking[REQUIRED]))
            return
        config = getattr(scheduler, "vllm_config", None) or kwargs.get("vllm_config") or args[0]
        SchedulerTap(scheduler, config, socket_path).attach()
        log.info("joulescope: reporting the steps of this engine to %s", socket_path)

    _after(module.Scheduler, "__init__", attach)


def patch_worker(module: ModuleType, socket_path: str) -> None:
    """Makes every worker tell which device it drives; ``module`` is that of ``WorkerWrapperBase``."""

    def announce(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        identity = engine_identity(wrapper.vllm_config)
        keeper = keeper_for(wrapper.vllm_config, socket_path, identity)
        facts = worker_hello(wrapper.vllm_config, wrapper.worker, [SAMPLER] if keeper else [])
        emitter = Emitter(
            socket_path,
            lambda: _as_of_now(facts),
            poll_seconds=WORKER_POLL_SECONDS,
            heartbeat_seconds=WORKER_POLL_SECONDS,
            companion=keeper,
        )
        setattr(wrapper, TAP_ATTRIBUTE, emitter.start())
        weakref.finalize(wrapper, emitter.close, 0.0).atexit = False

    _after(module.WorkerWrapperBase, "init_device", announce)


def patch_engine_core(module: ModuleType, _socket_path: str) -> None:
    """Reports dummy batches, which keep data-parallel ranks in step, as overhead of the engine."""
    owner = module.EngineCore
    inner = owner.execute_dummy_batch
    if hasattr(inner, _PATCHED):
        return

    @functools.wraps(inner)
    def execute_dummy_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
        start_ns = time.monotonic_ns()
        result = inner(self, *args, **kwargs)
        tap = getattr(getattr(self, "scheduler", None), TAP_ATTRIBUTE, None)
        if tap is not None:
            tap.emitter.put(Overhead(start_ns=start_ns, end_ns=time.monotonic_ns(), reason="dummy_batch"))
        return result

    setattr(execute_dummy_batch, _PATCHED, True)
    owner.execute_dummy_batch = execute_dummy_batch


def _after(owner: Any, name: str, follow_up: Callable[[Any, tuple[Any, ...], dict[str, Any]], None]) -> None:
    """Lets ``follow_up(self, args, kwargs)`` run after a method, once per process and never to its harm."""
    inner = getattr(owner, name)
    if hasattr(inner, _PATCHED):
        return

    @functools.wraps(inner)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = inner(self, *args, **kwargs)
        try:
            follow_up(self, args, kwargs)
        except Exception as error:
            log.warning("joulescope: idle, could not attach to %s (%r)", type(self).__name__, error)
        return result

    setattr(method, _PATCHED, True)
    setattr(owner, name, method)


PATCHES: dict[str, Callable[[ModuleType, str], None]] = {
    "vllm.v1.core.sched.scheduler": patch_scheduler,
    "vllm.v1.worker.worker_base": patch_worker,
    "vllm.v1.engine.core": patch_engine_core,
}
"""Which module is patched by which function, once it is loaded."""
