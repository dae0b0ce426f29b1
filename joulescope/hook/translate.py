"""From references to the scheduler's objects to wire records, in the emitter's thread.

The engine's thread queues four kinds of tuple, each beginning with its kind and an instant::

    (SCHEDULED, start_ns, end_ns, scheduler_output)
    (UPDATED, start_ns, end_ns, scheduler_output, engine_core_outputs)
    (ADDED, time_ns, request, prefill_stats)
    (FREED, time_ns, request)

The thread holds the interpreter lock while it works, so columns are built by C loops (``map``, list
comprehensions over parallel lists) and nothing is allocated per request of a step.

What is read when: the ids of a step are turned into handles when its SCHEDULED item is met, for a request may
be freed before the step's output returns. Token counts and drafts are read when the output is back, because
vLLM trims both in place until then. ``sampled`` counts what the step handed to the API server, so tokens
that vLLM computed and discarded (an asynchronous step after a stop, a request aborted in mid-step) are 0.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, cast

from joulescope.hook.wire import AnyRecord, Gap, Record, RequestEnd, RequestStart, Step

SCHEDULED, UPDATED, ADDED, FREED = range(4)

MAX_PENDING_STEPS = 64
MAX_ID_CHARACTERS = 256
MAX_TRACE_STATE_CHARACTERS = 512
UNKNOWN = "unknown"

_RANDOM_SUFFIX = re.compile(r"^(?:\d+_)?(.*)-[0-9a-f]{8}$", re.DOTALL)
_request_id_of = attrgetter("request_id")
_new_tokens_of = attrgetter("new_token_ids")

Gauges = tuple["int | None", "int | None", "float | None"]


def external_id(request_id: str) -> str:
    """The id that the API answered with: vLLM (0.14 and later) appends 8 random hex digits to it, and
    puts the number of the child before it when a request asks for several answers."""
    match = _RANDOM_SUFFIX.match(request_id)
    return match.group(1) if match else request_id


@dataclass(slots=True)
class _PendingStep:
    """A step whose output is not back. Holding ``output`` keeps its ``id()`` from being used again."""

    number: int
    start_ns: int
    end_ns: int
    output: Any
    ids: list[str]
    handles: list[int]
    context: list[int]
    cached: list[tuple[int, int, int]]
    preempted: list[int]
    encoder: list[tuple[int, int]] = field(default_factory=list)


class SchedulerTranslator:
    """State of one scheduler: open requests, numbered steps, what waits for its output.

    :param find_request: the scheduler's own ``Request`` for an id, ``None`` if it has none.
    :param gauges: waiting requests, running requests and KV-cache usage (0..1), as they are now.
    :param complain: takes an exception that one item caused; the other items are not affected.
    :param ends_reported: false where the scheduler cannot be asked to tell the end of a request.
    :param ids_randomized: whether this vLLM appends random digits to request ids.
    """

    def __init__(
        self,
        *,
        find_request: Callable[[str], Any],
        gauges: Callable[[], Gauges],
        complain: Callable[[Exception], None],
        ends_reported: bool = True,
        ids_randomized: bool = True,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.unknown_outputs = 0
        """Outputs of steps that were never seen being scheduled."""
        self._find_request = find_request
        self._gauges = gauges
        self._complain = complain
        self._ends_reported = ends_reported
        self._external_id = external_id if ids_randomized else str
        self._now_ns = now_ns
        self._last_handle = 0
        self._last_step = 0
        self._latest: tuple[list[str], list[int]] | None = None
        self._open: dict[str, int] = {}
        self._unadmitted: dict[str, Any] = {}
        self._encoder_sizes: dict[str, list[int]] = {}
        self._pending: dict[int, _PendingStep] = {}
        self._preempted: list[int] = []
        self._doubtful: set[str] = set()
        self._vanished: set[str] = set()

    # ------------------------------------------------------------------------ what the emitter calls

    def translate(self, items: Sequence[object], overflowed: int) -> list[AnyRecord]:
        """Records for the queued items, in their order."""
        records: list[AnyRecord] = []
        for item in items:
            try:
                self._take(item, records)
            except Exception as error:
                self._complain(error)
                self._admit_loss(item, records)
        self._end_vanished(records)
        if overflowed:
            self._doubtful = set(self._open)
        self._add_gauges(records)
        return records

    def pending_since_ns(self) -> int | None:
        """When the oldest step without output was scheduled."""
        oldest = next(iter(self._pending.values()), None)
        return None if oldest is None else oldest.end_ns

    def _take(self, item: object, records: list[AnyRecord]) -> None:
        if isinstance(item, Record):
            records.append(cast("AnyRecord", item))
        elif isinstance(item, tuple):
            kind = item[0]
            if kind == SCHEDULED:
                self._scheduled(records, *item[1:])
            elif kind == UPDATED:
                self._updated(records, *item[1:])
            elif kind == ADDED:
                self._added(records, *item[1:])
            else:
                self._freed(records, *item[1:])

    def _admit_loss(self, item: object, records: list[AnyRecord]) -> None:
        if isinstance(item, tuple) and len(item) > 2:
            time_ns = item[1]
            records.append(Gap(start_ns=time_ns, end_ns=time_ns, dropped=1, reason="internal_error"))

    # ------------------------------------------------------------------------------------- requests

    def _added(self, records: list[AnyRecord], time_ns: int, request: Any, prefill_stats: Any) -> None:
        request_id = request.request_id
        if request_id in self._open:
            return  # a streaming session continues under its id
        records.append(self._start(request_id, request, time_ns))
        self._unadmitted[request_id] = prefill_stats
        features = getattr(request, "mm_features", None)
        if features:
            size = getattr(request, "get_num_encoder_embeds", None)
            if size is not None:
                self._encoder_sizes[request_id] = [int(size(index)) for index in range(len(features))]

    def _start(self, request_id: str, request: Any, time_ns: int, *, resumed: bool = False) -> RequestStart:
        """The start record of a request; ``request`` may be ``None`` if only its id is known."""
        self._last_handle += 1
        self._open[request_id] = self._last_handle
        pooling = getattr(request, "pooling_params", None) is not None
        headers = getattr(request, "trace_headers", None) or {}
        lora = getattr(request, "lora_request", None)
        return RequestStart(
            request=self._last_handle,
            request_id=request_id[:MAX_ID_CHARACTERS],
            time_ns=time_ns,
            external_id=self._external_id(request_id)[:MAX_ID_CHARACTERS],
            prompt_tokens=getattr(request, "num_prompt_tokens", 0),
            max_tokens=None if pooling else getattr(request, "max_tokens", None),
            lora="" if lora is None else str(lora.lora_name)[:MAX_ID_CHARACTERS],
            kind="pooling" if pooling else "generate",
            trace_parent=str(headers.get("traceparent", ""))[:MAX_ID_CHARACTERS],
            trace_state=str(headers.get("tracestate", ""))[:MAX_TRACE_STATE_CHARACTERS],
            resumed=resumed,
        )

    def _freed(self, records: list[AnyRecord], time_ns: int, request: Any) -> None:
        handle = self._forget(request.request_id)
        if handle is None:
            return  # told already
        records.append(
            RequestEnd(
                request=handle,
                time_ns=time_ns,
                reason=_finish_reason(request),
                output_tokens=getattr(request, "num_output_tokens", None),
                preemptions=getattr(request, "num_preemptions", None),
                final_step=self._last_step or None,
            )
        )

    def _forget(self, request_id: str) -> int | None:
        self._latest = None
        self._unadmitted.pop(request_id, None)
        self._encoder_sizes.pop(request_id, None)
        self._doubtful.discard(request_id)
        return self._open.pop(request_id, None)

    def _end_unknown(self, records: list[AnyRecord], request_ids: Iterable[str], time_ns: int) -> None:
        for request_id in request_ids:
            handle = self._forget(request_id)
            if handle is not None:
                final_step = self._last_step or None
                records.append(
                    RequestEnd(request=handle, time_ns=time_ns, reason=UNKNOWN, final_step=final_step)
                )

    def _end_vanished(self, records: list[AnyRecord]) -> None:
        """After an overflow, ends those requests whose end may have been lost with it.

        A request is believed gone if the scheduler does not have it and one further turn brought no
        end either.
        """
        if self._vanished:
            self._end_unknown(records, self._vanished & self._open.keys(), self._now_ns())
            self._vanished = set()
        if self._doubtful:
            self._vanished = {each for each in self._doubtful if self._find_request(each) is None}
            self._doubtful = set()

    # ---------------------------------------------------------------------------------------- steps

    def _scheduled(self, records: list[AnyRecord], start_ns: int, end_ns: int, output: Any) -> None:
        preempted = getattr(output, "preempted_req_ids", None)
        if preempted:
            self._preempted += [self._open[each] for each in preempted if each in self._open]
        if not self._ends_reported and output.finished_req_ids:
            self._end_unknown(records, list(output.finished_req_ids), start_ns)
        if not output.total_num_scheduled_tokens:
            return
        new, old = output.scheduled_new_reqs, output.scheduled_cached_reqs
        ids = [each.req_id for each in new] + list(old.req_ids)
        context = [each.num_computed_tokens for each in new] + list(old.num_computed_tokens)
        if len(ids) != len(output.num_scheduled_tokens):
            ids, context = _only_scheduled(ids, context, output.num_scheduled_tokens)
        self._last_step += 1
        step = _PendingStep(
            number=self._last_step,
            start_ns=start_ns,
            end_ns=end_ns,
            output=output,
            ids=ids,
            handles=self._handles(records, ids, start_ns),
            context=context,
            cached=self._admissions(new) if new else [],
            preempted=self._preempted,
        )
        self._preempted = []
        if output.scheduled_encoder_inputs:
            step.encoder = self._encoder_tokens(output.scheduled_encoder_inputs)
        self._pending[id(output)] = step
        if len(self._pending) > MAX_PENDING_STEPS:
            self._lose_step(records, next(iter(self._pending)), start_ns)

    def _handles(self, records: list[AnyRecord], ids: list[str], time_ns: int) -> list[int]:
        """Handles for ids; while nobody comes or goes they are those of the step before."""
        if self._latest is None or self._latest[0] != ids:
            self._latest = ids, self._look_up(records, ids, time_ns)
        return self._latest[1]

    def _look_up(self, records: list[AnyRecord], ids: list[str], time_ns: int) -> list[int]:
        try:
            return list(map(self._open.__getitem__, ids))
        except KeyError:
            unheard = [each for each in ids if each not in self._open]
            records += [
                self._start(each, self._find_request(each), time_ns, resumed=True) for each in unheard
            ]
            return list(map(self._open.__getitem__, ids))

    def _admissions(self, new: Iterable[Any]) -> list[tuple[int, int, int]]:
        """Prefix-cache hits of requests that are scheduled for the first time: (handle, local, external).

        The newer model runner lists a preempted request as new again; only its first time counts.
        """
        admitted: list[tuple[int, int, int]] = []
        for each in new:
            if each.req_id not in self._unadmitted:
                continue
            stats = self._unadmitted.pop(each.req_id)
            if stats is not None:
                local, external = stats.num_local_cached_tokens, stats.num_external_cached_tokens
            else:
                request = self._find_request(each.req_id)
                external = getattr(request, "num_external_computed_tokens", 0)
                local = max(0, each.num_computed_tokens - external)
            if local or external:
                admitted.append((self._open[each.req_id], local, external))
        return admitted

    def _encoder_tokens(self, inputs: dict[str, list[int]]) -> list[tuple[int, int]]:
        tokens: list[tuple[int, int]] = []
        for request_id, indices in inputs.items():
            sizes = self._encoder_sizes.get(request_id)
            if sizes is not None and request_id in self._open:
                tokens.append((self._open[request_id], sum(sizes[i] for i in indices if i < len(sizes))))
        return tokens

    def _updated(
        self, records: list[AnyRecord], start_ns: int, end_ns: int, output: Any, results: Any
    ) -> None:
        step = self._pending.get(id(output))
        if step is None:
            self.unknown_outputs += bool(output.total_num_scheduled_tokens)
            return
        while (oldest := next(iter(self._pending))) != id(output):
            self._lose_step(records, oldest, start_ns)  # outputs return in order: this one's was lost
        del self._pending[id(output)]
        counts = output.num_scheduled_tokens
        all_ones = output.total_num_scheduled_tokens == len(step.ids)
        records.append(
            Step(
                step=step.number,
                schedule_start_ns=step.start_ns,
                schedule_end_ns=step.end_ns,
                output_start_ns=start_ns,
                output_end_ns=end_ns,
                request=step.handles,
                context=step.context,
                scheduled=[] if all_ones else list(map(counts.__getitem__, step.ids)),
                sampled=_sampled(step.ids, results),
                drafted=_drafted(step, output) if output.scheduled_spec_decode_tokens else [],
                cached=step.cached,
                preempted=step.preempted,
                encoder=step.encoder,
            )
        )

    def _lose_step(self, records: list[AnyRecord], key: int, until_ns: int) -> None:
        lost = self._pending.pop(key)
        records.append(Gap(start_ns=lost.end_ns, end_ns=until_ns, dropped=1, reason="lost_output"))

    def _add_gauges(self, records: list[AnyRecord]) -> None:
        for record in reversed(records):
            if type(record) is Step:
                record.waiting, record.running, record.kv_usage_ratio = self._gauges()
                return


def _sampled(ids: list[str], results: Any) -> list[int]:
    """Tokens that came out for each id; empty if that is one for each."""
    outputs: list[Any] = []
    for part in (results or {}).values():
        outputs += part.outputs
    output_ids, sampled = list(map(_request_id_of, outputs)), list(map(len, map(_new_tokens_of, outputs)))
    if output_ids != ids:
        came_out = dict(zip(output_ids, sampled, strict=True))
        sampled = [came_out.get(each, 0) for each in ids]
    return [] if sampled.count(1) == len(sampled) else sampled


def _drafted(step: _PendingStep, output: Any) -> list[tuple[int, int]]:
    """Speculative tokens that were verified, by handle, without those a grammar ruled out beforehand."""
    invalid = getattr(output, "num_invalid_spec_tokens", None) or {}
    handle_of = dict(zip(step.ids, step.handles, strict=True))
    drafts = output.scheduled_spec_decode_tokens.items()
    counted = [(handle_of[each], len(tokens) - invalid.get(each, 0)) for each, tokens in drafts]
    return [(handle, count) for handle, count in counted if count > 0]


def _only_scheduled(
    ids: list[str], context: list[int], counts: dict[str, int]
) -> tuple[list[str], list[int]]:
    """The columns of those requests that really have tokens in this step; raises ``KeyError`` if the
    scheduler gives tokens to a request without saying how many it has computed."""
    known = dict(zip(ids, context, strict=True))
    return list(counts), [known[each] for each in counts]


def _finish_reason(request: Any) -> str:
    reason = request.get_finished_reason()
    if reason is not None:
        return str(reason.name).lower()
    status = getattr(request, "status", None)
    return str(getattr(status, "name", UNKNOWN)).lower().removeprefix("finished_")
