"""A worker as a process of another node: the real hook's patch around a wrapper that names one GPU.

Run as ``python -m tests.inside.worker SOCKET INSTANCE GPU``; it ends when its standard input is closed.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import joulescope.hook.facts as facts
from joulescope.hook.tap import patch_worker


class Wrapper:
    """vLLM's ``WorkerWrapperBase``, as far as the hook looks at it."""

    def __init__(self, instance: str) -> None:
        self.vllm_config = SimpleNamespace(
            instance_id=instance,
            parallel_config=SimpleNamespace(data_parallel_index=0),
            device_config=SimpleNamespace(device_type="cuda"),
        )
        self.worker = SimpleNamespace(rank=1, local_rank=0, device="cuda:0")

    def init_device(self) -> None:
        """Where the hook comes in."""


def main() -> None:
    socket_path, instance, gpu = sys.argv[1:]
    facts._gpu_of = lambda device: (gpu, "stand-in")  # there is no torch here to ask
    module = ModuleType("patched")
    module.WorkerWrapperBase = Wrapper  # type: ignore[attr-defined]
    patch_worker(module, socket_path)
    wrapper = Wrapper(instance)
    wrapper.init_device()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
