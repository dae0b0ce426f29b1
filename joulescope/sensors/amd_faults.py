"""What AMD SMI's status codes mean to us, and what an operator can do about them.

Codes are those of ``amdsmi_status_t`` in AMD's header, the same since ROCm 6.0.
"""

from __future__ import annotations

from enum import IntEnum

from joulescope.errors import SensorError, SensorLost


class Code(IntEnum):
    """The status codes that are told apart here."""

    INVAL = 1
    NOT_SUPPORTED = 2
    NOT_YET_IMPLEMENTED = 3
    FAIL_LOAD_MODULE = 4
    FAIL_LOAD_SYMBOL = 5
    DRM_ERROR = 6
    NO_PERM = 10
    FILE_ERROR = 14
    INIT_ERROR = 18
    NOT_FOUND = 31
    NOT_INIT = 32
    DRIVER_NOT_LOADED = 34
    NO_DRV = 51
    AMDGPU_RESTART_ERR = 54


ABSENT = frozenset(
    {Code.INVAL, Code.NOT_SUPPORTED, Code.NOT_YET_IMPLEMENTED, Code.FAIL_LOAD_SYMBOL, Code.NO_PERM}
)
"""Answers to a probe that mean "this GPU or driver cannot do that"; others may pass by themselves."""

GONE = frozenset(
    {Code.NOT_FOUND, Code.NOT_INIT, Code.DRIVER_NOT_LOADED, Code.NO_DRV, Code.AMDGPU_RESTART_ERR}
)
"""Answers of a GPU that used to be read after which the same handle will not work again."""

_DEVICES = (
    "Let this user read /dev/kfd and /dev/dri/renderD* (groups render and video); give a container"
    " --device /dev/kfd --device /dev/dri --group-add with the number of the host's render group."
)
_DRIVER = "Load the kernel module (modprobe amdgpu) and check it with amd-smi list."

_MENDING: dict[int, tuple[type[SensorError], str]] = {
    Code.FAIL_LOAD_MODULE: (SensorError, "Install ROCm's amd-smi-lib completely, with libdrm."),
    Code.FAIL_LOAD_SYMBOL: (SensorError, "Libraries of different ROCm releases are mixed: install one."),
    Code.DRM_ERROR: (SensorError, _DEVICES),
    Code.NO_PERM: (SensorError, _DEVICES),
    Code.FILE_ERROR: (SensorError, _DEVICES),
    Code.INIT_ERROR: (SensorLost, f"{_DRIVER} {_DEVICES}"),
    Code.NOT_FOUND: (SensorLost, f"The GPU is gone, or the container lacks it. {_DEVICES}"),
    Code.DRIVER_NOT_LOADED: (SensorLost, _DRIVER),
    Code.NO_DRV: (SensorLost, _DRIVER),
    Code.AMDGPU_RESTART_ERR: (SensorLost, "The driver did not come back: see dmesg, or reboot."),
}

NO_LIBRARY = (
    "libamd_smi.so is not here, or not of the release that the Python package amdsmi needs ({detail}). "
    "Install ROCm's amd-smi-lib and set ROCM_PATH if it is not in /opt/rocm; in a container, use an image "
    "that has it. Without a GPU, try `joulescope demo`."
)


def code_of(error: Exception) -> int:
    """The status code of one of amdsmi's exceptions, 0 where it carries none."""
    code = getattr(error, "err_code", None)
    return code if isinstance(code, int) else 0


def meaning_of(error: Exception) -> str:
    """AMD's own word for an exception, in one line."""
    return str(getattr(error, "err_info", None) or " ".join(str(error).split()) or type(error).__name__)


def fault(doing: str, code: int, meaning: str) -> SensorError:
    """An error that names what failed, AMD SMI's word for it, and how to mend it."""
    kind, mending = _MENDING.get(code, (SensorLost, "It will be tried again; amd-smi may tell more."))
    return kind(f"{doing}: AMD SMI says {meaning!r} (code {code}). {mending}")
