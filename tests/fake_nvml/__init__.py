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

where ``held`` is what it showed when the power was last set, at ``base``; a wave or a ramp
(:meth:`FakeDriver.set_wave`) comes to what is drawn. A counter that is not live shows ``held``. Power is told
as the mean of a window before its last refresh, as :data:`PARTS` says of each part, or where there is no
window as it was set. The time is CLOCK_MONOTONIC, or what :meth:`FakeDriver.set_clock` says.
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

from joulescope.clock import ManualClock
from tests.requirements import need_program

MAX_GPUS = 16
MAX_INSTANCES = 7
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
    "fields",
    "samples",
    "clock",
    "reasons",
    "temperature",
    "gpm",
    "architecture",
    "persistence",
    "virtualization",
    "mig_mode",
    "mig_gpm",
    "mig_size",
    "mig_list",
)
"""The calls that can be given a return code and whose use is counted."""

GPM = (
    "graphics",
    "sm",
    "occupancy",
    "tensor",
    "dram",
    "pcie_tx",
    "pcie_rx",
    "nvlink_rx",
    "nvlink_tx",
)
"""Metrics of GPM in the order of ``gpu_t.gpm``: percent, and MiB a second."""

SUCCESS = 0
UNINITIALIZED = 1
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
TIMEOUT = 10
GPU_IS_LOST = 15
FUNCTION_NOT_FOUND = 13
LIBRARY_MISMATCH = 18
UNKNOWN = 999

_MAGIC = 0x4C4D564E
_TEXT = 96


class _Instance(ctypes.Structure):
    """``instance_t`` of nvml.c."""

    _fields_ = (
        ("uuid", ctypes.c_char * _TEXT),
        ("gpm", ctypes.c_double * len(GPM)),
        ("memory_mib", ctypes.c_uint64),
        ("gpu_instance", ctypes.c_uint32),
        ("compute_instance", ctypes.c_uint32),
        ("slices", ctypes.c_uint32),
        ("compute_slices", ctypes.c_uint32),
        ("serial", ctypes.c_uint32),
        ("gpm_code", ctypes.c_int32),
    )


class _Gpu(ctypes.Structure):
    """``gpu_t`` of nvml.c."""

    _fields_ = (
        ("uuid", ctypes.c_char * _TEXT),
        ("name", ctypes.c_char * _TEXT),
        ("instances", _Instance * MAX_INSTANCES),
        ("base_uj", ctypes.c_uint64),
        ("base_ns", ctypes.c_uint64),
        ("origin_ns", ctypes.c_uint64),
        ("tick_ns", ctypes.c_uint64),
        ("held_mj", ctypes.c_uint64),
        ("memory_total", ctypes.c_uint64),
        ("memory_used", ctypes.c_uint64),
        ("wave_period_ns", ctypes.c_uint64),
        ("wave_high_ns", ctypes.c_uint64),
        ("power_tick_ns", ctypes.c_uint64),
        ("power_window_ns", ctypes.c_uint64),
        ("instant_window_ns", ctypes.c_uint64),
        ("reasons", ctypes.c_uint64),
        ("gpm", ctypes.c_double * len(GPM)),
        ("wave_mw", ctypes.c_uint32),
        ("ramp_mw_per_s", ctypes.c_uint32),
        ("power_mw", ctypes.c_uint32),
        ("drawn_mw", ctypes.c_uint32),
        ("module_mw", ctypes.c_uint32),
        ("module_memory_mw", ctypes.c_uint32),
        ("sm_mhz", ctypes.c_uint32),
        ("memory_mhz", ctypes.c_uint32),
        ("celsius", ctypes.c_uint32),
        ("architecture", ctypes.c_uint32),
        ("persistence", ctypes.c_uint32),
        ("virtualization", ctypes.c_uint32),
        ("mig_mode", ctypes.c_uint32),
        ("gpm_supported", ctypes.c_uint32),
        ("power_limit_mw", ctypes.c_uint32),
        ("utilization_gpu", ctypes.c_uint32),
        ("utilization_memory", ctypes.c_uint32),
        ("slices", ctypes.c_uint32),
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
        ("clock_ns", ctypes.c_uint64),
        ("call_ns", ctypes.c_uint64),
        ("loads", ctypes.c_uint64),
        ("init_code", ctypes.c_int32),
        ("count_code", ctypes.c_int32),
        ("confidential", ctypes.c_uint32),
        ("confidential_code", ctypes.c_uint32),
        ("inits", ctypes.c_uint64),
        ("shutdowns", ctypes.c_uint64),
        ("gpm_samples", ctypes.c_int64),
        ("driver", ctypes.c_char * _TEXT),
        ("gpus", _Gpu * MAX_GPUS),
    )


@dataclass(frozen=True)
class FakeInstance:
    """A MIG device as it is made: by default all of its GPU instance is its own."""

    uuid: str
    slices: int = 3
    gpu_instance: int = 1
    compute_instance: int = 0
    compute_slices: int | None = None
    memory_mib: int = 40_320
    gpm: tuple[float, ...] = (80.0, 75.0, 40.0, 20.0, 60.0, 100.0, 200.0, -1.0, -1.0)
    """By :data:`GPM`, of its GPU instance; negative: that one is not supported."""


@dataclass(frozen=True)
class FakeGpu:
    """How a GPU starts out."""

    uuid: str = "GPU-11111111-2222-3333-4444-555555555555"
    name: str = "NVIDIA H100 80GB HBM3"
    mig_uuid: str = ""
    """UUID of one instance with all slices, in place of ``instances``."""
    instances: tuple[FakeInstance, ...] = ()
    slices: int = 7
    """How many MIG instances could be on it."""
    energy_mj: int = 5_000_000
    power_watts: float = 100.0
    power_limit_watts: float = 700.0
    memory_total_bytes: int = 80 * 1024**3
    memory_used_bytes: int = 0
    utilization_percent: int = 0
    live: bool = False
    """Whether the counter runs by the clock."""
    tick_seconds: float = 0.1
    power_tick_seconds: float = 0.1
    power_window_seconds: float = 0.0
    """Of PowerUsage and the field POWER_AVERAGE; 0: they tell what was set."""
    instant_window_seconds: float = 0.0
    module_watts: float = 0.0
    """Power of the module that the GPU is part of (Grace Hopper); 0: there is no such scope."""
    module_memory_watts: float = 0.0
    sm_mhz: int = 1980
    memory_mhz: int = 2619
    celsius: int = 41
    architecture: int = 9
    """As NVML numbers them: 5 Volta, 7 Ampere, 8 Ada, 9 Hopper, 10 Blackwell."""
    persistence: bool = True
    virtualization: int = 0
    """0 none, 1 passed through to a virtual machine, 2 a vGPU in one."""
    gpm: tuple[float, ...] = (80.0, 75.0, 40.0, 20.0, 60.0, 100.0, 200.0, 0.0, 0.0)
    """By :data:`GPM`; negative: that one is not supported. Empty: none is."""
    codes: tuple[tuple[str, int], ...] = ()
    """Calls that answer with a code from the start."""


_NO_FIELDS = (("fields", NOT_SUPPORTED), ("samples", NOT_SUPPORTED))
_NO_POWER = (("energy", NOT_SUPPORTED), ("power", NOT_SUPPORTED), ("power_limit", NOT_SUPPORTED))

PARTS = {
    "v100": FakeGpu(
        name="Tesla V100-SXM2-32GB", power_limit_watts=300.0, tick_seconds=0.02, power_tick_seconds=0.02,
        power_window_seconds=0.01, instant_window_seconds=0.01, architecture=5, gpm=(),
        memory_total_bytes=32 * 1024**3,
    ),
    "a100": FakeGpu(
        name="NVIDIA A100-SXM4-80GB", power_limit_watts=400.0, power_window_seconds=0.025,
        instant_window_seconds=0.025, architecture=7, gpm=(),
    ),
    "h100": FakeGpu(power_window_seconds=1.0, instant_window_seconds=0.025),
    "h200": FakeGpu(
        name="NVIDIA H200", power_window_seconds=1.0, instant_window_seconds=0.025,
        memory_total_bytes=141 * 1024**3,
    ),
    "b200": FakeGpu(
        name="NVIDIA B200", power_limit_watts=1000.0, power_watts=196.0, power_window_seconds=1.0,
        instant_window_seconds=0.025, architecture=10, memory_total_bytes=180 * 1024**3,
    ),
    "gh200": FakeGpu(
        name="NVIDIA GH200 480GB", power_window_seconds=1.0, instant_window_seconds=0.025, module_watts=250.0,
        module_memory_watts=40.0, memory_total_bytes=96 * 1024**3,
    ),
    "l40s": FakeGpu(
        name="NVIDIA L40S", power_limit_watts=350.0, power_window_seconds=1.0, instant_window_seconds=0.1,
        architecture=8, gpm=(), memory_total_bytes=48 * 1024**3,
    ),
    "mig": FakeGpu(mig_uuid="MIG-99999999-2222-3333-4444-555555555555", power_window_seconds=1.0),
    "vgpu": FakeGpu(
        name="NVIDIA A40-48Q", power_limit_watts=0.0, power_watts=0.0, architecture=7, virtualization=2,
        gpm=(), codes=_NO_POWER + _NO_FIELDS,
    ),
    "pascal": FakeGpu(
        name="Tesla P100-PCIE-16GB", power_limit_watts=250.0, power_tick_seconds=0.02, architecture=4, gpm=(),
        power_window_seconds=0.01, codes=(("energy", NOT_SUPPORTED), *_NO_FIELDS),
    ),
}  # fmt: skip
"""How parts show their power, as far as somebody measured it (SC'24, arXiv 2312.02741) or NVIDIA's header
says it; H200, B200, GH200 and L40S by their generation."""


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
            now_ns = self.now_ns()
            entry.uuid, entry.name = gpu.uuid.encode(), gpu.name.encode()
            entry.origin_ns = entry.base_ns = now_ns
            entry.tick_ns = round(gpu.tick_seconds * 1e9)
            entry.held_mj, entry.base_uj = gpu.energy_mj, gpu.energy_mj * 1000
            entry.power_mw = entry.drawn_mw = round(gpu.power_watts * 1000)
            entry.power_limit_mw = round(gpu.power_limit_watts * 1000)
            entry.memory_total, entry.memory_used = gpu.memory_total_bytes, gpu.memory_used_bytes
            entry.utilization_gpu = gpu.utilization_percent
            entry.live = gpu.live
            entry.power_tick_ns, entry.power_window_ns, entry.instant_window_ns = (
                round(seconds * 1e9)
                for seconds in (gpu.power_tick_seconds, gpu.power_window_seconds, gpu.instant_window_seconds)
            )
            entry.module_mw, entry.module_memory_mw = (
                round(watts * 1000) for watts in (gpu.module_watts, gpu.module_memory_watts)
            )
            entry.sm_mhz, entry.memory_mhz, entry.celsius = gpu.sm_mhz, gpu.memory_mhz, gpu.celsius
            entry.architecture, entry.persistence = gpu.architecture, gpu.persistence
            entry.virtualization, entry.slices = gpu.virtualization, gpu.slices
            instances = gpu.instances or tuple(
                FakeInstance(uuid, gpu.slices, 0, memory_mib=80_000) for uuid in [gpu.mig_uuid] if uuid
            )
            entry.mig_mode = bool(instances)
            for instance in instances:
                self._put(entry, instance)
            entry.gpm_supported = bool(gpu.gpm)
            for metric, value in enumerate(gpu.gpm):
                entry.gpm[metric] = value
            for function, code in gpu.codes:
                entry.codes[FUNCTIONS.index(function)] = code
            self._state.gpu_count = place + 1

    def remove_last(self) -> None:
        """Takes out the GPU that was plugged in last."""
        self._places.popitem()
        self._state.gpu_count = len(self._places)

    def close(self) -> None:
        """Lets go of the file; processes that mapped it read on."""
        del self._state
        self._map.close()
        self._file.close()

    # ------------------------------------------------------------------------------- the counter

    def now_ns(self) -> int:
        """The time by which the driver goes."""
        return int(self._state.clock_ns) or time.monotonic_ns()

    def told_ns(self) -> int:
        """The time as it was told, and the calls since then; 0 where it was not."""
        return int(self._state.clock_ns)

    def set_clock(self, time_ns: int) -> None:
        """From now on it is this late, until it is told anew; the first time all counters begin here."""
        if not self._state.clock_ns:
            for uuid in self._places:
                entry = self.entry(uuid)
                entry.origin_ns = entry.base_ns = time_ns
                entry.base_uj = entry.held_mj * 1000
        self._state.clock_ns = time_ns

    def counter_mj(self, uuid: str, now_ns: int | None = None) -> int:
        """What the library tells at ``now_ns`` (default: now) as long as the state stays as it is."""
        entry = self.entry(uuid)
        now_ns = self.now_ns() if now_ns is None else now_ns
        if not entry.live or now_ns < entry.origin_ns:
            return int(entry.held_mj)
        seen_ns = now_ns - (now_ns - entry.origin_ns) % entry.tick_ns
        if seen_ns < entry.base_ns:
            return int(entry.held_mj)
        return int(entry.base_uj + _drawn_pj(entry, seen_ns) // 10**6) // 1000

    def true_joules(self, uuid: str) -> float:
        """What the GPU has drawn by now, no tick and no rounding in it; differences mean something."""
        entry = self.entry(uuid)
        return (int(entry.base_uj) + _drawn_pj(entry, self.now_ns()) / 1e6) / 1e6

    def set_power(self, uuid: str, power_watts: float) -> None:
        """From now on the GPU draws this; its counter goes on from where it is."""
        self.set_wave(uuid, power_watts, 0.0, 0.0, 0.0)

    def set_wave(
        self,
        uuid: str,
        low_watts: float,
        high_watts: float,
        period_seconds: float,
        high_seconds: float,
        ramp_watts_per_second: float = 0.0,
    ) -> None:
        """From now on it draws ``high_watts`` for the first ``high_seconds`` of each period, else
        ``low_watts``, and each second so much more; its counter goes on from where it is."""
        entry = self.entry(uuid)
        with self._writing():
            now_ns = self.now_ns()
            held_mj = self.counter_mj(uuid, now_ns)
            if entry.live:
                entry.base_uj += _drawn_pj(entry, now_ns) // 10**6
            entry.base_ns, entry.held_mj = now_ns, held_mj
            entry.power_mw = entry.drawn_mw = round(low_watts * 1000)
            entry.wave_period_ns, entry.wave_high_ns = round(period_seconds * 1e9), round(high_seconds * 1e9)
            entry.wave_mw = max(round((high_watts - low_watts) * 1000), 0)
            entry.ramp_mw_per_s = round(ramp_watts_per_second * 1000)

    def freeze(self, uuid: str | None = None) -> None:
        """Stops the counter (by default of every GPU) at what it shows."""
        for name in self._named(uuid):
            entry = self.entry(name)
            with self._writing():
                entry.held_mj = self.counter_mj(name)
                entry.live = 0

    def resume(self, uuid: str | None = None) -> None:
        """Lets the counter run on from what it shows."""
        for name in self._named(uuid):
            entry = self.entry(name)
            if not entry.live:
                with self._writing():
                    entry.base_ns, entry.base_uj = self.now_ns(), entry.held_mj * 1000
                    entry.live = 1

    def set_counter(self, uuid: str, energy_mj: int) -> None:
        """Puts the counter to a value, at once: a reset, a jump, or what a frozen one shows next."""
        entry = self.entry(uuid)
        with self._writing():
            entry.base_ns, entry.base_uj = self.now_ns(), energy_mj * 1000
            entry.held_mj = energy_mj

    # -------------------------------------------------------------------------- everything else

    def set_code(self, uuid: str, function: str, code: int) -> None:
        """From now on ``function`` (one of FUNCTIONS) answers this nvmlReturn_t for that GPU."""
        with self._writing():
            self.entry(uuid).codes[FUNCTIONS.index(function)] = code

    def lose(self, uuid: str, code: int = GPU_IS_LOST) -> None:
        """Every call for that GPU fails, as when it falls off the bus; code 0 brings it back."""
        for function in FUNCTIONS:
            self.set_code(uuid, function, code)

    def reattach(self, uuid: str) -> None:
        """Every handle to that GPU that was given out is dead; new ones work."""
        with self._writing():
            self.entry(uuid).generation += 1

    def set_init_code(self, code: int) -> None:
        """What nvmlInit answers."""
        self._state.init_code = code

    def unload(self) -> None:
        """The driver is loaded anew: whoever uses the library has to start it again."""
        self._state.loads += 1

    def set_call_seconds(self, duration_seconds: float) -> None:
        """How long each call about a GPU takes from now on, by a clock that is told (:meth:`set_clock`)."""
        self._state.call_ns = round(duration_seconds * 1e9)

    def set_gpm(self, uuid: str, **percent: float) -> None:
        """What GPM tells from now on, by :data:`GPM`; negative: not supported."""
        with self._writing():
            for name, value in percent.items():
                self.entry(uuid).gpm[GPM.index(name)] = value

    def set_instance_gpm(self, uuid: str, instance: str, **percent: float) -> None:
        """What GPM tells from now on of the GPU instance of a MIG device, by :data:`GPM`."""
        with self._writing():
            for name, value in percent.items():
                self.instance(uuid, instance).gpm[GPM.index(name)] = value

    def make_instance(self, uuid: str, instance: FakeInstance) -> None:
        """Cuts one more instance out of the GPU."""
        with self._writing():
            self._put(self.entry(uuid), instance)

    def destroy_instance(self, uuid: str, instance: str) -> None:
        """Takes an instance away; handles to it are dead."""
        with self._writing():
            self.instance(uuid, instance).uuid = b""

    def set_mig_mode(self, uuid: str, on: bool) -> None:
        """Switches MIG mode; without it there are no instances."""
        with self._writing():
            entry = self.entry(uuid)
            entry.mig_mode = on
            for place in range(0 if on else MAX_INSTANCES):
                entry.instances[place].uuid = b""

    def instance(self, uuid: str, instance: str) -> _Instance:
        """The state of an instance as the library sees it."""
        return next(each for each in self.entry(uuid).instances if each.uuid == instance.encode())

    def _put(self, entry: _Gpu, instance: FakeInstance) -> None:
        place = next(each for each in entry.instances if not each.uuid)
        place.uuid, place.serial = instance.uuid.encode(), place.serial % 255 + 1
        place.slices, place.gpu_instance = instance.slices, instance.gpu_instance
        place.compute_instance = instance.compute_instance
        place.compute_slices = instance.slices if instance.compute_slices is None else instance.compute_slices
        place.memory_mib, place.gpm_code = instance.memory_mib, SUCCESS
        for metric, value in enumerate(instance.gpm):
            place.gpm[metric] = value

    def set_confidential(self, on: bool) -> None:
        """Whether the machine's GPUs are in confidential computing mode."""
        self._state.confidential = on

    def gpm_samples(self) -> int:
        """Samples that were allocated and not freed."""
        return int(self._state.gpm_samples)

    def set_raw(self, uuid: str, /, **fields: int | bytes) -> None:
        """Writes fields of ``gpu_t`` as they are, nonsense included."""
        with self._writing():
            for field, value in fields.items():
                setattr(self.entry(uuid), field, value)

    def calls(self, uuid: str, function: str) -> int:
        """How often the library was asked."""
        return int(self.entry(uuid).calls[FUNCTIONS.index(function)])

    def uuids(self) -> list[str]:
        """Of all GPUs, in the order in which they were plugged in."""
        return list(self._places)

    def open_users(self) -> int:
        """Successful nvmlInit calls less nvmlShutdown calls, over all processes."""
        return int(self._state.inits - self._state.shutdowns)

    def entry(self, uuid: str) -> _Gpu:
        """The state of a GPU as the library sees it."""
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


@dataclass
class DriverClock(ManualClock):
    """A clock that takes the driver's along: what sleeps on it lets the counters run."""

    driver: FakeDriver | None = None

    def __post_init__(self) -> None:
        self.advance(0.0)

    def now_ns(self) -> int:
        if self.driver is not None:  # calls take time, see FakeDriver.set_call_seconds
            self.time_ns = max(self.time_ns, self.driver.told_ns())
        return self.time_ns

    def advance(self, duration_seconds: float) -> None:
        self.now_ns()
        super().advance(duration_seconds)
        if self.driver is not None:
            self.driver.set_clock(self.time_ns)


def _drawn_pj(entry: _Gpu, then_ns: int) -> int:
    """Picojoules drawn since the power was last set."""
    since_ns = max(then_ns - int(entry.base_ns), 0)
    drawn = int(entry.drawn_mw) * since_ns + int(entry.ramp_mw_per_s) * since_ns**2 // (2 * 10**9)
    if entry.wave_period_ns:
        periods, rest_ns = divmod(since_ns, int(entry.wave_period_ns))
        high_ns = int(entry.wave_high_ns)
        drawn += int(entry.wave_mw) * (periods * high_ns + min(rest_ns, high_ns))
    return drawn


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
    for name in ("LD_LIBRARY_PATH", "FAKE_NVML_STATE", "NVIDIA_FAKE_NVML_STATE"):
        variables.pop(name, None)
    if library is not None:
        variables["LD_LIBRARY_PATH"] = str(library.parent)
    if driver is not None:
        variables["FAKE_NVML_STATE"] = variables["NVIDIA_FAKE_NVML_STATE"] = str(driver.path)
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
