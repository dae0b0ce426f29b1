"""Sidecars' real pages over an account that grows with each read, until it is held."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.model import Snapshot
from tests.export.samples import GPU_A, engine_a, gpu_a, rich_snapshot
from tests.real.prometheus import PATIENCE_SECONDS


class Account:
    """One GPU and one engine. ``size``: joules measured at each read; three quarters are the requests'."""

    def __init__(self, size: float) -> None:
        self.size = size
        self.address = ""
        """Where its pages are served."""
        self._reads = 0
        self._held = False
        self._lock = threading.Lock()

    def hold(self) -> None:
        """From now on nothing is drawn any more."""
        with self._lock:
            self._held = True

    @property
    def measured_joules(self) -> float:
        return self.size * self._reads

    @property
    def attributed_joules(self) -> float:
        return 0.75 * self.size * self._reads

    def __call__(self) -> Snapshot:
        with self._lock:
            self._reads += not self._held
            joules, tokens = self.size * self._reads, 8 * self._reads
        gpu = replace(
            gpu_a(),
            measured_joules=joules,
            attributed_joules=0.75 * joules,
            idle_joules=0.25 * joules,
            overhead_joules={},
            unattributed_joules={},
        )
        engine = replace(
            engine_a(),
            attributed_joules={(GPU_A, "prefill"): 0.25 * joules, (GPU_A, "decode"): 0.5 * joules},
            tokens={"generated": tokens},
        )
        return replace(rich_snapshot(), wall_seconds=time.time(), gpus=(gpu,), engines=(engine,))


@contextmanager
def serving(*accounts: Account) -> Iterator[None]:
    """Their pages, each at an address of its own."""
    with ExitStack() as stack:
        for account in accounts:
            server = HttpServer("127.0.0.1", 0, create_app(account, lambda: (True, "ready")))
            host, port = server.start()
            stack.callback(server.stop, PATIENCE_SECONDS)
            account.address = f"{host}:{port}"
        yield
