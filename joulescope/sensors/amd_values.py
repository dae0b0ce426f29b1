"""What AMD's answers mean: their units, and the many ways in which they say "not known".

``amdsmi`` gives ``"N/A"``, 0, 65535 or 2**32 − 1 in place of a number, by function, part and release.
Whatever cannot be a measured amount is ``None`` here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

MICRO = 1_000_000
"""Microjoules in a joule and microwatts in a watt."""

MAX_WATTS = 20_000.0
"""What no socket can draw; the driver's "not known" is 65535 or 2**32 − 1."""

MAX_JOULES = 2.0**43
"""Counters from here on are nonsense: 279 years at 1 kW."""

COUNTER_UNIT_JOULES = 2.0**-16
"""What the accumulator counts (the kernel's ``kgd_pp_interface.h``: "15.259uJ (2^-16) units")."""

ROUNDED_UNIT_MICROJOULES = 15.3
"""The same unit as the library tells it (``counter_resolution``), rounded, and so 0.27 % too large."""

_SERIAL = re.compile(r"(?:0x|GPU-)?([0-9a-f]{1,16})", re.IGNORECASE)


def number(value: object) -> float | None:
    """A finite number, or ``None`` for a text such as ``"N/A"``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def power_watts(answer: Mapping[str, object]) -> float | None:
    """Socket power from ``amdsmi_get_power_info``, watts; ``None`` if none of its fields can be true.

    ``current_socket_power`` is told by MI300 and later, ``average_socket_power`` by parts before it.
    ``socket_power`` is left alone: it came with 6.4 in microwatts and turned to watts in 7.0. 0 W is no
    reading: it is what second dies, partitions but the first, and sleeping drivers show.
    """
    for field in ("current_socket_power", "average_socket_power"):
        watts = number(answer.get(field))
        if watts is not None and 0 < watts < MAX_WATTS:
            return watts
    return None


def energy_joules(answer: Mapping[str, object]) -> float | None:
    """The counter from ``amdsmi_get_energy_count``, joules since the driver was loaded.

    ``None`` for 0, which GPUs without a counter show, for what no counter can reach, and before 6.2,
    whose field had another name.
    """
    count, resolution = number(answer.get("energy_accumulator")), number(answer.get("counter_resolution"))
    if count is None or resolution is None or count <= 0 or resolution <= 0:
        return None
    rounded = math.isclose(resolution, ROUNDED_UNIT_MICROJOULES, rel_tol=1e-4)
    joules = count * (COUNTER_UNIT_JOULES if rounded else resolution / MICRO)
    return joules if joules < MAX_JOULES else None


def cap_watts(answer: Mapping[str, object]) -> float | None:
    """The power limit from ``amdsmi_get_power_cap_info``, which tells it in microwatts."""
    microwatts = number(answer.get("power_cap"))
    return microwatts / MICRO if microwatts is not None and 1 <= microwatts / MICRO < MAX_WATTS else None


def busy_ratio(answer: Mapping[str, object]) -> float | None:
    """How busy the compute engines are, 0..1, from ``amdsmi_get_gpu_activity``."""
    percent = number(answer.get("gfx_activity"))
    return percent / 100 if percent is not None and 0 <= percent <= 100 else None


def uuid(serial: object) -> str:
    """The GPU as ROCm's runtime and ``rocminfo`` name it, ``GPU-`` and 16 hexadecimal digits.

    Made from the serial of ``amdsmi_get_gpu_asic_info``: the kernel's ``unique_id``, from which the
    runtime makes its UUID too (``HSA_AMD_AGENT_INFO_UUID``). ``amdsmi_get_gpu_device_uuid`` is another
    number, which nobody else tells. Empty if there is no serial, as on parts that have none.
    """
    match = _SERIAL.fullmatch(serial) if isinstance(serial, str) else None
    value = int(match[1], 16) if match else 0
    return f"GPU-{value:016x}" if value not in (0, 2**64 - 1) else ""
