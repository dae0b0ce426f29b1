"""A stand-in for NVIDIA's driver library, for the real ``pynvml`` to load.

:func:`build` compiles ``libnvidia-ml.so.1`` from ``nvml.c``; :class:`FakeDriver` owns the file that holds
the state of its GPUs and may be changed while any number of processes read it. ::

    driver = FakeDriver(tmp_path / "state", [FakeGpu(uuid="GPU-a", live=True, power_watts=300.0)])
    process = subprocess.Popen([...], env=environment(build(tmp_path), driver))
    driver.set_power("GPU-a", 500.0)
    driver.freeze()
    total_mj = driver.counter_mj("GPU-a")

A *live* counter runs by CLOCK_MONOTONIC in ticks, at ``origin + k·tick``. With ``seen`` the last tick at
or before now it shows, in millijoules rounded down::

    held                                                  if seen < base
    (base_uj + drawn_mW · (seen − base)_ns // 10**6) // 1000    otherwise

where ``held`` is what it showed when the power was last set, at ``base``. A counter that is not live
shows ``held``.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.requirements import need_program

MAX_GPUS = 16
FUNCTIONS = (
    "handle",
    "uuid",
    "name",
    "energy",
    "power",
    "power_limit",
    "memory",
    "utilization",
    "mig_parent",
)
"""The calls that can be given a return code and whose use is counted."""

SUCCESS = 0
UNINITIALIZED = 1
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
TIMEOUT = 10
GPU_IS_LOST = 15
LIBRARY_MISMATCH = 18
UNKNOWN = 999

_MAGIC = 0x4C4D564E
_TEXT = 96


class _Gpu(ctypes.Structure):
    """``gpu_t`` of nvml.c."""

    _fields_ = (
        ("uuid", ctypes.c_char * _TEXT),
        ("name", ctypes.c_char * _TEXT),
        ("mig_uuid", ctypes.c_char * _TEXT),
        ("base_uj", ctypes.c_uint64),
        ("base_ns", ctypes.c_uint64),
        ("origin_ns", ctypes.c_uint64),
        ("tick_ns", ctypes.c_uint64),
        ("held_mj", ctypes.c_uint64),
        ("memory_total", ctypes.c_uint64),
        ("memory_used", ctypes.c_uint64),
        ("power_mw", ctypes.c_uint32),
        ("drawn_mw", ctypes.c_uint32),
        ("power_limit_mw", ctypes.c_uint32),
        ("utilization_gpu", ctypes.c_uint32),
        ("utilization_memory", ctypes.c_uint32),
        ("live", ctypes.c_uint32),
        ("codes", ctypes.c_int32 * len(FUNCTIONS)),
        ("generation", ctypes.c_uint32),
        ("calls", ctypes.c_uint64 * len(FUNCTIONS)),
    )


class _State(ctypes.Structure):
    """``state_t`` of nvml.c."""

    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("gpu_count", ctypes.c_uint32),
        ("sequence", ctypes.c_uint64),
        ("init_code", ctypes.c_int32),
        ("count_code", ctypes.c_int32),
        ("inits", ctypes.c_uint64),
        ("shutdowns", ctypes.c_uint64),
        ("driver", ctypes.c_char * _TEXT),
        ("gpus", _Gpu * MAX_GPUS),
    )


@dataclass(frozen=True)
class FakeGpu:
    """How a GPU starts out."""

    uuid: str = "GPU-11111111-2222-3333-4444-555555555555"
    name: str = "NVIDIA H100 80GB HBM3"
    mig_uuid: str = ""
    energy_mj: int = 5_000_000
    power_watts: float = 100.0
    power_limit_watts: float = 700.0
    memory_total_bytes: int = 80 * 1024**3
    memory_used_bytes: int = 0
    utilization_percent: int = 0
    live: bool = False
    """Whether the counter runs by the clock."""
    tick_seconds: float = 0.1


class FakeDriver:
    """The state of a driver and its GPUs, in a file that the library maps."""

    def __init__(self, path: Path, gpus: Sequence[FakeGpu], *, driver_version: str = "550.54.15") -> None:
        self.path = path
        path.write_bytes(bytes(ctypes.sizeof(_State)))
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), ctypes.sizeof(_State))
        self._state = _State.from_buffer(self._map)
        self._state.magic = _MAGIC
        self._state.driver = driver_version.encode()
        self._places: dict[str, int] = {}
        for gpu in gpus:
            self.add(gpu)

    def add(self, gpu: FakeGpu) -> None:
        """Plugs in one more GPU."""
        place = len(self._places)
        self._places[gpu.uuid] = place
        entry = self._state.gpus[place]
        with self._writing():
            now_ns = time.monotonic_ns()
            entry.uuid, entry.name, entry.mig_uuid = (
                text.encode() for text in (gpu.uuid, gpu.name, gpu.mig_uuid)
            )
            entry.origin_ns = entry.base_ns = now_ns
            entry.tick_ns = round(gpu.tick_seconds * 1e9)
            entry.held_mj, entry.base_uj = gpu.energy_mj, gpu.energy_mj * 1000
            entry.power_mw = entry.drawn_mw = round(gpu.power_watts * 1000)
            entry.power_limit_mw = round(gpu.power_limit_watts * 1000)
            entry.memory_total, entry.memory_used = gpu.memory_total_bytes, gpu.memory_used_bytes
            entry.utilization_gpu = gpu.utilization_percent
            entry.live = gpu.live
            self._state.gpu_count = place + 1

    def close(self) -> None:
        """Lets go of the file; processes that mapped it read on."""
        del self._state
        self._map.close()
        self._file.close()

    # ------------------------------------------------------------------------------- the counter

    def counter_mj(self, uuid: str, now_ns: int | None = None) -> int:
        """What the library tells at ``now_ns`` (default: now) as long as the state stays as it is."""
        entry = self._entry(uuid)
        now_ns = time.monotonic_ns() if now_ns is None else now_ns
        if not entry.live or now_ns < entry.origin_ns:
            return int(entry.held_mj)
        seen_ns = now_ns - (now_ns - entry.origin_ns) % entry.tick_ns
        if seen_ns < entry.base_ns:
            return int(entry.held_mj)
        return int(entry.base_uj + entry.drawn_mw * (seen_ns - entry.base_ns) // 10**6) // 1000

    def set_power(self, uuid: str, power_watts: float) -> None:
        """From now on the GPU draws this; its counter goes on from where it is."""
        entry = self._entry(uuid)
        with self._writing():
            now_ns = time.monotonic_ns()
            held_mj = self.counter_mj(uuid, now_ns)
            if entry.live:
                entry.base_uj += entry.drawn_mw * (now_ns - entry.base_ns) // 10**6
            entry.base_ns, entry.held_mj = now_ns, held_mj
            entry.power_mw = entry.drawn_mw = round(power_watts * 1000)

    def freeze(self, uuid: str | None = None) -> None:
        """Stops the counter (by default of every GPU) at what it shows."""
        for name in self._named(uuid):
            entry = self._entry(name)
            with self._writing():
                entry.held_mj = self.counter_mj(name)
                entry.live = 0

    def resume(self, uuid: str | None = None) -> None:
        """Lets the counter run on from what it shows."""
        for name in self._named(uuid):
            entry = self._entry(name)
            if not entry.live:
                with self._writing():
                    entry.base_ns, entry.base_uj = time.monotonic_ns(), entry.held_mj * 1000
                    entry.live = 1

    def set_counter(self, uuid: str, energy_mj: int) -> None:
        """Puts the counter to a value, at once: a reset, a jump, or what a frozen one shows next."""
        entry = self._entry(uuid)
        with self._writing():
            entry.base_ns, entry.base_uj = time.monotonic_ns(), energy_mj * 1000
            entry.held_mj = energy_mj

    # -------------------------------------------------------------------------- everything else

    def set_code(self, uuid: str, function: str, code: int) -> None:
        """From now on ``function`` (one of FUNCTIONS) answers this nvmlReturn_t for that GPU."""
        with self._writing():
            self._entry(uuid).codes[FUNCTIONS.index(function)] = code

    def lose(self, uuid: str, code: int = GPU_IS_LOST) -> None:
        """Every call for that GPU fails, as when it falls off the bus; code 0 brings it back."""
        for function in FUNCTIONS:
            self.set_code(uuid, function, code)

    def reattach(self, uuid: str) -> None:
        """Every handle to that GPU that was given out is dead; new ones work."""
        with self._writing():
            self._entry(uuid).generation += 1

    def set_init_code(self, code: int) -> None:
        """What nvmlInit answers."""
        self._state.init_code = code

    def set_raw(self, uuid: str, /, **fields: int | bytes) -> None:
        """Writes fields of ``gpu_t`` as they are, nonsense included."""
        with self._writing():
            for field, value in fields.items():
                setattr(self._entry(uuid), field, value)

    def calls(self, uuid: str, function: str) -> int:
        """How often the library was asked."""
        return int(self._entry(uuid).calls[FUNCTIONS.index(function)])

    def open_users(self) -> int:
        """Successful nvmlInit calls less nvmlShutdown calls, over all processes."""
        return int(self._state.inits - self._state.shutdowns)

    def _entry(self, uuid: str) -> _Gpu:
        entry: _Gpu = self._state.gpus[self._places[uuid]]
        return entry

    def _named(self, uuid: str | None) -> list[str]:
        return list(self._places) if uuid is None else [uuid]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Readers wait, or take the whole of what is written here, never half."""
        self._state.sequence += 1
        try:
            yield
        finally:
            self._state.sequence += 1


def build(directory: Path, *, without_energy: bool = False) -> Path:
    """Compiles the library into ``directory`` and gives its path; a second call finds it there.

    Without gcc the running test is skipped by name with the reason, and fails where ``CI=true``.
    """
    library = directory / ("old" if without_energy else "current") / "libnvidia-ml.so.1"
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("nvml.c")
    flags = ["-DWITHOUT_ENERGY"] if without_energy else []
    command = [need_program("gcc"), "-O2", "-Wall", "-Werror", "-shared", "-fPIC", *flags]
    subprocess.run([*command, "-Wl,-soname,libnvidia-ml.so.1", "-o", library, source], check=True)
    return library


def environment(
    library: Path | None, driver: FakeDriver | None, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Environment of a process that finds this library (``None``: no library) and this state."""
    variables = dict(os.environ if base is None else base)
    for name in ("LD_LIBRARY_PATH", "FAKE_NVML_STATE"):
        variables.pop(name, None)
    if library is not None:
        variables["LD_LIBRARY_PATH"] = str(library.parent)
    if driver is not None:
        variables["FAKE_NVML_STATE"] = str(driver.path)
    return variables


def run_python(code: str, library: Path | None, driver: FakeDriver | None) -> str:
    """Runs Python code in a fresh process that loads the library; gives what it printed."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment(library, driver), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def load_here(library: Path) -> None:
    """Loads the library into this process, so that pynvml finds it here too.

    The loader matches ``libnvidia-ml.so.1`` by the soname of what is already loaded. Without
    ``FAKE_NVML_STATE`` the library says that it is not there, so other tests see no difference.
    """
    ctypes.CDLL(str(library))
