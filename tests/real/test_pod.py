"""A hardened pod under podman: real vLLM on the CPU from an image without joulescope, the init container,
hook and sidecar of ``joulescope inject`` beside it, and a stand-in driver that only vLLM's container sees.

What is not played as it is rendered: :data:`tests.real.pod_manifest.LEFT_OUT`.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fake_nvml import FakeDriver, FakeGpu, build
from tests.kubernetes import restricted_errors
from tests.real.pod_manifest import deployment, playable
from tests.real.podman import SIDECAR_IMAGE, Podman
from tests.real.pods import REQUEST_LOG, SIDECAR, VLLM, Pod
from tests.real.sidecar import wait_until
from tests.real.vllm_env import REPOSITORY, make_model, vllm_python

pytestmark = pytest.mark.real

GPU = "GPU-5b1d3c5e-0000-4000-8000-000000000001"
WATTS = 310.0


@pytest.fixture(scope="session")
def template(podman: Podman) -> dict[str, Any]:
    """The pod template that ``joulescope inject`` makes of a plain Deployment of vLLM."""
    driver = podman.folder / "driver"
    driver.mkdir()
    shutil.copy(build(podman.folder / "library"), driver)
    FakeDriver(driver / "state", [FakeGpu(uuid=GPU, live=True, power_watts=WATTS)])
    (driver / "state").chmod(0o666)
    model = make_model(podman.folder / "model")
    for file in model.iterdir():
        file.chmod(0o644)
    command = [sys.executable, "-m", "joulescope.cli.main", "inject", "--image", SIDECAR_IMAGE]
    command += ["--env", f"JOULESCOPE_REQUEST_LOG={REQUEST_LOG}"]
    # vLLM on a CPU names no GPU of its own, so the operator does: the sampler may speak of this one.
    command += ["--env", f"JOULESCOPE_GPUS={GPU}"]
    plain = yaml.safe_dump(deployment(model, driver))
    assert "/opt/joulescope" not in plain
    done = subprocess.run(command, input=plain, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    rendered: dict[str, Any] = yaml.safe_load(done.stdout)["spec"]["template"]
    return rendered


@pytest.fixture(scope="session")
def pod(podman: Podman, template: dict[str, Any]) -> Iterator[Pod]:
    """The pod that most tests share; each leaves both containers running."""
    pod = Pod(podman, playable(template, "served", podman.folder / "served"))
    try:
        pod.play().wait_for_vllm()
        pod.wait_for_sidecar()
        yield pod
    finally:
        pod.remove()


def ask(pod: Pod, name: str, count: int = 3) -> list[str]:
    """Requests that must all be answered in full; their ids in the sidecar's account."""
    answers = [pod.vllm.complete(f"{name}-{number}", "Every request leaves", 40) for number in range(count)]
    assert [answer.output_tokens for answer in answers] == [40] * count
    return [answer.id for answer in answers]


def accounted(pod: Pod, ids: list[str]) -> list[float]:
    """Waits until the request log has all of them; their joules."""

    def joules() -> list[float]:
        log = pod.requests()
        return [value for id, value in log.items() if any(id.startswith(wanted) for wanted in ids)]

    wait_until(lambda: len(joules()) >= len(ids), f"the accounts of {ids}", 30)
    return joules()


def test_requests_have_their_joules_on_the_metrics_page(pod: Pod) -> None:
    before = pod.metric("joulescope_request_energy_joules_count")
    costs = accounted(pod, ask(pod, "metrics", 6))
    assert min(costs) > 0
    wait_until(
        lambda: pod.metric("joulescope_request_energy_joules_count") >= before + 6, "the metrics page", 30
    )
    (gpu,) = pod.snapshot().gpus
    assert (gpu.info.gpu, gpu.info.sensor, gpu.info.energy_source) == (GPU, "engine", "counter")


def test_vllm_has_joulescope_only_from_the_init_container(pod: Pod) -> None:
    find = "import importlib.util as u; print(getattr(u.find_spec('joulescope'), 'origin', None))"
    python = str(vllm_python())
    assert pod.execute(VLLM, python, "-c", find) == "/opt/joulescope/hook/joulescope/__init__.py"
    assert pod.execute(VLLM, "/usr/bin/env", "-u", "PYTHONPATH", python, "-c", find) == "None"
    assert pod.execute(VLLM, "/usr/bin/env", "-u", "PYTHONPATH", "/usr/bin/python3", "-c", find) == "None"


def test_both_containers_are_hardened(pod: Pod, template: dict[str, Any]) -> None:
    """As the kernel tells it of each first process, and as Pod Security would judge the template."""
    users = {}
    for name in (VLLM, SIDECAR):
        status = Path(f"/proc/{pod.pid(pod.container(name))}/status").read_text()
        facts = {line.partition(":")[0]: line.split()[1:] for line in status.splitlines()}
        assert facts["CapEff"] == facts["CapBnd"] == ["0" * 16], name
        assert facts["NoNewPrivs"] == ["1"], name
        assert facts["Seccomp"] == ["2"], name
        assert "10001" in facts["Groups"], name
        users[name] = facts["Uid"][0]
        assert "Read-only file system" in pod.execute(name, "/usr/bin/touch", "/x", check=False)
    assert users == {VLLM: "10002", SIDECAR: "10001"}
    for folder in ("/opt/joulescope/hook", "/run/joulescope"):
        assert "Read-only file system" in pod.execute(VLLM, "/usr/bin/touch", f"{folder}/x", check=False)
    # The test's own folders are of the host, which "restricted" forbids; no user of joulescope needs one.
    assert [error for error in restricted_errors(template) if "hostPath" not in error] == []


def test_sidecar_stopped_and_started(pod: Pod) -> None:
    """vLLM answers meanwhile; what was accounted is in the log; the next requests have their joules again."""
    ids = ask(pod, "before-stop")
    pod.signal(SIDECAR, signal.SIGTERM)
    assert pod.ended(SIDECAR) == 0
    assert len(accounted(pod, ids)) == len(ids)
    ask(pod, "while-stopped")
    serves_again(pod, "after-stop")


def test_sidecar_killed(pod: Pod) -> None:
    pod.signal(SIDECAR, signal.SIGKILL)
    assert pod.ended(SIDECAR) == 137
    ask(pod, "while-killed")
    serves_again(pod, "after-kill")


def test_sidecar_killed_amid_a_stream(pod: Pod) -> None:
    """A request that runs while the sidecar dies comes to its end."""
    script = (
        "import sys; from tests.real.api import Client;"
        "print(Client(sys.argv[1]).complete('amid', 'Every request', 1500).output_tokens)"
    )
    url = f"http://{pod.address}:8000"
    # The page is a second old at most: the request before may still stand on it.
    wait_until(lambda: pod.metric("joulescope_requests_running") == 0, "an engine at rest", 30)
    command = [sys.executable, "-c", script, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as client:
        wait_until(lambda: pod.metric("joulescope_requests_running") > 0, "the request to run", 30)
        pod.signal(SIDECAR, signal.SIGKILL)
        output, _ = client.communicate(timeout=120)
    assert output.strip() == "1500"
    pod.ended(SIDECAR)
    serves_again(pod, "after-stream")


def test_sidecar_out_of_memory(pod: Pod) -> None:
    """The kernel kills it for the limit of the manifest: a greedy guest in its container fills the memory,
    and its first process is made the one to go."""
    pid = pod.pid(pod.container(SIDECAR))
    Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
    greedy = "import itertools; kept = [bytearray(1 << 20) for _ in itertools.count()]"
    pod.execute(SIDECAR, "python", "-c", greedy, check=False)
    assert pod.ended(SIDECAR) == 137
    ask(pod, "out-of-memory")
    serves_again(pod, "after-out-of-memory")


def test_vllm_killed_and_started(pod: Pod) -> None:
    """The sidecar serves on, keeps what it accounted, and takes the new engine."""
    kept = accounted(pod, ask(pod, "before-vllm"))
    count = pod.metric("joulescope_request_energy_joules_count")
    pod.signal(VLLM, signal.SIGKILL)
    pod.ended(VLLM)
    assert pod.running(SIDECAR)
    assert pod.metric("joulescope_request_energy_joules_count") >= count >= len(kept)
    pod.start(VLLM)
    pod.wait_for_vllm()
    pod.wait_for_sidecar()
    assert min(accounted(pod, ask(pod, "after-vllm"))) > 0


def test_pod_ends_within_a_second_of_grace(pod: Pod) -> None:
    """The last joules are in the request log. This is the last test of the shared pod."""
    ids = ask(pod, "last")
    begin = time.monotonic()
    pod.stop()
    seconds = time.monotonic() - begin
    assert len(accounted(pod, ids)) == len(ids)
    state = podman_state(pod)
    assert state["ExitCode"] == 0, state
    print(f"the pod ended {seconds:.2f} s after SIGTERM")


def test_init_container_that_fails(podman: Podman, template: dict[str, Any]) -> None:
    """Its volume cannot be written, and with --lenient vLLM starts and serves all the same, hookless."""
    manifest = playable(template, "hookless", podman.folder / "hookless")
    (installer,) = manifest["spec"]["initContainers"]
    for place in installer["volumeMounts"]:
        place["readOnly"] = True
    pod = Pod(podman, manifest, number=1)
    try:
        pod.play().wait_for_vllm()
        ask(pod, "hookless")
        assert pod.running(SIDECAR)
        assert pod.get("/-/healthy") is not None
        assert pod.metric("joulescope_request_energy_joules_count") == 0
        assert list((podman.folder / "hookless" / "joulescope-hook").iterdir()) == []
    finally:
        pod.remove()


def podman_state(pod: Pod) -> dict[str, Any]:
    state: dict[str, Any] = pod.podman.inspect(pod.container(SIDECAR))["State"]
    return state


def serves_again(pod: Pod, name: str) -> None:
    """The sidecar, started anew, measures vLLM as before."""
    pod.start(SIDECAR)
    pod.wait_for_sidecar()
    assert min(accounted(pod, ask(pod, name))) > 0
