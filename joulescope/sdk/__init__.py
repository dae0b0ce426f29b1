"""Any Python engine can report its steps: joules per request for what is not vLLM.

It needs the standard library only, and behaves as a guest: it never waits for the sidecar, never raises for
its sake, and drops and counts what cannot be delivered. A wrong call is a ``ValueError`` where it is made. ::

    from joulescope.sdk import Engine

    with Engine("my-diffuser", model="sdxl", gpus=["GPU-…"], unit="image") as engine:
        request = engine.request_started("r1")
        for _ in range(30):
            with engine.step({request: 1}):
                denoise()
        with engine.step({request: 1}) as step:
            decode_image()
            step.produced({request: 1})
        engine.request_ended(request, "stop")

``docs/sdk.md`` is the guide.
"""

from joulescope.sdk.engine import Engine
from joulescope.sdk.facts import Cost
from joulescope.sdk.work import Request, Step

__all__ = ["Cost", "Engine", "Request", "Step"]
