"""The guest in vLLM's API server: puts the joules of a request into its answer.

``vllm serve … --middleware joulescope.answer.JoulescopeMiddleware`` loads it. It imports the standard library
only, and whatever goes wrong in it, the answer goes out as vLLM made it. See ``docs/answer.md``.

Environment:

* ``JOULESCOPE_ANSWER``: which answers: ``asked`` (the default: to requests with ``X-Joulescope: estimate``),
  ``all`` or ``off``.
* ``JOULESCOPE_ANSWER_SOCKET``: where the sidecar serves single requests; ``answers.sock`` beside the socket
  of the hook if it is not set.
* ``JOULESCOPE_ANSWER_DEADLINE_MS``: how long an answer waits for its figure at most.
* ``JOULESCOPE_ANSWER_URL``: where clients reach the sidecar, for a link to the final figure.
* ``JOULESCOPE_TENANT_HEADER``: the header in which a gateway names the tenant.
* ``JOULESCOPE_TASK_HEADER``: the header in which a client or a gateway names the task class.
* ``JOULESCOPE_DISABLED=1``: off.
"""

from __future__ import annotations

from joulescope.answer.middleware import JoulescopeMiddleware as JoulescopeMiddleware
