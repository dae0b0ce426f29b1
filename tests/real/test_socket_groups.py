"""Who may open the socket that two containers share: real users and groups, as root makes them.

A process of a container has the user, the groups and the capabilities that its pod says; ``setpriv`` makes
such processes. Where they are not root they keep CAP_DAC_READ_SEARCH, to read the interpreter wherever it
lies: it opens nothing for writing, which is what connecting to a socket asks for (unix(7)).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.sidecar import Sidecar, wait_until
from tests.requirements import need_mounts, need_root

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
SIDECAR, ENGINE, FS_GROUP = 10001, 2000, 3000
REFUSED = "may not write to the socket"


def as_user(uid: int, gid: int, groups: Sequence[int] = ()) -> tuple[str, ...]:
    """A command's prefix: this user, and the least of capabilities."""
    supplementary = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    kept = "-all" if uid == 0 else "-all,+dac_read_search"
    limits = [f"--bounding-set={kept}", f"--inh-caps={kept}", f"--ambient-caps={kept}"]
    return ("setpriv", f"--reuid={uid}", f"--regid={gid}", supplementary, *limits)


@dataclass
class Engine:
    """A simulated engine in a process of its own, and what its log says."""

    process: subprocess.Popen[bytes]
    log: Path

    def complaints(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if "joulescope" in line]


class Pod:
    """A folder that two containers share, and the containers."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.stack = stack
        self.shared = folder / "run"
        self.shared.mkdir()
        self.shared.chmod(0o777)
        self.own = folder / "own"
        self.own.mkdir()
        self.own.chmod(0o777)
        self.socket = self.shared / "joulescope.sock"
        driver = FakeDriver(folder / "nvml", [FakeGpu(uuid="GPU-0", live=True, power_watts=300.0)])
        self.nvml = environment(build(folder), driver)
        (folder / "nvml").chmod(0o666)

    def sidecar(self, uid: int, gid: int, groups: Sequence[int] = (), name: str = "sidecar") -> Sidecar:
        sidecar = Sidecar(self.socket, self.own, self.nvml, name=name, wrapper=as_user(uid, gid, groups))
        self.stack.callback(sidecar.kill)
        return sidecar

    def engine(self, name: str, *wrapper: str, socket: Path | None = None) -> Engine:
        script = str(ROOT / "benchmarks/sidecar_size.py")
        return self.program(
            name, *wrapper, sys.executable, script, "--engine", str(socket or self.socket), *"188"
        )

    def program(self, name: str, *command: str) -> Engine:
        log = self.own / f"{name}.log"
        environ = {**os.environ, "JOULESCOPE_SOCKET": str(self.socket)}
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=environ)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return Engine(process, log)


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    need_root()
    with ExitStack() as stack:
        yield Pod(tmp_path, stack)


def is_accounted(sidecar: Sidecar, more_than: int = 0) -> None:
    wait_until(
        lambda: sum(line["attributed_joules"] is not None for line in sidecar.requests()) > more_than,
        "requests with joules",
    )


def test_a_common_group_opens_it(pod: Pod) -> None:
    """The folder is root's and open to all, as an emptyDir is; the engine is another user, with the sidecar's
    group among its own."""
    sidecar = pod.sidecar(SIDECAR, SIDECAR).start()
    found = os.stat(pod.socket)
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (SIDECAR, SIDECAR, 0o660)
    engine = pod.engine("engine", *as_user(ENGINE, ENGINE, [SIDECAR]))
    is_accounted(sidecar)
    assert engine.complaints() == []


def test_without_the_group_it_stays_shut_and_the_engine_says_why(pod: Pod) -> None:
    """One line, however often it is tried: who is who, and what mends it. And the engine runs on."""
    sidecar = pod.sidecar(SIDECAR, SIDECAR).start()
    engine = pod.engine("engine", *as_user(ENGINE, ENGINE))
    wait_until(engine.complaints, "the engine's complaint")
    friend = pod.engine("friend", *as_user(ENGINE, ENGINE, [SIDECAR]))
    is_accounted(sidecar, more_than=50)  # half a second and more, with several tries
    (line,) = engine.complaints()
    assert f"uid {ENGINE}, groups {ENGINE})" in line
    assert f"(uid {SIDECAR}, group {SIDECAR}, mode 0660)" in line
    assert f"securityContext.supplementalGroups: [{SIDECAR}]" in line
    assert len(sidecar.snapshot().engines) == 1
    assert engine.process.poll() is None
    assert friend.complaints() == []


def test_an_engine_with_the_sdk_says_so_too(pod: Pod) -> None:
    """It has no other place than its log either."""
    pod.sidecar(SIDECAR, SIDECAR).start()
    program = (
        "import time; from joulescope.sdk import Engine; e = Engine('mine', gpus=['GPU-0']); time.sleep(60)"
    )
    engine = pod.program("sdk", *as_user(ENGINE, ENGINE), sys.executable, "-c", program)
    wait_until(engine.complaints, "the engine's complaint")
    (line,) = engine.complaints()
    assert f"uid {ENGINE}, groups {ENGINE}) {REFUSED}" in line


def test_a_folder_with_a_group_of_its_own_gives_it_on(pod: Pod) -> None:
    """With fsGroup the folder is setgid: the socket has its group, and whoever shares that group gets in."""
    os.chown(pod.shared, 0, FS_GROUP)
    pod.shared.chmod(0o2777)
    sidecar = pod.sidecar(SIDECAR, SIDECAR, [FS_GROUP]).start()
    assert os.stat(pod.socket).st_gid == FS_GROUP
    engine = pod.engine("engine", *as_user(ENGINE, ENGINE, [FS_GROUP]))
    stranger = pod.engine("stranger", *as_user(ENGINE, ENGINE, [SIDECAR]))
    is_accounted(sidecar)
    wait_until(stranger.complaints, "the stranger's complaint")
    assert f"supplementalGroups: [{FS_GROUP}]" in stranger.complaints()[0]
    assert engine.complaints() == []


def test_root_without_capabilities_needs_the_group_too(pod: Pod) -> None:
    """A vLLM that runs as root with all capabilities dropped is a user like any other."""
    sidecar = pod.sidecar(SIDECAR, SIDECAR).start()
    refused = pod.engine("refused", *as_user(0, 0))
    wait_until(refused.complaints, "the engine's complaint")
    assert f"uid 0, groups 0) {REFUSED}" in refused.complaints()[0]
    engine = pod.engine("engine", *as_user(0, 0, [SIDECAR]))
    is_accounted(sidecar)
    assert engine.complaints() == []


def test_root_with_all_capabilities_needs_nothing(pod: Pod) -> None:
    """As a runtime starts it by default: permissions do not hold it."""
    sidecar = pod.sidecar(SIDECAR, SIDECAR).start()
    engine = pod.engine("engine", "setpriv", "--clear-groups")
    is_accounted(sidecar)
    assert engine.complaints() == []


def test_a_read_only_mount_is_enough_for_the_engine(pod: Pod) -> None:
    """It can connect and make nothing there: a broken engine cannot remove or replace the socket."""
    need_mounts()
    view = pod.own / "view"
    view.mkdir()
    sidecar = pod.sidecar(SIDECAR, SIDECAR).start()
    script = (
        f"mount --bind {pod.shared} {view} && mount -o remount,bind,ro {view} && "
        f'! touch {view}/new 2>/dev/null && ! rm -f {view}/joulescope.sock 2>/dev/null && exec "$@"'
    )
    mounted = ("unshare", "--mount", "sh", "-c", script, "sh")
    user = as_user(ENGINE, ENGINE, [SIDECAR])
    engine = pod.engine("engine", *mounted, *user, socket=view / "joulescope.sock")
    is_accounted(sidecar)
    assert engine.complaints() == []
    assert os.listdir(pod.shared) == ["joulescope.sock"]


def test_a_folder_that_it_may_not_write_to_is_waited_for(pod: Pod) -> None:
    """With ``--stay`` it says who may not write where; when the folder is opened it starts by itself."""
    pod.shared.chmod(0o755)
    sidecar = pod.sidecar(SIDECAR, SIDECAR)
    sidecar.arguments = ("--stay",)
    sidecar.start(until="/-/healthy")
    assert sidecar.status("/-/ready") == 503
    log = sidecar.log.read_text()
    assert f"cannot listen on socket {pod.socket}: Permission denied; choose a path that this user may" in log
    pod.shared.chmod(0o777)
    wait_until(lambda: sidecar.status("/-/ready") == 200, "the sidecar to find the folder open")
    pod.engine("engine", *as_user(ENGINE, ENGINE, [SIDECAR]))
    is_accounted(sidecar)


@pytest.mark.parametrize("gid", [SIDECAR, SIDECAR + 2], ids=["same_group", "other_group"])
def test_another_user_takes_over_what_a_killed_sidecar_left(pod: Pod, gid: int) -> None:
    """SIGKILL leaves the socket's file behind. The next sidecar, of another user, puts its own in its place,
    and the engine finds it."""
    first = pod.sidecar(SIDECAR, SIDECAR, name="first").start()
    pod.engine("engine", *as_user(ENGINE, ENGINE, [SIDECAR, SIDECAR + 2]))
    is_accounted(first)
    first.kill()
    assert pod.socket.is_socket()
    second = pod.sidecar(SIDECAR + 1, gid, name="second").start()
    is_accounted(second)
    assert (os.stat(pod.socket).st_uid, os.stat(pod.socket).st_gid) == (SIDECAR + 1, gid)


def test_nobody_takes_a_socket_that_is_in_use(pod: Pod) -> None:
    """Not even a user whom it does not let in, and who could remove its file: that one ends with an error."""
    first = pod.sidecar(SIDECAR, SIDECAR, name="first").start()
    second = pod.sidecar(SIDECAR + 1, SIDECAR + 1, name="second")
    with pytest.raises(AssertionError, match=f"another joulescope already listens on {pod.socket}"):
        second.start()
    assert second.process is not None
    assert second.process.returncode == 2
    pod.engine("engine", *as_user(ENGINE, ENGINE, [SIDECAR]))
    is_accounted(first)
    assert first.process is not None
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(20) == 0
