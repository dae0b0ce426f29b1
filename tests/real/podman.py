"""Podman of its own for a test session: its images, containers and settings lie in one folder.

The runtime is runc on cgroups of version 1 or 2. What differs from podman's defaults, and why:

- ``default_ulimits``: podman asks for the most that root may have, which is refused inside another container.
- images come from packages of Debian (mmdebstrap) under the name of the base that the Dockerfile asks for,
  so that no registry is needed; the Dockerfile itself is built as it is, by buildah without namespaces.
- pods get no network of CNI; a pair of virtual interfaces joins a pod to this machine and to nothing else.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.real.vllm_env import CACHE, REPOSITORY
from tests.requirements import need_program

PROGRAMS = ("podman", "runc", "buildah", "catatonit", "mmdebstrap", "ip", "nsenter")
SIDECAR_IMAGE = "localhost/joulescope:test"
PLAIN_IMAGE = "localhost/debian:test"
"""Debian with Python 3.11 and nothing of joulescope."""

_PACKAGES = "python3,python3-venv,libgomp1,libstdc++6,libnuma1"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PIP_SETTINGS = ("/etc/ssl/certs", "/etc/xdg/pip", "/etc/pip.conf", "/etc/hosts")


@dataclass
class Podman:
    """Podman, runc and buildah with all that they keep below ``folder``, a short path."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for program in PROGRAMS:
            need_program(program)
        containers, storage = self.folder / "containers.conf", self.folder / "storage.conf"
        containers.write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            f'tmp_dir = "{self.folder}/tmp"\nlock_type = "file"\n'  # else shared with the machine's podman
        )
        storage.write_text(
            f'[storage]\ndriver = "overlay"\nrunroot = "{self.folder}/run"\n'
            f'graphroot = "{self.folder}/store"\n'
        )
        self.environment = {
            **os.environ,
            "CONTAINERS_CONF": str(containers),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "BUILDAH_ISOLATION": "chroot",
        }

    def run(self, *arguments: str, check: bool = True, timeout: float = 120.0) -> str:
        """Output and messages of a podman command; an error tells them."""
        return self._run("podman", *arguments, check=check, timeout=timeout)

    def inspect(self, container: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.run("container", "inspect", container))
        return found[0]

    def build_images(self) -> None:
        """A plain Debian and, by the Dockerfile of this repository, the sidecar on it."""
        self.run("import", f"--change=ENV PATH={_PATH}", str(debian()), PLAIN_IMAGE, timeout=300)
        base = self._run("buildah", "from", "--pull-never", PLAIN_IMAGE).split()[-1]
        # The environment of vLLM may lie below /root, which other users may not even cross.
        self._run("buildah", "run", base, "sh", "-c", "ln -s python3 /usr/bin/python; chmod 711 /root")
        self._run("buildah", "commit", "--quiet", base, PLAIN_IMAGE)
        dockerfile = (REPOSITORY / "Dockerfile").read_text()
        for name in sorted(set(re.findall(r"^FROM (python:\S+)", dockerfile, re.MULTILINE))):
            self._run("buildah", "tag", PLAIN_IMAGE, f"docker.io/library/{name}")
        settings = [f"--volume={path}:{path}:ro" for path in _PIP_SETTINGS if Path(path).exists()]
        build = ("build", "--network=host", "--pull-never", *settings, "--tag", SIDECAR_IMAGE)
        self._run("buildah", *build, str(REPOSITORY), timeout=600)

    def close(self) -> None:
        """Ends and removes all of this podman, and nothing of any other."""
        self.run("pod", "rm", "--all", "--force", "--time", "0", check=False)
        self.run("system", "reset", "--force", check=False)

    def _run(self, *command: str, check: bool = True, timeout: float = 120.0) -> str:
        # A file, not a pipe: the container's monitor keeps the outputs of the command that started it.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command, env=self.environment, stdout=output, stderr=output, timeout=timeout, check=False
            )
            output.seek(0)
            text = output.read().decode(errors="replace")
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{text[-4000:]}"
        return text.strip()


def debian() -> Path:
    """A Debian 12 with Python 3.11, made of packages once (two minutes) and kept for the next time."""
    kept = CACHE / "debian-12-python.tar"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        making = kept.with_name(f"making-{os.getpid()}.tar")
        command = ["mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(making)]
        subprocess.run(command, check=True, capture_output=True)
        making.rename(kept)
    return kept
