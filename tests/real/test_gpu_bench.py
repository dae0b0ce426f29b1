"""The benchmark for GPUs, from its command line to its pages, on real vLLM (CPU) under a stand-in driver.

The driver draws the same power whatever runs, so the figures mean nothing; that everything is done, kept and
judged again is what is tested. It starts vLLM itself, which takes about a minute.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.server import load_kept
from joulescope.hook.wire import RequestEnd, RequestStart
from joulescope.ingest.trace import read_trace
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.vllm_env import EAGER, REPOSITORY, make_model, vllm_python

pytestmark = pytest.mark.real

SCRIPT = REPOSITORY / "benchmarks" / "gpu" / "marginal.py"
ROUNDS = 2
LAYERS = 12
"""Slow enough for client, server and sidecar to share two cores."""


@dataclass
class Done:
    """What a run left behind."""

    folder: Path
    trace: Path

    def report(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{name}_nvidia_h100_80gb_hbm3.json").read_text())
        return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("gpubench")
    driver = FakeDriver(folder / "nvml", [FakeGpu(live=True, power_watts=300.0)])
    variables = environment(build(folder), driver)
    variables |= {"VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": str(REPOSITORY)}
    trace = folder / "run.jsonl.gz"
    command = [sys.executable, str(SCRIPT), "--model", str(make_model(folder / "model", LAYERS))]
    command += ["--vllm-python", str(vllm_python())]
    command += ["--vllm-arguments", f"--max-model-len 1024 --max-num-seqs 16 {EAGER}"]
    command += ["--experiments", "density", "--rounds", str(ROUNDS), "--block-seconds", "4"]
    command += ["--sensor-seconds", "1", "--streams", "4", "--scale", "0.04"]
    command += ["--record", str(trace), "--results", str(folder / "live")]
    run = subprocess.run(
        command, env=variables, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, f"{run.stdout[-2000:]}\n{run.stderr[-4000:]}"
    return Done(folder / "live", trace)


def test_every_planned_request_was_sent_and_told_of(done: Done) -> None:
    """The trace holds each injected request under its id, run to its full length."""
    kept, _ = load_kept(done.trace)
    records = list(read_trace(done.trace))
    starts = {record.request: record for record in records if isinstance(record, RequestStart)}
    lengths = {
        starts[record.request].request_id: (starts[record.request].prompt_tokens, record.output_tokens)
        for record in records
        if isinstance(record, RequestEnd)
    }
    injections = list(kept.plan.injections())
    assert len(injections) > 8
    for _, request_id, kind in injections:
        (found,) = (length for name, length in lengths.items() if request_id in name)
        assert found == (kind.prompt_tokens, kind.output_tokens)


def test_every_block_is_used_or_its_reason_is_told(done: Done) -> None:
    """Each kind has a pair for each round, or a count of why there is none; the ledger closes."""
    report = done.report("gpu_marginal")
    assert [arm["kind"] for arm in report["arms"]] == ["8 at a time", "24 at a time"]
    for arm in report["arms"]:
        assert arm["requests_per_block"] > 0
        assert arm["pairs"] + sum(arm["dropped"].values()) == ROUNDS
    assert report["residual_joules"] == 0
    assert report["failures"] == {}
    assert report["engine"]["model"] == "model"


def test_the_meter_was_looked_at_before_and_under_load(done: Done) -> None:
    """The sensor's page has both states, and what the GPU's clocks did meanwhile."""
    sensor = done.report("gpu_sensor")
    assert sensor["idle"]["call_us"]["energy"]["count"] > 5
    assert sensor["load"]["call_us"]["energy"]["count"] > 0  # a loaded machine lets few calls through
    assert sensor["during"]["states"] > 5
    assert sensor["gpu"]["cannot_tell"] == []


def test_a_replay_comes_to_the_same_figures(done: Done) -> None:
    """``--replay`` of the kept trace gives the same arms as the run itself."""
    again = done.folder.parent / "again"
    command = [sys.executable, str(SCRIPT), "--replay", str(done.trace), "--results", str(again)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    report = Done(again, done.trace).report("gpu_marginal")
    assert report["arms"] == done.report("gpu_marginal")["arms"]
