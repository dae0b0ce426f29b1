"""Where the joules of a GPU truly went, and who pays for the time in which it waits between two steps.

While any request of an engine is running, what its GPU draws between two steps is a cost of serving that is
paid once: it belongs to the requests of the step that follows, in equal parts, or of the last step if
none follows. Only time in which no request is running is idle, and nobody's.
"""

from __future__ import annotations

from joulescope.simulation.gpu import SimulatedGpu


class GpuBook:
    """The true account of one GPU; what it draws goes to steps, to the gaps before them, or to nobody."""

    def __init__(self, gpu: SimulatedGpu, start_ns: int) -> None:
        self.gpu = gpu
        self.request_joules = 0.0
        """Steps, and gaps that were claimed for them."""
        self._idle_joules = 0.0
        self._settled_ns = start_ns

    def claim(self, since_ns: int, until_ns: int) -> float:
        """Gives out the joules drawn from the last claim or step until ``until_ns``.

        What was drawn before ``since_ns``, when the claimant's requests began to run, is idle.
        """
        if since_ns > self._settled_ns:
            self._idle_joules += self._drawn_joules(since_ns)
            self._settled_ns = since_ns
        if until_ns <= self._settled_ns:
            return 0.0
        joules = self._drawn_joules(until_ns)
        self._settled_ns = until_ns
        self.request_joules += joules
        return joules

    def step(self, end_ns: int, joules: float) -> None:
        """A step that began at the last claim's end, and pays for itself, ends then."""
        self._settled_ns = end_ns
        self.request_joules += joules

    def idle_joules(self, time_ns: int) -> float:
        """Joules that were nobody's up to then, given that nothing ran since the last claim or step."""
        return self._idle_joules + (self._drawn_joules(time_ns) if time_ns > self._settled_ns else 0.0)

    def _drawn_joules(self, until_ns: int) -> float:
        gpu = self.gpu
        return gpu.energy_joules_at(gpu.uuid, until_ns) - gpu.energy_joules_at(gpu.uuid, self._settled_ns)
