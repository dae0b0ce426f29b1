"""Which minutes an engine's figures belong to: its kind as it is now, and the laws that it has taught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

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
class Filed:
    """Where an engine's figures go now."""

    place: Place
    gpu_count: int
    """Known GPUs that it drives, at least 1."""
    since_ns: int
    """From here on; before, it was another kind, or was not there."""
    info: EngineInfo | None = None
    generation: int = 0


Moved = Callable[[Engine, Place, Filed], None]
"""Is told that an engine is another kind than before: the engine, where it was filed, where it is."""


class Places:
    """The places of engines, found fast.

    Args:
        gpus_of: the GPUs that an engine drives.
        moved: see :data:`Moved`.
    """

    def __init__(self, gpus_of: Callable[[Engine], list[GpuState]], moved: Moved) -> None:
        self._gpus_of, self._moved = gpus_of, moved
        self._places: dict[tuple[Kind, Limits], Place] = {}
        self._filed: WeakKeyDictionary[Engine, Filed] = WeakKeyDictionary()
        self._generation = self._count = 0
        self._nobody = Filed(self._place(Kind("", joulescope_version=__version__), Limits()), 1, 0)

    def renew(self) -> None:
        """Engines or GPUs are described anew."""
        self._generation += 1

    def of(self, engine: Engine | None) -> Filed:
        """Where the figures of an engine go; those of no engine go to no kind."""
        if engine is None:
            return self._nobody
        filed = self._filed.get(engine)
        if filed is None or filed.info is not engine.info or filed.generation != self._generation:
            return self._file(engine, filed)
        return filed

    def _file(self, engine: Engine, before: Filed | None) -> Filed:
        gpus = self._gpus_of(engine)
        place = self._place(_kind(engine.info, gpus), _limits(engine.info))
        since_ns = engine.up_ns
        if before is not None:
            step = engine.last_step
            stays = before.place.is_as_good_as(place)
            since_ns = before.since_ns if stays or step is None else step.output_end_ns
        filed = Filed(place, max(len(gpus), 1), since_ns, engine.info, self._generation)
        self._filed[engine] = filed
        if before is not None and before.place.number != place.number:
            self._moved(engine, before.place, filed)
        return filed

    def _place(self, kind: Kind, limits: Limits) -> Place:
        found = self._places.get((kind, limits))
        if found is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
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
