"""Real parts that die in the middle: the sidecar by SIGKILL, then vLLM by SIGKILL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from joulescope.model import GpuTotals
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.load import Answer, mixed_asks, send_all, steady_load
from tests.real.sidecar import Sidecar, wait_until
from tests.real.vllm_env import EAGER, VllmServer, install_hook, make_model

pytestmark = pytest.mark.real

GPU = "GPU-5b1d3c5e-0000-4000-8000-000000000002"


class Stage:
    """One vLLM after the other and one sidecar after the other, on one socket and one driver."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.socket = folder / "js.sock"
        self.driver = FakeDriver(folder / "nvml", [FakeGpu(uuid=GPU, live=True, power_watts=250.0)])
        self.nvml = environment(build(folder), self.driver)
        self.model = make_model(folder / "model", layers=16)
        self.hook = install_hook(folder / "hook")

    def sidecar(self, name: str) -> Sidecar:
        sidecar = Sidecar(self.socket, self.folder, self.nvml, name=name)
        self.stack.callback(sidecar.kill)
        return sidecar.start()

    def vllm(self, name: str) -> VllmServer:
        server = VllmServer(self.model, self.hook, self.socket, self.folder / f"{name}.log", [EAGER])
        server.environment["VLLM_CPU_OMP_THREADS_BIND"] = "0"
        return self.stack.enter_context(server)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(tmp_path, stack)


def accounts(sidecar: Sidecar) -> dict[str, dict[str, Any]]:
    found = {}
    for line in sidecar.requests():
        name = re.fullmatch(r"cmpl-(.*)-0", line["external_id"])
        assert name is not None
        assert name[1] not in found, f"{name[1]} was accounted twice"
        found[name[1]] = line
    return found


def answered(answers: list[Answer]) -> set[str]:
    return {answer.ask.id for answer in answers if answer.usage is not None}


def assert_whole(sidecar: Sidecar, names: set[str]) -> None:
    """Every one of these requests is there once, complete, with joules."""
    wait_until(lambda: names <= set(accounts(sidecar)), "the accounts of later requests")
    for name in names:
        account = accounts(sidecar)[name]
        assert account["complete"], account
        assert account["attributed_joules"] > 0


def parts(gpu: GpuTotals) -> float:
    named = gpu.attributed_joules + gpu.idle_joules
    return named + sum(gpu.overhead_joules.values()) + sum(gpu.unattributed_joules.values())


def assert_balanced(sidecar: Sidecar) -> None:
    """Every joule once, and what nobody pays for has a reason: no engine there, records lost with a
    connection, or (on a machine so busy that the hook's thread does not get its turn) late ones."""
    reasons = {"no_engine", "records_lost", "engine_silent"}
    (gpu,) = sidecar.snapshot().gpus
    assert {reason for reason, joules in gpu.unattributed_joules.items() if joules} <= reasons
    assert gpu.residual_joules == 0
    assert parts(gpu) == pytest.approx(gpu.measured_joules, abs=1e-5)


def test_deaths_cost_a_stretch_and_nothing_else(stage: Stage) -> None:
    """Killed and restarted in the middle of a load, each part leaves the other working; what was lost is
    unattributed with a reason, and later requests are whole again."""
    first = stage.sidecar("first")
    vllm = stage.vllm("vllm-1")
    wait_until(lambda: first.snapshot().engines, "the engine's hello")
    before = send_all(vllm.port, mixed_asks(30, 1, "before"), clients=4)
    assert_whole(first, answered(before))

    second = kill_the_sidecar(stage, vllm, first)
    after = send_all(vllm.port, mixed_asks(30, 3, "after"), clients=4)
    assert_whole(second, answered(after))
    assert_balanced(second)

    kill_vllm(vllm, second)
    reborn = stage.vllm("vllm-2")
    wait_until(lambda: any(engine.up for engine in second.snapshot().engines), "the new engine's hello")
    again = send_all(reborn.port, mixed_asks(30, 5, "again"), clients=4)
    assert_whole(second, answered(again))
    assert_balanced(second)
    (engine,) = second.snapshot().engines
    assert engine.info.engine == "tiny-0"
    assert second.terminate() < 1.5
    assert second.balance()["residual"] == 0
    assert second.balance()["unattributed"] > 0


def kill_the_sidecar(stage: Stage, vllm: VllmServer, first: Sidecar) -> Sidecar:
    """SIGKILL under load, and a new one: every client gets its answer, who was under way is marked."""
    with steady_load(vllm.port, "during", clients=3) as answers:
        wait_until(lambda: any(name.startswith("during") for name in accounts(first)), "the load")
        first.kill()
        second = stage.sidecar("second")
        wait_until(lambda: len(accounts(second)) > 20, "the hook to find the new sidecar")
    assert {answer.status for answer in answers} == {200}
    assert any(not account["complete"] for account in accounts(second).values())
    assert any(account["complete"] for account in accounts(second).values())
    return second


def kill_vllm(vllm: VllmServer, sidecar: Sidecar) -> None:
    """SIGKILL under load: open requests are ended as lost, with what they had cost until then.

    Many clients, so that some request has been open for longer than the hook takes to tell of it.
    """
    with steady_load(vllm.port, "doomed", clients=12):
        wait_until(lambda: any(name.startswith("doomed") for name in accounts(sidecar)), "the load")
        vllm.kill()
    wait_until(lambda: lost_requests(sidecar), "the lost requests")
    assert not any(account["complete"] for account in lost_requests(sidecar))
    assert not any(engine.up for engine in sidecar.snapshot().engines)


def lost_requests(sidecar: Sidecar) -> list[dict[str, Any]]:
    return [account for account in accounts(sidecar).values() if account["finish_reason"] == "engine_lost"]
