"""Hidden laws: what a step costs on the made-up GPU under a recorded trace.

A law says what a step costs from the sums of its requests' features, so that any subset of them has a
cost. It has two parts. *Dynamic joules* follow from the features alone. *Static power* is drawn for as long
as the step really took when it was recorded; a subset of the requests is taken to need the part
``model(subset) / model(all)`` of that time, by the law's own model of durations. Whatever else made the
step long on that day is so spread over what the step was made of.

The figures are those of a model :data:`BYTES_SCALE` and :data:`FLOPS_SCALE` times as large as the tiny one
that a CPU can serve, with an H100's joules per byte and FLOP: its work then fits the times that the CPU took,
at 220 to 680 W, and fixed costs, KV cache, arithmetic and sequences are each a material part. The models of
durations are those that robust least squares find in the recorded steps: 5.3 ms a step, 0.1 ms a request,
74 µs a computed token, 0.18 µs for each position that it attends to, 0.8 µs a token of KV cache. They explain
a step to 15 %, in the median.
"""

from __future__ import annotations

import numpy as np

from joulescope.simulation.physics import Cost, Floats, Law

BYTES_SCALE, FLOPS_SCALE = 450.0, 6000.0

STATIC_WATTS = 165.0
JOULES_PER_BYTE, JOULES_PER_FLOP = 0.139e-9, 0.52e-12

WEIGHT_JOULES = 7_186_944 * BYTES_SCALE * JOULES_PER_BYTE
KV_JOULES = 6_144 * BYTES_SCALE * JOULES_PER_BYTE
TOKEN_JOULES = 7_077_888 * FLOPS_SCALE * JOULES_PER_FLOP
POSITION_JOULES = 12_288 * FLOPS_SCALE * JOULES_PER_FLOP
"""0.45 J to read the weights, 0.38 mJ for a token of KV cache; 22 mJ of linear layers for each token, 38 µJ
of attention for each position that it attends to."""

SEQUENCE_JOULES = 0.07

LAUNCH_SECONDS, READ_SECONDS, SEQUENCE_SECONDS = 4.35e-3, 0.94e-3, 0.1e-3
TOKEN_SECONDS, POSITION_SECONDS, KV_SECONDS = 74e-6, 0.18e-6, 0.8e-6


class HiddenLaw(Law):
    """Base of the laws. Rows of ``sums`` are :data:`joulescope.simulation.physics.FEATURES`."""

    def dynamic_joules(self, sums: Floats) -> Floats:
        """Beyond static power; without any request it is what a step costs once."""
        raise NotImplementedError

    def model_seconds(self, sums: Floats) -> Floats:
        """Above zero also for no requests."""
        raise NotImplementedError

    def cost(self, sums: Floats) -> Cost:
        seconds = self.model_seconds(sums)
        return Cost(seconds=seconds[None], joules=(self.dynamic_joules(sums) + STATIC_WATTS * seconds)[None])


class Familiar(HiddenLaw):
    """The control: of the very form that attribution fits. What is wrong here is not the form."""

    def dynamic_joules(self, sums: Floats) -> Floats:
        requests, tokens, positions, kv_tokens, _, _ = sums
        own = TOKEN_JOULES * tokens + POSITION_JOULES * positions + KV_JOULES * kv_tokens
        return np.asarray(WEIGHT_JOULES + own + SEQUENCE_JOULES * requests)

    def model_seconds(self, sums: Floats) -> Floats:
        requests, tokens, positions, kv_tokens, _, _ = sums
        linear = np.maximum(READ_SECONDS, TOKEN_SECONDS * tokens)
        attention = TOKEN_SECONDS * (12_288 / 7_077_888) * positions  # as many FLOPs a second as elsewhere
        return np.asarray(
            LAUNCH_SECONDS + linear + SEQUENCE_SECONDS * requests + KV_SECONDS * kv_tokens + attention
        )


class Saturating(HiddenLaw):
    """Everything smooth: reading blends into computing, sequences cost less the more there are, small steps
    waste arithmetic, and power that nears the cap makes each operation cheaper, as lower clocks do."""

    def dynamic_joules(self, sums: Floats) -> Floats:
        requests, tokens, positions, kv_tokens, _, _ = sums
        filled = (tokens**4 + 16.0**4) ** 0.25  # tiles of the matrix units are computed whole
        own = TOKEN_JOULES * filled + POSITION_JOULES * positions + KV_JOULES * kv_tokens
        joules = WEIGHT_JOULES + own + 2 * SEQUENCE_JOULES * requests**0.8
        load = (joules / self.model_seconds(sums) / 400.0) ** 2
        return np.asarray(joules * (1.0 - 0.12 * load / (1.0 + load)))

    def model_seconds(self, sums: Floats) -> Floats:
        requests, tokens, positions, kv_tokens, _, _ = sums
        linear = (READ_SECONDS**3 + (TOKEN_SECONDS * tokens) ** 3) ** (1.0 / 3.0)
        own = 4 * SEQUENCE_SECONDS * requests**0.5 + KV_SECONDS * kv_tokens + POSITION_SECONDS * positions
        return np.asarray(LAUNCH_SECONDS + linear + own)


class Captured(Familiar):
    """Dense, but sequences are padded to the batch sizes that CUDA graphs were captured for, the runtime pays
    for every token that comes out, and attention computes slower than the linear layers."""

    SIZES = np.array([0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0])

    def dynamic_joules(self, sums: Floats) -> Floats:
        return np.asarray(super().dynamic_joules(self._padded(sums)) + 0.4 * SEQUENCE_JOULES * sums[5])

    def model_seconds(self, sums: Floats) -> Floats:
        slower = POSITION_SECONDS - TOKEN_SECONDS * (12_288 / 7_077_888)
        return np.asarray(super().model_seconds(self._padded(sums)) + slower * sums[2])

    def _padded(self, sums: Floats) -> Floats:
        """With the next captured size; a subset's sum may be a rounding error off a whole number."""
        sizes = self.SIZES[np.searchsorted(self.SIZES, sums[:1] - 1e-6)]
        return np.concatenate([sizes, sums[1:]])


class Uneven(Captured):
    """Captured sizes, and two prices where attribution knows one: a byte of KV cache costs half as much as
    one of weights, and a FLOP of attention a third of one of the linear layers."""

    def dynamic_joules(self, sums: Floats) -> Floats:
        _, _, positions, kv_tokens, _, _ = sums
        cheaper = 2.0 / 3.0 * POSITION_JOULES * positions + 0.5 * KV_JOULES * kv_tokens
        return np.asarray(super().dynamic_joules(sums) - cheaper)


class Observed(Law):
    """A law for one step that took a given time: its model of durations only divides that time."""

    def __init__(self, law: HiddenLaw, whole: Floats, duration_seconds: float) -> None:
        self._law = law
        self._stretch = duration_seconds / float(law.model_seconds(whole))

    def cost(self, sums: Floats) -> Cost:
        seconds = self._law.model_seconds(sums) * self._stretch
        joules = self._law.dynamic_joules(sums) + STATIC_WATTS * seconds
        return Cost(seconds=seconds[None], joules=joules[None])


LAWS = {"saturating": Saturating(), "captured": Captured(), "uneven": Uneven(), "familiar": Familiar()}
"""By name; ``familiar`` is the control."""
