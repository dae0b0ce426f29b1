"""What one more output token costs now: the price of the moment, where joules per token is a mean."""

from __future__ import annotations

import numpy as np

from joulescope.attribution.cost import CostModel, StepColumns
from joulescope.attribution.requests import SAY_LITTLE
from joulescope.model import TOKEN, EngineInfo, StepDone


def next_token_joules(model: CostModel, info: EngineInfo, step: StepDone) -> float | None:
    """Marginal joules of one more decode token in a batch like that of this step, over all GPUs.

    ``None`` where the cost facts say too little of the model, and where what comes out is not tokens.
    """
    if info.cost.source in SAY_LITTLE or info.unit != TOKEN or info.work_unit != TOKEN:
        return None
    seconds = (step.output_start_ns - step.schedule_end_ns) / 1e9
    offsets = np.array([0, len(step.request)])
    columns = StepColumns(step.context, step.scheduled, step.sampled, offsets, np.array([seconds]))
    return model.next_token_joules(columns)
