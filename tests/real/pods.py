"""A running pod of podman: vLLM, the sidecar, and what can happen to each of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joulescope.export.snapshot_json import decode_snapshot
from joulescope.model import Snapshot
from tests.real.api import Client
from tests.real.pod_manifest import VLLM_PORT
from tests.real.podman import Podman
from tests.real.sidecar import wait_until
from tests.requirements import need_program

SIDECAR_PORT = 5685
VLLM, SIDECAR = "vllm", "joulescope"
REQUEST_LOG = "/run/joulescope/requests.jsonl"


@dataclass
class Pod:
    """One pod that is played from a manifest, with an address that only this machine reaches.

    Args:
        manifest: a Pod; its containers are called by their names in it.
        number: tells apart the pods of a test session; makes the address.
    """

    podman: Podman
    manifest: dict[str, Any]
    number: int = 0
    started: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def address(self) -> str:
        """Below the block for documentation (RFC 5737, 198.51.100.0/24); a block of four a pod."""
        return f"198.51.100.{4 * self.number + 2}"

    @property
    def vllm(self) -> Client:
        return Client(f"http://{self.address}:{VLLM_PORT}")

    def play(self) -> Pod:
        """Starts it, without waiting for vLLM; an init container that fails is an error of podman's."""
        path = self.podman.folder / f"{self.name}.json"
        path.write_text(json.dumps(self.manifest))
        self.podman.run("play", "kube", "--network", "none", str(path))
        self._join_network()
        return self

    def _join_network(self) -> None:
        """A pair of interfaces: one here, one in the network that the pod's containers share."""
        here, there = f"jspod{os.getpid() % 10**6}{self.number}", "eth0"
        space = f"/proc/{self.pid(self._infra())}/ns/net"
        ip = need_program("ip")
        inside = [need_program("nsenter"), f"--net={space}", ip]
        peer = ["peer", "name", there, "netns", str(self.pid(self._infra()))]
        for command in (
            [ip, "link", "add", here, "type", "veth", *peer],
            [ip, "address", "add", f"198.51.100.{4 * self.number + 1}/30", "dev", here],
            [ip, "link", "set", here, "up"],
            [*inside, "address", "add", f"{self.address}/30", "dev", there],
            [*inside, "link", "set", there, "up"],
        ):
            subprocess.run(command, check=True, capture_output=True)

    def _infra(self) -> str:
        found = json.loads(self.podman.run("pod", "inspect", self.name))
        return str(found["InfraContainerID"])

    def container(self, name: str) -> str:
        return f"{self.name}-{name}"

    def pid(self, container: str) -> int:
        """Of the first process, as this machine sees it; 0: it does not run."""
        return int(self.podman.inspect(container)["State"]["Pid"])

    def log(self, name: str) -> str:
        return self.podman.run("logs", self.container(name), check=False)

    def signal(self, name: str, which: signal.Signals) -> None:
        """A signal to the first process of a container, from outside as the kernel or a kubelet sends it."""
        os.kill(self.pid(self.container(name)), which)

    def start(self, name: str) -> None:
        self.podman.run("start", self.container(name))

    def running(self, name: str) -> bool:
        return self.pid(self.container(name)) > 0

    def ended(self, name: str) -> int:
        """Waits for the end of a container; its exit status."""
        return int(self.podman.run("wait", self.container(name)).splitlines()[-1])

    def execute(self, name: str, *command: str, check: bool = True) -> str:
        return self.podman.run("exec", self.container(name), *command, check=check)

    def cgroup(self, name: str, controller: str) -> Path:
        """The folder of a container's control group, of version 1 or 2."""
        lines = Path(f"/proc/{self.pid(self.container(name))}/cgroup").read_text().splitlines()
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return Path(f"/sys/fs/cgroup/{controller}{path}")
        return Path(f"/sys/fs/cgroup{lines[-1].split(':', 2)[2]}")

    def get(self, path: str, port: int = SIDECAR_PORT) -> str | None:
        """A page, or ``None`` if it cannot be had now."""
        try:
            with urllib.request.urlopen(f"http://{self.address}:{port}{path}", timeout=5) as answer:
                return bytes(answer.read()).decode()
        except (urllib.error.URLError, OSError):
            return None

    def wait_for_vllm(self) -> None:
        process = Path(f"/proc/{self.pid(self.container(VLLM))}")

        def serves() -> bool:
            assert process.exists(), self.log(VLLM)[-4000:]
            return self.get("/health", VLLM_PORT) is not None

        wait_until(serves, "vLLM to serve")

    def wait_for_sidecar(self) -> None:
        wait_until(lambda: self.get("/-/ready") is not None, "the sidecar to read GPUs", 60)

    def snapshot(self) -> Snapshot:
        page = self.get("/api/snapshot")
        assert page is not None
        return decode_snapshot(page.encode())

    def metric(self, name: str) -> float:
        """The sum of a metric of the sidecar over its labels."""
        page = self.get("/metrics") or ""
        return sum(map(float, re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)", page, re.MULTILINE)))

    def requests(self) -> dict[str, float]:
        """Joules by request id, as the request log tells them."""
        mounts = self.podman.inspect(self.container(SIDECAR))["Mounts"]
        folder = next(mount["Source"] for mount in mounts if mount["Destination"] == "/run/joulescope")
        log = Path(folder) / Path(REQUEST_LOG).name
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return {line["request_id"]: line["attributed_joules"] for line in lines}

    def stop(self) -> float:
        """SIGTERM to all, SIGKILL when the grace is over; the seconds until the pod had ended."""
        begin = time.monotonic()
        self.podman.run("pod", "stop", "--time", "1", self.name)
        return time.monotonic() - begin

    def remove(self) -> None:
        self.podman.run("pod", "rm", "--force", "--time", "0", self.name, check=False)
