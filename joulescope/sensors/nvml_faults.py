"""What NVML's return codes mean to us, and what an operator can do about them.

Codes are those of ``nvmlReturn_t`` in NVIDIA's header; they are part of its binary interface.
"""

from __future__ import annotations

from enum import IntEnum

from joulescope.errors import SensorError, SensorLost


class Code(IntEnum):
    """The return codes that are told apart here."""

    UNINITIALIZED = 1
    INVALID_ARGUMENT = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    DRIVER_NOT_LOADED = 9
    LIBRARY_NOT_FOUND = 12
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    OPERATING_SYSTEM = 17
    LIB_RM_VERSION_MISMATCH = 18
    ARGUMENT_VERSION_MISMATCH = 25
    DEPRECATED = 26
    GPU_NOT_FOUND = 28
    UNKNOWN = 999


ABSENT = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_SUPPORTED,
        Code.NO_PERMISSION,
        Code.FUNCTION_NOT_FOUND,
        Code.ARGUMENT_VERSION_MISMATCH,
        Code.DEPRECATED,
    }
)
"""Answers to a probe that mean "this GPU or driver cannot do that"; others may pass by themselves."""

GONE = frozenset(
    {
        Code.UNINITIALIZED,
        Code.NOT_FOUND,
        Code.DRIVER_NOT_LOADED,
        Code.GPU_IS_LOST,
        Code.RESET_REQUIRED,
        Code.LIB_RM_VERSION_MISMATCH,
        Code.GPU_NOT_FOUND,
    }
)
"""Answers of a GPU that used to be read after which the same handle will not work again."""

NONSENSE = -1
"""No code of NVML's: a call succeeded with a value that cannot be true."""

_GPU_RESET = "Reset the GPU (nvidia-smi --gpu-reset) or the machine."

_MENDING: dict[int, tuple[type[SensorError], str]] = {
    Code.LIBRARY_NOT_FOUND: (
        SensorError,
        "libnvidia-ml.so.1 is not here. Install the NVIDIA driver; in a container, start it with the NVIDIA"
        " runtime and NVIDIA_DRIVER_CAPABILITIES=utility. Without a GPU, try `joulescope demo`.",
    ),
    Code.DRIVER_NOT_LOADED: (
        SensorLost,
        "Load the kernel module (modprobe nvidia) and check it with nvidia-smi.",
    ),
    Code.NO_PERMISSION: (
        SensorError,
        "Let this user read and write /dev/nvidiactl and /dev/nvidia*, or give the container its devices.",
    ),
    Code.OPERATING_SYSTEM: (
        SensorError,
        "The kernel or the container's device rules deny access to /dev/nvidia*; allow it.",
    ),
    Code.LIB_RM_VERSION_MISMATCH: (
        SensorLost,
        "The driver was upgraded under this process. Reboot, or reload the kernel module; then restart the"
        " container so that it gets the new library.",
    ),
    Code.FUNCTION_NOT_FOUND: (
        SensorError,
        "The installed driver is older than this call: install a current one.",
    ),
    Code.UNKNOWN: (
        SensorLost,
        "In a container this follows a `systemctl daemon-reload` on the host, which takes the devices away:"
        " restart the container. Else look for Xid errors in the kernel's log.",
    ),
    Code.UNINITIALIZED: (
        SensorLost,
        "The driver was unloaded or loaded anew under this process, which will start it again.",
    ),
    Code.GPU_IS_LOST: (SensorLost, f"The GPU fell off the bus. {_GPU_RESET}"),
    Code.RESET_REQUIRED: (SensorLost, _GPU_RESET),
}


def fault(doing: str, code: int, meaning: str) -> SensorError:
    """An error that names what failed, NVML's word for it, and how to mend it."""
    kind, mending = _MENDING.get(code, (SensorLost, "It will be tried again; nvidia-smi may tell more."))
    return kind(f"{doing}: {said(code, meaning)}. {mending}")


def said(code: int, meaning: str) -> str:
    """NVML's word for a failure; of :data:`NONSENSE`, ours for what it told instead."""
    return f"NVML tells {meaning}" if code == NONSENSE else f"NVML says {meaning!r} (code {code})"
