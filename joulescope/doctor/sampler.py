"""Check in vLLM's container: could a sampler read its GPUs there, for a sidecar that sees none?"""

from __future__ import annotations

from collections.abc import Iterator

from joulescope.doctor.engine import vllm_version
from joulescope.doctor.findings import Finding, Severity
from joulescope.doctor.place import Place
from joulescope.errors import MissingExtra, SensorError
from joulescope.hook.environment import sampler_choice
from joulescope.sensors.nvml import NvmlSensor
from joulescope.sensors.nvml_binding import load


def check_sampler(place: Place) -> Iterator[Finding]:
    """Says nothing where vLLM is not installed: samplers run beside engines only."""
    if vllm_version() is None:
        return
    choice = sampler_choice(place.environ)
    if choice is None:
        yield _finding(
            Severity.WARNING,
            f"JOULESCOPE_SAMPLER={place.environ['JOULESCOPE_SAMPLER']} is taken for off",
            "export JOULESCOPE_SAMPLER=auto (or on, or off)",
        )
    elif choice == "off":
        yield _finding(
            Severity.NOTE,
            "JOULESCOPE_SAMPLER=off: a sidecar that does not see this engine's GPUs measures no joules",
        )
    else:
        yield _tried(place)


def _tried(place: Place) -> Finding:
    try:
        binding = load().__file__
        sensor = NvmlSensor.open(place.clock)
    except (MissingExtra, SensorError) as error:
        return _finding(
            Severity.NOTE,
            f"only a sidecar that sees the GPUs itself can measure them, no sampler could from here: {error}",
        )
    count = len(sensor.gpus())
    sensor.close()
    gpus = "the GPU" if count == 1 else f"the {count} GPUs"
    return _finding(
        Severity.OK, f"a sampler could read {gpus} from here, for a sidecar that sees none (by {binding})"
    )


def _finding(severity: Severity, said: str, mend: str = "") -> Finding:
    return Finding("sampler", severity, said, mend)
