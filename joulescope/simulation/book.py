"""Where the joules of a GPU truly went, and who pays for the time in which it waits between two steps.

While any request of an engine is running, what its GPU draws between two steps is a cost of serving that is
paid once: it belongs to the requests of the step that follows, in equal parts, or of the last step if
none follows. Only time in which no request is running is idle, and nobody's.
"""

from __future__ import annotations

from joulescope.simulation.gpu import SimulatedGpu


class GpuBook:
    """The true account of one GPU; what it draws goes to steps, to the gaps before them, or to nobody.

    Engines that share the GPU share its book; ``owner`` tells them apart.
    """

    def __init__(self, gpu: SimulatedGpu, start_ns: int) -> None:
        self.gpu = gpu
        self.request_joules = 0.0
        """Steps, and gaps that were claimed for them."""
        self.overhead_joules = 0.0
        """Steps that no request asked for."""
        self._idle_joules = 0.0
        self._settled_ns = start_ns
        self._running_since_ns: dict[object, int] = {}
        self._owed_joules: dict[object, float] = {}

    def begin(self, owner: object, time_ns: int) -> None:
        """The owner had no request running; from ``time_ns`` on it has."""
        if not self._running_since_ns:
            self._idle_joules += self._take(time_ns)
        self._running_since_ns[owner] = time_ns

    def claim(self, owner: object, until_ns: int) -> float:
        """The gap before a step of the owner that begins at ``until_ns``: joules that its requests owe.

        What was drawn before these requests began to run, while those of another engine did, is left to
        that engine's next step.
        """
        for other, since_ns in self._running_since_ns.items():
            if since_ns < self._running_since_ns[owner]:
                owed = self._take(min(self._running_since_ns[owner], until_ns))
                self._owed_joules[other] = self._owed_joules.get(other, 0.0) + owed
                break
        joules = self._take(until_ns) + self._owed_joules.pop(owner, 0.0)
        self.request_joules += joules
        return joules

    def step(self, end_ns: int, joules: float) -> None:
        """A step that began at the last claim's end, and pays for itself, ends then."""
        self._settled_ns = end_ns
        self.request_joules += joules

    def overhead(self, start_ns: int, end_ns: int, joules: float) -> None:
        """A step of an engine that no request asked for."""
        self._idle_joules += self._take(start_ns)
        self._settled_ns = end_ns
        self.overhead_joules += joules

    def end(self, owner: object, time_ns: int) -> float:
        """The owner's last request is done; the joules that its requests owe since the last step."""
        joules = self.claim(owner, time_ns)
        del self._running_since_ns[owner]
        if not self._running_since_ns and time_ns >= self.gpu.busy_until_ns:
            self.gpu.idle(time_ns)
        return joules

    def idle_joules(self, time_ns: int) -> float:
        """Joules that were nobody's up to then, given that nothing has run since the last step."""
        return self._idle_joules + self._drawn_joules(time_ns)

    def _take(self, until_ns: int) -> float:
        """Joules drawn since the last taking or step, which are thereby somebody's."""
        joules = self._drawn_joules(until_ns)
        self._settled_ns = max(self._settled_ns, until_ns)
        return joules

    def _drawn_joules(self, until_ns: int) -> float:
        if until_ns <= self._settled_ns:
            return 0.0
        gpu = self.gpu
        return gpu.energy_joules_at(gpu.uuid, until_ns) - gpu.energy_joules_at(gpu.uuid, self._settled_ns)
