"""Real vLLM on the CPU whose hook starts the sampler, with vLLM's own copy of pynvml on a stand-in driver,
and a real sidecar process that has no driver at all: its joules come from within vLLM's environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from joulescope.model import GpuTotals
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.inside.world import alive
from tests.real.load import mixed_asks, send_all
from tests.real.sidecar import Sidecar, wait_until
from tests.real.vllm_env import EAGER, VllmServer, install_hook, make_model

pytestmark = pytest.mark.real

GPU = "GPU-5b1d3c5e-0000-4000-8000-000000000001"


def samplers_of(log: Path) -> list[int]:
    """Processes that the hook says it started, by vLLM's log."""
    lines = [line for line in log.read_text().splitlines() if "cannot read this engine's GPUs" in line]
    return [int(line.split("process ")[1].split()[0]) for line in lines]


def only(sidecar: Sidecar) -> GpuTotals | None:
    return next(iter(sidecar.snapshot().gpus), None)


def test_joules_come_from_within_vllm(tmp_path: Path) -> None:
    """Every request gets its joules, the account closes with nothing left over, and when vLLM stops nothing
    of joulescope stays."""
    driver = FakeDriver(tmp_path / "nvml", [FakeGpu(uuid=GPU, live=True, power_watts=310.0)])
    inside = environment(build(tmp_path), driver, base={})
    vllm = VllmServer(
        model=make_model(tmp_path / "model"),
        hook_path=install_hook(tmp_path / "hook"),
        socket_path=tmp_path / "js.sock",
        log_path=tmp_path / "vllm.log",
        arguments=[EAGER],
        environment={**inside, "JOULESCOPE_SAMPLER": "on"},  # auto is for NVIDIA GPUs; vLLM sees none
    )
    sidecar = Sidecar(vllm.socket_path, tmp_path, environment(None, None), arguments=("--gpus", GPU))
    try:
        with vllm:
            sidecar.start()
            (pid,) = samplers_of(vllm.log_path)
            assert str(tmp_path / "hook") in Path(f"/proc/{pid}/environ").read_text()
            assert os.getpriority(os.PRIO_PROCESS, pid) == 10
            answers = send_all(vllm.port, mixed_asks(24, seed=3, abort_every=1000), clients=8)
            wait_until(lambda: len(sidecar.requests()) >= len(answers), "the accounts of all requests")
        wait_until(lambda: not alive(pid), "the sampler to end with vLLM")
        gpu = only(sidecar)
        assert gpu is not None
        assert (gpu.info.sensor, gpu.info.energy_source) == ("engine", "counter")
        sidecar.terminate()
    finally:
        sidecar.kill()
    balance = sidecar.balance()
    assert balance["residual"] == 0
    assert balance["measured"] > 310.0
    costs = [line["attributed_joules"] for line in sidecar.requests()]
    assert len(costs) == len(answers)
    assert min(costs) > 0
    assert sum(costs) == pytest.approx(balance["attributed"], rel=1e-3)
