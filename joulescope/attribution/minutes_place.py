"""Which minutes an engine's figures belong to: its kind as it is now, and the laws that it has taught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from joulescope import __version__
from joulescope.attribution.engine import Engine
from joulescope.attribution.gpu import GpuState
from joulescope.attribution.minutes_open import Place
from joulescope.attribution.wait_fit import WaitFit
from joulescope.label_model import clean
from joulescope.minute_model import Kind, Laws, Limits
from joulescope.model import METHOD, METHOD_VERSION, EngineInfo

_WAITS_KEEP = 0.998
"""As the fit of joules forgets: half of what intervals taught after some minutes."""

_MOST_PLACES = 1024
"""Kinds that are remembered: engines that come as another one each time must not fill memory."""


@dataclass(slots=True)
class _Filed:
    """What is known of one engine until it is described anew."""

    info: EngineInfo
    place: Place
    gpus: list[GpuState]


class Places:
    """The places of engines, found fast.

    Args:
        gpus_of: the GPUs that an engine drives.
    """

    def __init__(self, gpus_of: Callable[[Engine], list[GpuState]]) -> None:
        self._gpus_of = gpus_of
        self._places: dict[tuple[Kind, Limits], Place] = {}
        self._filed: dict[int, _Filed] = {}
        self._count = 0
        self._nobody = self._place(Kind("", joulescope_version=__version__), Limits())

    def renew(self) -> None:
        """Engines or GPUs are described anew."""
        self._filed.clear()

    def of(self, engine: Engine | None) -> tuple[Place, int]:
        """The place of an engine, and how many GPUs of it are known; of no engine the one of no kind."""
        if engine is None:
            return self._nobody, 1
        filed = self._filed.get(id(engine))
        if filed is None or filed.info is not engine.info:
            gpus = self._gpus_of(engine)
            place = self._place(_kind(engine.info, gpus), _limits(engine.info))
            filed = self._filed[id(engine)] = _Filed(engine.info, place, gpus)
        return filed.place, max(len(filed.gpus), 1)

    def _place(self, kind: Kind, limits: Limits) -> Place:
        found = self._places.get((kind, limits))
        if found is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
                self._filed.clear()
            self._count += 1
            found = self._places[kind, limits] = Place(self._count, kind, limits, WaitFit(_WAITS_KEEP))
        return found

    def laws(self, place: Place, engine: Engine) -> Laws | None:
        """The cost model of an engine as it stands; ``None`` while it has learned nothing."""
        model = engine.model
        if not model.has_learned:
            return None
        gpus = self._gpus_of(engine)
        return Laws(
            cost=engine.info.cost,
            time_coefficients=tuple(model.time.coefficients.tolist()),
            energy_coefficients=tuple(model.energy.coefficients.tolist()),
            time_covariance=tuple(map(tuple, model.time.relative_covariance().tolist())),
            energy_covariance=tuple(map(tuple, model.energy.relative_covariance().tolist())),
            unevenness=model.unevenness,
            limit_watts=model.expectation.limit_watts,
            idle_watts=sum(gpu.idle.watts for gpu in gpus) / len(gpus) if gpus else 0.0,
            wait_seconds=place.waits.seconds,
        )


def _kind(info: EngineInfo, gpus: list[GpuState]) -> Kind:
    names = sorted({gpu.info.name for gpu in gpus} - {""})
    return Kind(
        engine=clean(info.engine),
        model=clean(info.model),
        served_model=clean(info.served_model),
        dtype=clean(info.dtype),
        quantization=clean(info.quantization),
        software=clean(info.software),
        software_version=clean(info.vllm_version),
        joulescope_version=__version__,
        gpu_name=clean(" + ".join(names)),
        gpu_count=info.gpu_count,
        tensor_parallel=info.tensor_parallel,
        pipeline_parallel=info.pipeline_parallel,
        data_parallel=info.data_parallel,
        unit=clean(info.unit),
        work_unit=clean(info.work_unit),
        method=METHOD,
        method_version=METHOD_VERSION,
    )


def _limits(info: EngineInfo) -> Limits:
    return Limits(
        max_num_seqs=info.max_num_seqs,
        max_num_batched_tokens=info.max_num_batched_tokens,
        max_model_len=info.max_model_len,
        kv_cache_tokens=info.kv_cache_tokens,
    )
