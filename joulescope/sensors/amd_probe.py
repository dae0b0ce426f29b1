"""What each AMD socket is and can tell, asked once when AMD SMI is opened.

The unit that is measured is the **socket**. A partitioned MI300 shows up as several processors with one
meter among them, told by the first and as 0, "N/A" or once more by the others: counting processors would
count nothing, or the same joules several times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from joulescope.errors import SensorError
from joulescope.model import GpuCapabilities, GpuInfo
from joulescope.sensors.amd_faults import ABSENT, code_of, fault, meaning_of
from joulescope.sensors.amd_values import cap_watts, energy_joules, number, power_watts
from joulescope.sensors.amd_values import uuid as uuid_of
from joulescope.sensors.health import Health

_NO_METER = (
    "it has neither an energy counter nor a power reading (the second die of an MI250, whose joules are in"
    " the first one's; a virtual GPU; or no permission)"
)
_NO_SERIAL = "it has no serial number, by which an engine could name it"

_LATE_ERRORS = (ValueError, KeyError)
"""What the package raises where an answer is no text or number that it can read."""


@dataclass(slots=True)
class AmdGpu:
    """One socket as the sensor keeps it: what it is, what it can tell, and how it fares."""

    info: GpuInfo
    handle: Any
    """Of the processor that tells the socket's joules."""
    counts: bool
    tells_power: bool
    whole: bool
    """Whether the processor is all of the socket, so that its memory and its load are the socket's."""
    counter_joules: float | None = None
    """What the counter showed last."""
    memory_used_bytes: int | None = None
    busy_ratio: float | None = None
    slow_due_ns: int = 0
    """When memory and load are read again."""
    health: Health = field(default_factory=Health)


@dataclass(slots=True)
class Found:
    """The result of a probe."""

    gpus: list[AmdGpu] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """By UUID, or by index or bus address where there is none: why a GPU is not used."""


@dataclass(frozen=True, slots=True)
class _Processor:
    """What AMD SMI lists: a GPU, a die, or a partition."""

    handle: Any
    index: int
    bdf: str
    uuid: str
    partition: int


@dataclass(slots=True)
class _Socket:
    processors: list[_Processor]

    @property
    def uuid(self) -> str:
        """The first partition's: what the whole was called before it was divided."""
        return next((each.uuid for each in self.processors if each.uuid), "")


def probe(api: ModuleType, wanted: Sequence[str] | None) -> Found:
    """Finds the sockets among ``wanted`` (UUIDs; default all) whose energy or power can be read.

    A partition's UUID stands for its socket.

    Raises:
        SensorError: if AMD SMI cannot even list the GPUs, or none is left.
    """
    found = Found()
    sockets = _sockets(_processors(api, found.skipped))
    for socket in _chosen(sockets, wanted, found.skipped):
        name = socket.uuid or socket.processors[0].bdf
        gpu = _probe_socket(api, socket) if socket.uuid else _NO_SERIAL
        if isinstance(gpu, str):
            found.skipped[name] = gpu
        else:
            found.gpus.append(gpu)
    if not found.gpus:
        raise nothing_found([socket.uuid for socket in sockets], found.skipped)
    return found


def _processors(api: ModuleType, skipped: dict[str, str]) -> list[_Processor]:
    try:
        handles = api.amdsmi_get_processor_handles()
    except api.AmdSmiException as error:
        raise fault("the GPUs cannot be listed", code_of(error), meaning_of(error)) from error
    processors = []
    for index, handle in enumerate(handles):
        try:
            bdf = str(api.amdsmi_get_gpu_device_bdf(handle))
            asic = api.amdsmi_get_gpu_asic_info(handle)
        except (api.AmdSmiException, *_LATE_ERRORS) as error:
            skipped[f"index {index}"] = f"who it is cannot be read: {meaning_of(error)}"
            continue
        partition = _partition(api, handle, bdf)
        processors.append(_Processor(handle, index, bdf, uuid_of(asic.get("asic_serial")), partition))
    return processors


def _partition(api: ModuleType, handle: Any, bdf: str) -> int:
    """Its place on the socket, 0 for the first; the address's last digit where that is not told."""
    ask = getattr(api, "amdsmi_get_gpu_kfd_info", None)  # since ROCm 6.3
    info = (answer(api, ask, handle) if ask is not None else None) or {}
    place = number(info.get("current_partition_id"))
    return int(bdf[-1:], 16) if place is None else int(place)


def _sockets(processors: Sequence[_Processor]) -> list[_Socket]:
    """Processors by what they sit on: those at one bus address but for the function, or of one serial."""
    sockets: list[_Socket] = []
    by_mark: dict[str, _Socket] = {}
    for each in sorted(processors, key=lambda each: (each.partition, each.index)):
        marks = [mark for mark in (each.bdf.rpartition(".")[0], each.uuid) if mark]
        socket = next((by_mark[mark] for mark in marks if mark in by_mark), None)
        if socket is None:
            socket = _Socket([])
            sockets.append(socket)
        socket.processors.append(each)
        by_mark.update(dict.fromkeys(marks, socket))
    return sorted(sockets, key=lambda socket: socket.processors[0].index)


def _chosen(
    sockets: Sequence[_Socket], wanted: Sequence[str] | None, skipped: dict[str, str]
) -> list[_Socket]:
    if wanted is None:
        return list(sockets)
    by_uuid = {each.uuid: socket for socket in sockets for each in socket.processors if each.uuid}
    chosen: dict[int, _Socket] = {}
    for uuid in wanted:
        socket = by_uuid.get(uuid.lower().replace("gpu-", "GPU-", 1))
        if socket is None:
            skipped[uuid] = "no such GPU is visible here"
        else:
            chosen[id(socket)] = socket
    return list(chosen.values())


def _probe_socket(api: ModuleType, socket: _Socket) -> AmdGpu | str:
    """The socket by the first of its processors that has a meter, or the reason why it is of no use."""
    for each in socket.processors:
        counts = _tells(api, api.amdsmi_get_energy_count, each.handle, energy_joules)
        power = _tells(api, api.amdsmi_get_power_info, each.handle, power_watts)
        if counts or power:
            break
    else:
        return _NO_METER
    driver = answer(api, api.amdsmi_get_gpu_driver_info, each.handle) or {}
    asic = answer(api, api.amdsmi_get_gpu_asic_info, each.handle) or {}
    whole = len(socket.processors) == 1
    info = GpuInfo(
        gpu=socket.uuid,
        name=_text(asic.get("market_name")),
        index=socket.processors[0].index,
        power_limit_watts=cap_watts(answer(api, api.amdsmi_get_power_cap_info, each.handle) or {}),
        memory_total_bytes=memory_bytes(api, api.amdsmi_get_gpu_memory_total, each.handle) if whole else None,
        driver_version=_text(driver.get("driver_version")),
        energy_source="counter" if counts else "power",
        sensor="amd",
        capabilities=GpuCapabilities(energy_counter=counts, power=power),
    )
    return AmdGpu(info, each.handle, counts=counts, tells_power=power, whole=whole)


def _tells(
    api: ModuleType,
    call: Callable[[Any], Mapping[str, object]],
    handle: Any,
    value_of: Callable[[Mapping[str, object]], float | None],
) -> bool:
    """False if the GPU cannot answer, or answers nonsense; a passing trouble counts as True."""
    try:
        return value_of(call(handle)) is not None
    except api.AmdSmiException as error:
        return code_of(error) not in ABSENT


def answer(api: ModuleType, call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, ``None`` if it fails."""
    try:
        return call(*arguments)
    except (api.AmdSmiException, *_LATE_ERRORS):
        return None


def memory_bytes(api: ModuleType, call: Callable[..., Any], handle: Any) -> int | None:
    """Video memory from ``amdsmi_get_gpu_memory_total`` or ``_usage``; ``None`` if it fails or says 0."""
    return answer(api, call, handle, api.AmdSmiMemoryType.VRAM) or None


def _text(value: object) -> str:
    return value if isinstance(value, str) and value != "N/A" else ""


def nothing_found(visible: Sequence[str], skipped: Mapping[str, str]) -> SensorError:
    """The error that says why no GPU can be measured, and which are visible."""
    if not visible and not skipped:
        return SensorError(
            "AMD SMI works but shows no GPU. Check amd-smi list; give a container --device /dev/kfd and"
            " --device /dev/dri, or the resource amd.com/gpu."
        )
    reasons = "; ".join(f"{gpu}: {reason}" for gpu, reason in skipped.items())
    seen = ", ".join(uuid for uuid in visible if uuid)
    return SensorError(f"no GPU can be measured ({reasons}). Visible: {seen or 'none'}.")
