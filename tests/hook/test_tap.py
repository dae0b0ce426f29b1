"""The wrappers around a scheduler, and the patches of the classes, on classes shaped like vLLM's."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from joulescope.hook.tap import (
    TAP_ATTRIBUTE,
    SchedulerTap,
    patch_engine_core,
    patch_scheduler,
    patch_worker,
)
from joulescope.hook.wire import Bye, Hello, Overhead, RequestEnd, RequestStart, Step
from tests.hook import fakes
from tests.hook.fakes import FinishReason, Request, output_of, step_of
from tests.hook.listener import Listener


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with Listener(tmp_path / "s") as listener:
        yield listener


def config(**more: Any) -> SimpleNamespace:
    parallel = SimpleNamespace(data_parallel_index=1, tensor_parallel_size=2)
    return SimpleNamespace(instance_id="i", parallel_config=parallel, **more)


def patched(*owners: type, **names: Any) -> ModuleType:
    """A module that holds fresh subclasses of ``owners``, so that no test patches another's classes."""
    module = ModuleType("patched")
    for owner in owners:
        setattr(module, owner.__name__, type(owner.__name__, (owner,), {"__init__": owner.__init__}))
    return module


@pytest.fixture
def module(listener: Listener) -> ModuleType:
    module = patched(fakes.Scheduler)
    patch_scheduler(module, listener.path)
    return module


def serve_one(scheduler: Any) -> None:
    """One request, from its arrival to its end."""
    request = Request("a-0123abcd")
    scheduler.add_request(request)
    scheduler.next_step = step_of(new={request.request_id: (0, 10)})
    scheduler.next_results = output_of({request.request_id: 1})
    step = scheduler.schedule(False)
    scheduler.update_from_output(step, None)
    request.num_output_tokens = 1
    scheduler.finish(request, FinishReason.STOP)


def test_scheduler_reports(module: ModuleType, listener: Listener) -> None:
    """A scheduler made after the patch reports hello, start, step with gauges, end, and bye."""
    scheduler = module.Scheduler(vllm_config=config())
    serve_one(scheduler)
    scheduler.shutdown()
    listener.wait_for(lambda: len(listener.of(Bye)) == 1)
    (hello,) = listener.of(Hello)
    assert (hello.role, hello.engine.instance_id, hello.engine.data_parallel_index) == ("engine", "i", 1)
    assert {"progress", "steps", "ends"} <= set(hello.capabilities)
    (start,), (step,), (end,) = listener.of(RequestStart), listener.of(Step), listener.of(RequestEnd)
    assert (start.external_id, end.reason, end.output_tokens) == ("a", "stop", 1)
    assert (step.waiting, step.running, step.kv_usage_ratio) == (0, 0, 0.25)
    assert step.schedule_start_ns <= step.schedule_end_ns <= step.output_start_ns <= step.output_end_ns
    assert scheduler.is_down


def test_results_pass_through(module: ModuleType) -> None:
    """Callers get exactly what the scheduler returned, however they pass the arguments."""
    scheduler = module.Scheduler(vllm_config=config())
    scheduler.next_step, scheduler.next_results = step_of(), output_of(a=1)
    assert scheduler.schedule(throttle_prefills=True) is scheduler.next_step
    assert scheduler.schedule(True) is scheduler.next_step
    results = scheduler.update_from_output(scheduler_output=scheduler.next_step, model_runner_output=None)
    assert results is scheduler.next_results
    request = Request("a")
    assert scheduler.add_request(request) is None
    assert scheduler._free_request(request, delay_free_blocks=True) == "kv parameters"
    assert str(inspect.signature(scheduler.schedule)).startswith("(throttle_prefills")
    scheduler.shutdown()


def test_exceptions_pass_through(module: ModuleType) -> None:
    """An exception of the scheduler reaches its caller untouched."""
    scheduler = module.Scheduler(vllm_config=config())
    with pytest.raises(KeyError):
        scheduler._free_request(Request("unknown"))
    scheduler.shutdown()


def test_subclass_that_overrides_schedule(module: ModuleType, listener: Listener) -> None:
    """A scheduler class with its own ``schedule`` that calls the base's is seen, and seen once."""

    class Own(module.Scheduler):  # type: ignore[name-defined,misc]
        def schedule(self, throttle_prefills: bool = False) -> fakes.SchedulerOutput:
            output: fakes.SchedulerOutput = super().schedule(throttle_prefills)
            return output

    scheduler = Own(vllm_config=config())
    serve_one(scheduler)
    scheduler.shutdown()
    listener.wait_for(lambda: len(listener.of(Bye)) == 1)
    assert len(listener.of(Step)) == 1
    assert listener.of(Hello)[0].engine.scheduler_class.endswith("Own")


def test_patched_twice(module: ModuleType, listener: Listener) -> None:
    """Loading the hook twice wraps once."""
    patch_scheduler(module, listener.path)
    scheduler = module.Scheduler(vllm_config=config())
    serve_one(scheduler)
    scheduler.shutdown()
    listener.wait_for(lambda: len(listener.of(Bye)) == 1)
    assert len(listener.of(Step)) == len(listener.sessions) == 1


def test_two_engines(module: ModuleType, listener: Listener) -> None:
    """Two schedulers in one process have a session each."""
    schedulers = [module.Scheduler(vllm_config=config()) for _ in range(2)]
    for scheduler in schedulers:
        serve_one(scheduler)
        scheduler.shutdown()
    listener.wait_for(lambda: len(listener.of(Bye)) == 2)
    assert [len(session.of(Step)) for session in listener.sessions] == [1, 1]


def test_detach_restores(listener: Listener) -> None:
    """Detaching leaves the instance as it was: the class's methods, or its own."""
    scheduler = fakes.Scheduler()
    own = scheduler.schedule
    scheduler.schedule = own  # type: ignore[method-assign]
    before = dict(vars(scheduler))
    tap = SchedulerTap(scheduler, config(), listener.path)
    tap.attach()
    assert scheduler.schedule is not own
    tap.detach()
    del vars(scheduler)[TAP_ATTRIBUTE]
    assert vars(scheduler) == before
    tap.emitter.close()


def test_detach_respects_others(listener: Listener) -> None:
    """A wrapper that someone else put around ours is not torn off."""
    scheduler = fakes.Scheduler()
    tap = SchedulerTap(scheduler, config(), listener.path)
    tap.attach()
    ours = scheduler.schedule

    def theirs() -> fakes.SchedulerOutput:
        return ours()

    scheduler.schedule = theirs  # type: ignore[assignment,method-assign]
    tap.detach()
    assert scheduler.schedule is theirs
    assert scheduler.schedule() is scheduler.next_step
    tap.emitter.close()


def test_repeated_errors_unhook(
    module: ModuleType, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """A scheduler that the hook cannot understand gets its own methods back, with one warning."""
    scheduler = module.Scheduler(vllm_config=config())
    scheduler.next_step = SimpleNamespace()
    for _ in range(20):
        scheduler.schedule()
    listener.wait_for(lambda: "schedule" not in vars(scheduler))
    listener.wait_for(lambda: len(listener.of(Bye)) == 1)
    assert listener.of(Bye)[0].reason == "disabled"
    assert len([each for each in caplog.records if each.levelname == "WARNING"]) == 1


def test_collected_scheduler_ends_its_session(module: ModuleType, listener: Listener) -> None:
    """An engine that is dropped without a shutdown is freed, and its session ends."""
    scheduler = module.Scheduler(vllm_config=config())
    listener.wait_for(lambda: len(listener.of(Hello)) == 1)
    watch = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert watch() is None
    listener.wait_for(lambda: listener.sessions[0].ended)


def test_attach_failure_is_harmless(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    """If attaching fails, the scheduler is made all the same and the log says so."""

    class Sealed(fakes.Scheduler):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "schedule":
                raise AttributeError("sealed")
            super().__setattr__(name, value)

    module = ModuleType("m")
    module.Scheduler = Sealed  # type: ignore[attr-defined]
    patch_scheduler(module, listener.path)
    assert Sealed(vllm_config=config()).schedule() is not None
    assert "could not attach" in caplog.text


def test_dummy_batches(module: ModuleType, listener: Listener) -> None:
    """A dummy batch of an engine is reported as overhead; without a tap it just runs."""

    class EngineCore:
        ran = 0

        def execute_dummy_batch(self) -> str:
            self.ran += 1
            return "done"

    core_module = ModuleType("core")
    core_module.EngineCore = EngineCore  # type: ignore[attr-defined]
    patch_engine_core(core_module, listener.path)
    patch_engine_core(core_module, listener.path)
    engine = EngineCore()
    assert engine.execute_dummy_batch() == "done"
    engine.scheduler = module.Scheduler(vllm_config=config())  # type: ignore[attr-defined]
    assert engine.execute_dummy_batch() == "done"
    engine.scheduler.shutdown()  # type: ignore[attr-defined]
    listener.wait_for(lambda: len(listener.of(Bye)) == 1)
    assert [each.reason for each in listener.of(Overhead)] == ["dummy_batch"]
    assert engine.ran == 2


def test_worker_announces_its_device(listener: Listener) -> None:
    """After its device is initialised a worker tells its ranks; on a CPU there is no GPU to name."""

    class WorkerWrapperBase:
        def __init__(self) -> None:
            self.vllm_config = config()

        def init_device(self) -> str:
            self.worker = SimpleNamespace(rank=3, local_rank=1, device="cpu")
            return "ready"

    module = ModuleType("worker_base")
    module.WorkerWrapperBase = WorkerWrapperBase  # type: ignore[attr-defined]
    patch_worker(module, listener.path)
    wrapper = WorkerWrapperBase()
    assert wrapper.init_device() == "ready"
    listener.wait_for(lambda: len(listener.of(Hello)) == 1)
    (hello,) = listener.of(Hello)
    assert (hello.role, hello.engine) == ("worker", None)
    facts = hello.worker
    assert (facts.rank, facts.local_rank, facts.device, facts.gpu) == (3, 1, "cpu", "")
    assert (facts.instance_id, facts.data_parallel_index) == ("i", 1)
    getattr(wrapper, TAP_ATTRIBUTE).close()
