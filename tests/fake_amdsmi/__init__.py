"""A stand-in for ROCm's library, for the real Python package ``amdsmi`` to load.

:func:`build` makes a folder that ``ROCM_PATH`` can name, with ``libamd_smi.so`` and ``librocm-core.so``
compiled from ``amdsmi.c``; :class:`FakeRocm` owns the file that holds the state of its GPUs, which a test
may change at any time. Written against amdsmi 7.0.2 from PyPI. ::

    rocm = FakeRocm(tmp_path / "state", [FakeGpu(serial="0xA", power_watts=300)])
    rocm.run(0.05)          # 50 ms go by: every counter rises by its GPU's power
    rocm.gpus[0].current_w = 65535
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from joulescope.clock import ManualClock
from tests.requirements import need_package, need_program

MAX_GPUS = 16
FUNCTIONS = (
    "bdf",
    "asic",
    "kfd",
    "driver",
    "energy",
    "power",
    "cap",
    "memory_total",
    "memory_used",
    "activity",
)
"""The calls that can be given a status code and whose use is counted."""

SUCCESS = 0
NOT_SUPPORTED = 2
NO_PERM = 10
FILE_ERROR = 14
BUSY = 30
NOT_FOUND = 31
DRIVER_NOT_LOADED = 34
UNEXPECTED_DATA = 43

NOT_AVAILABLE_16 = 0xFFFF
NOT_AVAILABLE_32 = 0xFFFFFFFF

_MAGIC = 0x49534D41
_TEXT = 64
_UNIT_JOULES = 2.0**-16


class Gpu(ctypes.Structure):
    """``gpu_t`` of amdsmi.c; its fields may be set to anything, nonsense included."""

    _fields_ = (
        ("serial", ctypes.c_char * _TEXT),
        ("name", ctypes.c_char * _TEXT),
        ("bdf", ctypes.c_uint64),
        ("energy", ctypes.c_uint64),
        ("cap_uw", ctypes.c_uint64),
        ("memory_total", ctypes.c_uint64),
        ("memory_used", ctypes.c_uint64),
        ("socket", ctypes.c_uint32),
        ("partition", ctypes.c_uint32),
        ("current_w", ctypes.c_uint32),
        ("average_w", ctypes.c_uint32),
        ("busy_percent", ctypes.c_uint32),
        ("resolution", ctypes.c_float),
        ("codes", ctypes.c_int32 * len(FUNCTIONS)),
        ("calls", ctypes.c_uint64 * len(FUNCTIONS)),
    )


class _State(ctypes.Structure):
    """``state_t`` of amdsmi.c."""

    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("gpu_count", ctypes.c_uint32),
        ("init_code", ctypes.c_int32),
        ("list_code", ctypes.c_int32),
        ("inits", ctypes.c_uint64),
        ("shutdowns", ctypes.c_uint64),
        ("library_major", ctypes.c_uint32),
        ("library_minor", ctypes.c_uint32),
        ("rocm_major", ctypes.c_uint32),
        ("rocm_minor", ctypes.c_uint32),
        ("driver", ctypes.c_char * _TEXT),
        ("gpus", Gpu * MAX_GPUS),
    )


@dataclass(frozen=True)
class FakeGpu:
    """How a processor starts out: a whole GPU, a die, or a partition."""

    serial: str = "0x9D4BA6E1B2C3D4E5"
    name: str = "AMD Instinct MI300X"
    bus: int = 0x0C
    function: int = 0
    socket: int = 0
    partition: int = 0
    power_watts: int = 300
    energy_joules: float = 5_000.0
    counter_gain: float = 1.0
    """Joules that the counter shows for each that is drawn; 0 for one that stands still."""
    meter: bool = True
    """Whether it shows its socket's energy and power; later partitions and second dies do not."""


class FakeRocm:
    """The state of a machine's AMD driver and GPUs, in a file that the library maps."""

    def __init__(self, path: Path, gpus: Sequence[FakeGpu], *, library: int = 26, rocm: int = 7) -> None:
        self.path = path
        path.write_bytes(bytes(ctypes.sizeof(_State)))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), ctypes.sizeof(_State))
        self.state = _State.from_buffer(self._map)
        self.state.magic, self.state.gpu_count = _MAGIC, len(gpus)
        self.state.library_major, self.state.rocm_major = library, rocm
        self.state.driver = b"6.14.14"
        self.gpus: list[Gpu] = [self.state.gpus[place] for place in range(len(gpus))]
        self.watts = [float(gpu.power_watts) for gpu in gpus]
        """What is truly drawn, whatever is shown."""
        self.drawn_joules = [0.0] * len(gpus)
        self._gains = [gpu.counter_gain if gpu.meter else 0.0 for gpu in gpus]
        for state, gpu in zip(self.gpus, gpus, strict=True):
            _begin(state, gpu)
        self._owed = [0.0] * len(gpus)

    def run(self, seconds: float) -> None:
        """Time goes by: every counter rises by what its GPU draws, in whole counter units."""
        for place, watts in enumerate(self.watts):
            self.drawn_joules[place] += watts * seconds
            self._owed[place] += self._gains[place] * watts * seconds / _UNIT_JOULES
            whole = int(self._owed[place])
            self.gpus[place].energy = (self.gpus[place].energy + whole) % 2**64
            self._owed[place] -= whole

    def set_power(self, place: int, watts: int) -> None:
        """From now on the GPU draws and shows this."""
        self.watts[place] = float(watts)
        self.gpus[place].current_w = watts

    def set_code(self, place: int, function: str, code: int) -> None:
        """From now on ``function`` (one of FUNCTIONS) answers this status for that GPU."""
        self.gpus[place].codes[FUNCTIONS.index(function)] = code

    def lose(self, place: int, code: int = NOT_FOUND) -> None:
        """Every call for that GPU fails; code 0 brings it back."""
        for function in FUNCTIONS:
            self.set_code(place, function, code)

    def calls(self, place: int, function: str) -> int:
        """How often the library was asked."""
        return int(self.gpus[place].calls[FUNCTIONS.index(function)])

    def open_users(self) -> int:
        """Successful amdsmi_init calls less amdsmi_shut_down calls."""
        return int(self.state.inits - self.state.shutdowns)


class RunningClock(ManualClock):
    """A clock of the test's own; whenever it is advanced, or slept by, the GPUs draw power meanwhile."""

    rocm: FakeRocm | None = None
    during: Callable[[], object] | None = None
    """Called whenever time went by."""

    def advance(self, duration_seconds: float) -> None:
        super().advance(duration_seconds)
        if self.rocm is not None:
            self.rocm.run(duration_seconds)
        if self.during is not None:
            self.during()


def _begin(state: Gpu, gpu: FakeGpu) -> None:
    state.serial, state.name = gpu.serial.encode(), gpu.name.encode()
    state.bdf = gpu.bus << 8 | gpu.function
    state.socket, state.partition = gpu.socket, gpu.partition
    state.average_w = NOT_AVAILABLE_16
    state.current_w = gpu.power_watts if gpu.meter else 0
    state.energy = round(gpu.energy_joules / _UNIT_JOULES) if gpu.meter else 0
    state.resolution = 15.3
    state.cap_uw = 750_000_000
    state.memory_total, state.memory_used, state.busy_percent = 192 * 1024**3, 7 * 1024**3, 37


def build(directory: Path) -> Path:
    """Compiles the libraries into ``directory/lib`` and gives ``directory``; a second call finds them there.

    Without gcc or the package the running test is skipped by name, and fails where ``CI=true``.
    """
    library = directory / "lib" / "libamd_smi.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        stubs = directory / "stubs.c"
        stubs.write_text(
            "".join(f"__attribute__((weak)) int {name}(void) {{ return 2; }}\n" for name in _symbols())
        )
        command = [need_program("gcc"), "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library]
        subprocess.run([*command, Path(__file__).with_name("amdsmi.c"), stubs], check=True)
        (library.parent / "librocm-core.so").symlink_to(library.name)
    return directory


def _symbols() -> set[str]:
    """Every function that the installed package binds when it is imported."""
    need_package("amdsmi")
    spec = importlib.util.find_spec("amdsmi")
    assert spec is not None
    wrapper = Path(str(spec.origin)).with_name("amdsmi_wrapper.py").read_text()
    return set(re.findall(r"_libraries\['libamd_smi\.so'\]\.(\w+)", wrapper))


def environment(
    rocm_path: Path | None, rocm: FakeRocm | None, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Environment of a process that finds this library (``None``: none) and this state."""
    variables = dict(os.environ if base is None else base)
    for name in ("ROCM_HOME", "ROCM_PATH", "FAKE_AMDSMI_STATE"):
        variables.pop(name, None)
    if rocm_path is not None:
        variables["ROCM_PATH"] = str(rocm_path)
    if rocm is not None:
        variables["FAKE_AMDSMI_STATE"] = str(rocm.path)
    return variables


def run_python(code: str, rocm_path: Path | None, rocm: FakeRocm | None) -> str:
    """Runs Python code in a fresh process that loads the library; gives what it printed."""
    command = [sys.executable, "-c", code]
    variables = environment(rocm_path, rocm)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
