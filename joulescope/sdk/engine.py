"""The engine that reports: what a program calls."""

from __future__ import annotations

import atexit
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType

from joulescope.sdk import records
from joulescope.sdk.book import Book
from joulescope.sdk.checks import MAX_TRACE_STATE, text, whole
from joulescope.sdk.facts import Cost, Identity, gpus_of, new_instance, socket_of
from joulescope.sdk.records import Record
from joulescope.sdk.reporter import Reporter, Truth
from joulescope.sdk.work import Request, Requests, Step, counts_of, outputs_of

MAX_LATE_SECONDS = 5.0

log = logging.getLogger("joulescope.sdk")

_alive: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """Reports what one engine computes to the joulescope sidecar, from any thread.

    It opens at once: a thread of its own looks for the sidecar and keeps looking. No call waits for it, and
    no trouble with it is ever raised. With ``JOULESCOPE_DISABLED=1`` nothing is reported, and calls are
    checked all the same. In a forked child it reports as an engine of its own, from the first call on.

    Args:
        name: its label in all results; a number is added.
        model: what it runs; by default the name.
        gpus: UUIDs of its GPUs (``GPU-…``). By default those of ``CUDA_VISIBLE_DEVICES`` where that holds
            UUIDs, else none: only a sidecar that is told which GPUs to measure can then say whose they are.
        unit: what comes out, in the singular: ``token``, ``image``, ``second of audio``.
        work_unit: what is computed, in the singular: ``token``, ``denoising step``, ``patch``.
        cost: what a step costs; without it, joules follow the work.
        software: what runs the model, such as ``diffusers``; for people.
        late_seconds: how long after its begin a step may be reported by :meth:`report_step`, at most 5 s. All
            figures come so much later.
        socket: the sidecar's socket; by default ``JOULESCOPE_SOCKET``, or the usual place.
        thread: without it nothing is sent but by :meth:`poll`.
        environ, now_ns: the environment, and CLOCK_MONOTONIC; tests bring their own.

    Raises:
        ValueError: if an argument cannot be used.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str = "",
        gpus: Sequence[str] | None = None,
        unit: str = "token",
        work_unit: str = "token",
        cost: Cost | None = None,
        software: str = "",
        late_seconds: float = 0.0,
        socket: str | os.PathLike[str] | None = None,
        thread: bool = True,
        environ: Mapping[str, str] = os.environ,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if not 0 <= late_seconds <= MAX_LATE_SECONDS:
            raise ValueError(
                f"late_seconds is {late_seconds!r}: it must lie between 0 and {MAX_LATE_SECONDS:g}"
            )
        self._identity = Identity(
            name=text(name, "the engine's name"),
            model=text(model, "model", may_be_empty=True) or name,
            gpus=gpus_of(gpus, environ),
            unit=text(unit, "unit"),
            work_unit=text(work_unit, "work_unit"),
            software=text(software, "software", may_be_empty=True),
            cost=cost,
        )
        path = socket_of(socket, environ)
        self.enabled = path is not None
        """False where ``JOULESCOPE_DISABLED`` switched the reporting off."""
        self._now_ns = now_ns
        self._is_threaded = thread and self.enabled
        self._is_asleep = False
        self._instance_id = new_instance()
        late_ns = round(late_seconds * 1e9)
        self._reporter = Reporter(path or "", self._hello, self._truth, now_ns=now_ns, late_ns=late_ns)
        self._book = Book(self._put, now_ns)
        if self.enabled and not self._identity.gpus:
            log.warning(
                "joulescope: engine %s names no GPU; hand in gpus=[...], UUIDs as nvidia-smi -L shows them, "
                "or start the sidecar with --gpus",
                name,
            )
        if self._is_threaded:
            self._reporter.start()
        _alive.add(self)

    @property
    def connected(self) -> bool:
        """Whether a sidecar listens now."""
        return self._reporter.connected

    @property
    def dropped(self) -> int:
        """Records that no sidecar heard of."""
        return self._reporter.dropped

    # ------------------------------------------------------------------------------------ requests

    def request_started(
        self,
        request_id: str,
        *,
        external_id: str = "",
        prompt_work: int = 0,
        kind: str = "",
        lora: str = "",
        trace_parent: str = "",
        trace_state: str = "",
    ) -> Request:
        """A request came in; name it by what is returned.

        Args:
            request_id: its id in the request log and in spans.
            external_id: the id that the client knows, if it is another.
            prompt_work: so much of its work, from the first unit on, is preparation, such as the tokens of a
                prompt; its joules are told apart as *prefill*.
            kind: ``generate`` (the default), ``pooling``, or a word of your own.
            lora: name of an adapter.
            trace_parent, trace_state: W3C trace context; the request's span becomes a child of that one.

        Raises:
            ValueError: if an argument cannot be used.
        """
        request_id = text(request_id, "the request's id")
        prompt = whole(prompt_work, f"prompt_work of request {request_id!r}", 0)
        texts = {"external_id": external_id, "kind": kind, "lora": lora}
        texts |= {"trace_parent": trace_parent}
        texts = {name: text(value, name, may_be_empty=True) for name, value in texts.items()}
        texts["trace_state"] = text(trace_state, "trace_state", may_be_empty=True, longest=MAX_TRACE_STATE)
        self._wake()
        with self._reporter.lock:
            return self._book.start_request(request_id, prompt, texts)

    def request_ended(self, request: Request, reason: str = "stop") -> None:
        """A request is done, by ``stop``, ``length``, ``abort``, ``error`` or a word of your own.

        The joules of ``abort`` count as wasted. A request that is in a step under way ends with that step.

        Raises:
            ValueError: if it is no open request of this engine.
        """
        reason = text(reason, "the reason").lower()
        self._wake()
        with self._reporter.lock:
            self._book.check_open([request])
            self._book.end_request(request, reason)

    # --------------------------------------------------------------------------------------- steps

    def step(self, requests: Requests, *, start_ns: int | None = None) -> Step:
        """A step begins: to be used in a ``with``, or ended by :meth:`Step.end`.

        Several may be under way at once, as with kernels that are launched ahead; they are taken to run one
        after the other, in the order in which they end.

        Args:
            requests: who is in it, with the units of work that each brings; or just who, with 1 each.
            start_ns: when it began, CLOCK_MONOTONIC nanoseconds; by default now.

        Raises:
            ValueError: if nobody is in it, a request is not open, or its work is not whole or below 1.
        """
        work = self._work_of(requests)
        with self._reporter.lock:
            self._book.check_open(work)
            token = object()
            begun_ns = self._book.begin(token, start_ns)
            return Step(self._end_step, work, begun_ns, token)

    def report_step(self, requests: Requests, *, start_ns: int, end_ns: int, produced: Requests = ()) -> None:
        """Reports a step that is over, by its instants (CLOCK_MONOTONIC nanoseconds).

        Make the engine with ``late_seconds`` that cover the longest step and the delay of its report: up to
        so long ago the sidecar is told that all is known, and does not change what it has accounted.
        :meth:`step` needs no such margin, since what is under way is known.

        Raises:
            ValueError: as :meth:`step` and :meth:`Step.end` do. Nothing is reported then.
        """
        work = self._work_of(requests)
        outputs = outputs_of(produced, work)
        with self._reporter.lock:
            self._book.check_open(work)
            begun_ns = self._book.start_of(start_ns)
            span_ns = begun_ns, self._book.end_of(begun_ns, end_ns)
            self._book.finish(Step(self._end_step, work, begun_ns, None), span_ns, outputs)

    @contextmanager
    def overhead(self, reason: str = "warmup") -> Iterator[None]:
        """Work that no request asked for, such as warming up or compiling: its joules are overhead."""
        reason, token = text(reason, "the reason").lower(), object()
        self._wake()
        with self._reporter.lock:
            begun_ns = self._book.begin(token)
        try:
            yield
        finally:
            with self._reporter.lock:
                if self._book.drop(token):
                    self._put(records.overhead(begun_ns, self._now_ns(), reason))

    # ----------------------------------------------------------------------------------------- end

    def poll(self) -> None:
        """One turn of sending; it waits for nothing. With a thread it does nothing: that one sends."""
        self._wake()
        if self.enabled and not self._is_threaded and not self._reporter.closed:
            self._reporter.poll()

    def close(self, timeout_seconds: float = 0.5) -> None:
        """Sends what is left, waiting no longer than this. Later calls are checked and not reported."""
        if self.enabled and not self._is_asleep:
            self._reporter.close(timeout_seconds)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -------------------------------------------------------------------------------------- within

    def _work_of(self, requests: Requests) -> dict[Request, int]:
        work = counts_of(requests, "work", 1)
        if not work:
            raise ValueError("nobody is in the step: a step has at least one request; see also overhead()")
        self._wake()
        return work

    def _end_step(
        self, step: Step, start_ns: int | None, end_ns: int | None, outputs: dict[Request, int]
    ) -> None:
        with self._reporter.lock:
            if step.ended:
                raise ValueError("the step has ended already")
            if not self._book.is_under_way(step.token):  # begun before a fork, by the parent: its business
                step.ended = True
                return
            begun_ns = step.start_ns if start_ns is None else self._book.start_of(start_ns)
            span_ns = begun_ns, self._book.end_of(begun_ns, end_ns)
            self._book.drop(step.token)
            self._book.finish(step, span_ns, outputs)

    def _put(self, record: Record) -> None:
        if self.enabled:
            self._reporter.put(record)

    def _hello(self) -> Record:
        return self._identity.hello(self._now_ns(), time.time_ns(), self._instance_id)

    def _truth(self) -> Truth:
        return self._book.truth()

    def _fall_asleep(self) -> None:
        """In a forked child: what was open is the parent's; the first call wakes an engine of its own."""
        self._reporter.forget_parent()
        self._instance_id = new_instance()
        self._book = Book(self._put, self._now_ns, self._book.next_request)
        self._is_asleep = True

    def _wake(self) -> None:
        if not self._is_asleep:
            return
        with self._reporter.lock:
            is_first, self._is_asleep = self._is_asleep, False
        if is_first and self._is_threaded:
            self._reporter.start()


def _after_fork_in_child() -> None:
    for engine in list(_alive):
        engine._fall_asleep()


def _at_exit() -> None:
    for engine in list(_alive):
        engine.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
