"""Who sends: pod, node and container, from variables and from what the kernel shows."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import pytest

from joulescope.export.otlp_resource import create_resource, detect

POD = "0b1e2d3c-4f5a-4678-9abc-def012345678"
OWN = "a" * 63 + "1"
SANDBOX = "b" * 63 + "2"

POD_VARIABLES = {
    "POD_NAME": "llama-7d9f-x2x",
    "POD_NAMESPACE": "serving",
    "NODE_NAME": "gpu-node-3",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
}


def machine(root: Path, cgroup: str = "0::/\n", mounts: str = "", machine_id: str = "") -> Path:
    """A file system with these files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/self/mountinfo").write_text(mounts)
    (root / "etc").mkdir()
    if machine_id:
        (root / "etc/machine-id").write_text(machine_id + "\n")
    return root


def mount(source: str, target: str) -> str:
    return f"689 669 254:1 {source} {target} rw,relatime - ext4 /dev/vda1 rw\n"


def test_variables_of_the_downward_api_are_read(tmp_path: Path) -> None:
    """Under their usual names; the first that says something counts, and the node is the host."""
    environ = {**POD_VARIABLES, "POD_UID": POD, "K8S_CONTAINER_NAME": "joulescope", "K8S_POD_NAME": " "}
    assert detect(environ, machine(tmp_path)) == {
        "k8s.pod.name": "llama-7d9f-x2x",
        "k8s.pod.uid": POD,
        "k8s.namespace.name": "serving",
        "k8s.node.name": "gpu-node-3",
        "k8s.container.name": "joulescope",
    }
    assert create_resource(environ, root=tmp_path).attributes["host.name"] == "gpu-node-3"


def test_a_pod_is_seen_without_any_variable(tmp_path: Path) -> None:
    """containerd, cgroup v2 with a namespace of its own: what the kubelet mounts tells pod and container.
    The container's id is nowhere: what stands in the mounts is the sandbox's, which is not taken for it."""
    kubelet = f"/var/lib/kubelet/pods/{POD}"
    sandbox = f"/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX}"
    mounts = (
        mount(f"{kubelet}/etc-hosts", "/etc/hosts")
        + mount(f"{kubelet}/containers/joulescope/4f0c11aa", "/dev/termination-log")
        + mount(f"{sandbox}/hostname", "/etc/hostname")
        + mount(f"{sandbox}/resolv.conf", "/etc/resolv.conf")
    )
    assert detect({}, machine(tmp_path, mounts=mounts)) == {
        "k8s.pod.uid": POD,
        "k8s.container.name": "joulescope",
    }


POD_ = POD.replace("-", "_")
CGROUPS = {
    "v1, cgroupfs": f"12:memory:/kubepods/burstable/pod{POD}/{OWN}\n1:cpu:/kubepods/pod{POD}/{OWN}\n",
    "v1, systemd": f"5:cpu:/kubepods.slice/kubepods-pod{POD_}.slice/cri-containerd-{OWN}.scope\n",
    "v2, containerd": f"0::/kubepods.slice/kubepods-pod{POD_}.slice/cri-containerd-{OWN}.scope\n",
    "v2, CRI-O": f"0::/kubepods.slice/kubepods-burstable-pod{POD_}.slice/crio-{OWN}.scope/container\n",
    "v2, colons": f"0::/system.slice/containerd.service/kubepods-pod{POD_}.slice:cri-containerd:{OWN}\n",
    "v1, in the node's own container": f"4:cpu:/docker/{SANDBOX}/kubelet/kubepods/pod{POD}/{OWN}\n",
}


@pytest.mark.parametrize("kind", CGROUPS)
def test_cgroups_show_pod_and_container(tmp_path: Path, kind: str) -> None:
    """Where the path of the cgroup is shown whole, it names both; the innermost id is ours."""
    mounts = mount(f"/var/lib/docker/containers/{SANDBOX}/hostname", "/etc/hostname")
    found = detect({}, machine(tmp_path, CGROUPS[kind], mounts))
    assert (found["k8s.pod.uid"], found["container.id"]) == (POD, OWN)


def test_conmon_is_not_the_container(tmp_path: Path) -> None:
    """CRI-O's watcher has a cgroup named after the container that it watches."""
    found = detect({}, machine(tmp_path, f"0::/kubepods.slice/crio-conmon-{OWN}.scope\n"))
    assert "container.id" not in found


def test_docker_is_seen_outside_of_pods_only(tmp_path: Path) -> None:
    """With cgroup v2 Docker's files name the container. In a pod they would name the sandbox."""
    mounts = mount(f"/var/lib/docker/containers/{OWN}/resolv.conf", "/etc/resolv.conf")
    root = machine(tmp_path, mounts=mounts)
    assert detect({}, root) == {"container.id": OWN}
    assert detect({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, root) == {}
    assert detect({}, machine(tmp_path / "v1", f"9:cpu:/docker/{OWN}\n")) == {"container.id": OWN}


def test_podman_is_seen(tmp_path: Path) -> None:
    """The file that says that this is a container lies in the container's own directory."""
    own = f"/containers/overlay-containers/{OWN}/userdata"
    shared = f"/containers/overlay-containers/{SANDBOX}/userdata"
    mounts = mount(f"{own}/.containerenv", "/run/.containerenv") + mount(f"{shared}/hosts", "/etc/hosts")
    assert detect({}, machine(tmp_path, mounts=mounts)) == {"container.id": OWN}


def test_a_machine_without_proc_or_containers_says_nothing(tmp_path: Path) -> None:
    """Nothing is found, and nothing breaks; strange bytes neither."""
    assert detect({}, tmp_path) == {}
    root = machine(tmp_path, "garbage\n0::/user.slice\n")
    (root / "proc/self/mountinfo").write_bytes(b"\xff\xfe\n1 2 3\n\n")
    assert detect({}, root) == {}


def instance_of(environ: dict[str, str], root: Path, instance: str = "/run/js.sock") -> str:
    return str(create_resource(environ, instance=instance, root=root).attributes["service.instance.id"])


def test_an_instance_keeps_its_id_where_its_place_stays(tmp_path: Path) -> None:
    """In a pod, in a container, on a machine: the same after a restart, another for another sidecar there."""
    pod = machine(tmp_path / "pod")
    container = machine(tmp_path / "container", f"9:cpu:/docker/{OWN}\n")
    host = machine(tmp_path / "host", machine_id="c" * 32)
    ids = [
        instance_of({"POD_UID": POD, "K8S_CONTAINER_NAME": "joulescope"}, pod),
        instance_of({"POD_UID": POD, "K8S_CONTAINER_NAME": "other"}, pod),
        instance_of(POD_VARIABLES, pod),
        instance_of({}, container),
        instance_of({}, host),
        instance_of({}, host, "/run/second.sock"),
    ]
    assert len(set(ids)) == len(ids)
    assert all(uuid.UUID(each).version == 5 for each in ids)
    assert instance_of({}, host) == ids[4]
    assert instance_of({"POD_UID": POD, "K8S_CONTAINER_NAME": "joulescope"}, host) == ids[0]
    assert "c" * 32 not in ids[4]


def test_an_instance_of_an_unknown_place_has_an_id_by_chance(tmp_path: Path) -> None:
    """Two of them must not share one."""
    assert instance_of({}, tmp_path) != instance_of({}, tmp_path)


def test_the_operators_words_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` over all that was found, and the id follows."""
    root = machine(tmp_path)
    ours = create_resource({}, root=root).attributes
    assert (ours["service.name"], ours["host.name"]) == ("joulescope", socket.gethostname())
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"k8s.pod.name=theirs,k8s.pod.uid={POD},host.name=box")
    theirs = create_resource(POD_VARIABLES, root=root).attributes
    assert (theirs["service.name"], theirs["k8s.pod.name"]) == ("mine", "theirs")
    assert theirs["host.name"] == "box"
    assert theirs["service.instance.id"] == instance_of({"POD_UID": POD}, root, "")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=i-1")
    assert create_resource({}, root=root).attributes["service.instance.id"] == "i-1"
