"""A real sidecar process under the real package amdsmi and a stand-in for ROCm's library."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import msgspec
import pytest

from joulescope.hook.facts import worker_hello
from joulescope.hook.wire import AnyRecord, encode_frame
from tests import worlds
from tests.fake_amdsmi import FakeGpu, FakeRocm, build, environment
from tests.real.sidecar import Sidecar, wait_until
from tests.worlds import SECOND

pytestmark = pytest.mark.real

WATTS = 400
TORCH_SHOWS = "39643462-6136-6531-6232-633364346535"
"""What torch prints of the HIP UUID of the GPU with the serial 0x9D4BA6E1B2C3D4E5."""


@contextmanager
def drawing(rocm: FakeRocm) -> Iterator[None]:
    """The counters run by the machine's clock until the block ends."""
    stop = threading.Event()

    def run() -> None:
        seen = time.monotonic()
        while not stop.wait(0.005):
            now = time.monotonic()
            rocm.run(now - seen)
            seen = now

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def worker(monkeypatch: pytest.MonkeyPatch) -> AnyRecord:
    """The greeting of a worker of vLLM on ROCm, as the hook makes it."""
    torch = ModuleType("torch")
    torch.version = SimpleNamespace(hip="7.0.51831")  # type: ignore[attr-defined]
    properties = SimpleNamespace(uuid=TORCH_SHOWS, name="AMD Instinct MI300X")
    torch.cuda = SimpleNamespace(get_device_properties=lambda device: properties)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    return worker_hello(
        SimpleNamespace(instance_id="i"), SimpleNamespace(device=SimpleNamespace(type="cuda"))
    )


def test_a_request_on_an_amd_gpu_gets_its_joules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hook and sensor call the GPU the same: a second of a request costs what the GPU drew in it."""
    rocm = FakeRocm(tmp_path / "state", [FakeGpu(power_watts=WATTS)])
    variables = environment(build(tmp_path / "rocm"), rocm)
    arguments = ("--sensor", "amd", "--gpus", "engine")
    sidecar = Sidecar(tmp_path / "js.sock", tmp_path, variables, arguments=arguments)
    with drawing(rocm):
        try:
            sidecar.start()
            with socket.socket(socket.AF_UNIX) as engine, socket.socket(socket.AF_UNIX) as helper:
                for peer in (engine, helper):
                    peer.connect(str(sidecar.socket))
                tell(engine, [worlds.hello(time.monotonic_ns(), gpus=[])])
                tell(helper, [worker(monkeypatch)])
                wait_until(lambda: sidecar.snapshot().gpus, "the engine's GPU to be measured")
                begin_ns = time.monotonic_ns()
                wait_until(lambda: time.monotonic_ns() > begin_ns + 2 * SECOND, "two seconds to pass")
                life = [
                    worlds.start(1, begin_ns),
                    worlds.step(0, begin_ns + SECOND // 2, begin_ns + 3 * SECOND // 2, [1]),
                    worlds.end(1, begin_ns + 3 * SECOND // 2, 0),
                ]
                tell(engine, life)
                wait_until(sidecar.requests, "the request's account", 60.0)
            sidecar.terminate()
        finally:
            sidecar.kill()
    (request,) = sidecar.requests()
    balance = sidecar.balance()
    assert request["attributed_joules"] == pytest.approx(WATTS, rel=0.15)
    assert balance["residual"] == 0
    assert "GPU-9d4ba6e1b2c3d4e5" in sidecar.log.read_text()


def tell(peer: socket.socket, records: Sequence[AnyRecord]) -> None:
    peer.sendall(encode_frame(list(records), msgspec.msgpack.Encoder()))
