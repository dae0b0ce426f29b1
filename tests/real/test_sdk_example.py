"""The example image server beside a real sidecar: joules per image from a counter that runs by the clock."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from joulescope.model import Snapshot
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.sidecar import Sidecar, wait_until

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
GPU = "GPU-5b1d3c5e-0000-4000-8000-000000000001"
IMAGES = 14


@dataclass
class Run:
    """What was there when the example had ended and its joules were accounted."""

    shown: str
    accounts: dict[str, dict[str, Any]]
    snapshot: Snapshot
    metrics: str
    balance: dict[str, float]

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        samples = [
            sample.value
            for family in text_string_to_metric_families(self.metrics)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert samples, f"no {name} with {labels}"
        return sum(samples)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs sidecar and example as processes of their own; the GPU is found by CUDA_VISIBLE_DEVICES."""
    folder = tmp_path_factory.mktemp("sdk")
    with ExitStack() as stack:
        driver = FakeDriver(folder / "nvml", [FakeGpu(uuid=GPU, live=True, power_watts=310.0)])
        stack.callback(driver.close)
        sidecar = Sidecar(folder / "js.sock", folder, environment(build(folder), driver))
        stack.callback(sidecar.kill)
        sidecar.start()
        command = [sys.executable, str(ROOT / "docs/examples/diffusion_loop.py")]
        command += ["--images", str(IMAGES), "--seconds-per-patch", "2e-3"]
        shown = subprocess.run(
            command,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "JOULESCOPE_SOCKET": str(sidecar.socket),
                "CUDA_VISIBLE_DEVICES": GPU,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        wait_until(lambda: len(sidecar.requests()) == IMAGES, "the accounts of all images", 30.0)
        wait_until(lambda: sidecar.snapshot().engines[0].requests_open == 0, "a fresh snapshot", 30.0)
        metrics = sidecar.get("/metrics")
        assert metrics is not None
        snapshot = sidecar.snapshot()
        accounts = {line["request_id"]: line for line in sidecar.requests()}
        sidecar.terminate()
        yield Run(shown, accounts, snapshot, metrics.decode(), sidecar.balance())


def test_each_image_has_its_joules(run: Run) -> None:
    """Every image has one account, measured in full, in images and patches."""
    assert len(run.accounts) == IMAGES
    assert run.shown.splitlines()[-1] == f"{IMAGES} images; a sidecar listens"
    for account in run.accounts.values():
        assert account["attributed_joules"] > 0
        assert account["complete"]
        assert (account["output_tokens"], account["unit"], account["work_unit"]) == (1, "image", "patch")
        assert account["engine"] == "toy-diffusion-0"


def test_joules_sum(run: Run) -> None:
    """The images' joules are the GPU's attributed ones to the microjoule, and nothing is left over."""
    total = sum(account["attributed_joules"] for account in run.accounts.values())
    (gpu,) = run.snapshot.gpus
    assert total == pytest.approx(gpu.attributed_joules, abs=1e-6)
    assert total == pytest.approx(run.balance["attributed"], abs=1e-6)
    assert run.balance["residual"] == 0
    assert run.value("joulescope_conservation_residual_joules") == 0
    assert gpu.attributed_joules < gpu.measured_joules


def test_metrics_show_joules_per_image(run: Run) -> None:
    """Two counters give joules per image, and the engine's info says that images are what is counted."""
    images = run.value("joulescope_generated_tokens_total", engine="toy-diffusion-0")
    joules = run.value("joulescope_attributed_energy_joules_total", engine="toy-diffusion-0")
    mean = sum(account["attributed_joules"] for account in run.accounts.values()) / IMAGES
    assert images == IMAGES
    assert joules / images == pytest.approx(mean)
    assert run.value("joulescope_engine_gpu_info", engine="toy-diffusion-0", gpu=GPU) == 1
    assert run.value("joulescope_engine_info", unit="image", work_unit="patch", cost_source="work") == 1
    assert (
        run.value("joulescope_request_output_token_energy_joules_count", engine="toy-diffusion-0") == IMAGES
    )


def test_a_large_image_costs_more_than_a_small_one(run: Run) -> None:
    """Joules follow the patches, though sizes differ tenfold.

    The GPU draws a constant power here, so joules are time, and where the machine has other things to do one
    image may pay for that: most are held to the usual one.
    """
    patches = {
        name: int(count)
        for name, count in re.findall(r"^(\S+): .*, (\d+) patches", run.shown, flags=re.MULTILINE)
    }
    assert {name: account["scheduled_tokens"] for name, account in run.accounts.items()} == patches
    assert max(patches.values()) > 8 * min(patches.values())
    per_patch = {name: each["attributed_joules"] / patches[name] for name, each in run.accounts.items()}
    usual = statistics.median(per_patch.values())
    near = [name for name, joules in per_patch.items() if joules == pytest.approx(usual, rel=0.35)]
    assert len(near) > 0.7 * len(per_patch), per_patch
