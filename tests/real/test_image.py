"""The image, built from its Dockerfile and started as in Kubernetes: no root, no capability, no disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import joulescope
from tests.real.podman import SIDECAR_IMAGE, Podman
from tests.real.sidecar import wait_until

pytestmark = pytest.mark.real

HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none")
ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"


def test_the_hook_is_brought_to_a_volume(podman: Podman, tmp_path: Path) -> None:
    """By the user of the image, readable by any other."""
    podman.folder.joinpath("hook").mkdir()
    volume = podman.folder / "hook"
    volume.chmod(0o777)
    install = ("hook", "install", "/opt/joulescope/hook", "--lenient")
    said = podman.run(
        "run", "--rm", *HARDENED, f"--volume={volume}:/opt/joulescope/hook", SIDECAR_IMAGE, *install
    )
    assert said == (
        f"joulescope {joulescope.__version__} is now in /opt/joulescope/hook: PYTHONPATH=/opt/joulescope/hook"
    )
    tap = volume / "joulescope" / "hook" / "tap.py"
    assert tap.stat().st_uid == 10001
    assert tap.stat().st_mode & 0o444 == 0o444


def test_the_list_of_its_contents_is_in_it(podman: Podman) -> None:
    """CycloneDX, with every package that Python finds there."""
    cat = ("run", "--rm", *HARDENED, "--entrypoint=cat", SIDECAR_IMAGE, "/app/share/sbom/joulescope.cdx.json")
    listed: dict[str, Any] = json.loads(podman.run(*cat))
    assert listed["bomFormat"] == "CycloneDX"
    names = {each["name"].lower().replace("_", "-") for each in listed["components"]}
    assert {"numpy", "prometheus-client", "msgspec", "nvidia-ml-py"} <= names
    assert listed["metadata"]["component"]["name"] == "joulescope-inference"


def test_it_serves_without_root_capabilities_or_a_place_to_write(podman: Podman) -> None:
    """And ends well when it is told to."""
    container = podman.run("run", "--detach", *HARDENED, SIDECAR_IMAGE, "serve", "--sensor", "engine")

    def asked(page: str) -> str:
        address = f"http://127.0.0.1:5685{page}"
        return podman.run("exec", container, "python", "-c", ASK, address, check=False)

    try:
        wait_until(lambda: "healthy" in asked("/-/healthy"), "the sidecar to serve", 60)
        assert "joulescope_build_info" in asked("/metrics")
        assert podman.run("exec", container, "id", "-u") == "10001"
        podman.run("stop", "--time", "10", container)
        state = podman.inspect(container)["State"]
        assert (state["ExitCode"], state["Status"]) == (0, "exited")
    finally:
        podman.run("rm", "--force", container, check=False)


def test_it_is_labelled(podman: Podman) -> None:
    """With the version of the package."""
    found = json.loads(podman.run("image", "inspect", SIDECAR_IMAGE))[0]
    labels = found["Labels"]
    assert labels["org.opencontainers.image.version"] == joulescope.__version__
    assert found["Config"]["User"] == "10001:10001"
    assert "Healthcheck" not in found["Config"]
