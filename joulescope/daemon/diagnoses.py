"""Why joules per token changed, told by the running sidecar: now and then by itself, and to whoever asks."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from joulescope.clock import Clock
from joulescope.config import Settings
from joulescope.daemon.diagnosis_process import MAX_BYTES, DiagnosisProcess, ProcessError
from joulescope.diagnosis_model import CAUSES, NO_CAUSE, OUTCOMES, DiagnosisTotals, EngineDiagnosis
from joulescope.errors import MinuteError
from joulescope.export.diagnosis_http import Question, Refusal
from joulescope.export.minute_ring import KeptMinute, MinuteRing
from joulescope.insight.diagnosis.recent import two_windows
from joulescope.periodic import Periodic

_logger = logging.getLogger(__name__)

_PLACE = "this sidecar"
_MOST_REMEMBERED = 8
_STATUSES = {"too_much": 413, "timeout": 504, "failed": 500}
_WAIT_SECONDS = 5.0
"""So long whoever asks waits for another's diagnosis to be made."""

REST = 4.0
"""After one that was asked for there is a rest of so many times what it took: whoever asks without end gets a
fifth of a core, which in a container is the sidecar's own."""


class Diagnoses:
    """Compares the last minutes of a ring with earlier ones, in processes of their own, one at a time.

    Args:
        process: makes them; a seam for tests.
        rest: see :data:`REST`.
    """

    def __init__(
        self,
        ring: MinuteRing,
        clock: Clock,
        settings: Settings,
        process: DiagnosisProcess | None = None,
        rest: float = REST,
    ) -> None:
        self._ring, self._clock = ring, clock
        self._pause_seconds = settings.diagnosis_seconds
        self._last, self._before = settings.diagnosis_last_seconds, settings.diagnosis_before_seconds
        self._process = process or DiagnosisProcess()
        self._rest, self._rests_until_ns = rest, 0
        self._busy = threading.Lock()
        self._periodic = Periodic("diagnosis", self.step)
        self._outcomes = dict.fromkeys(OUTCOMES, 0)
        self._seconds = 0.0
        self._engines: tuple[EngineDiagnosis, ...] = ()
        self._seen = 0
        self._remembered: OrderedDict[tuple[Question, int], bytes] = OrderedDict()
        self._failing = False

    def start(self) -> None:
        if self._pause_seconds:
            self._periodic.start()

    def stop(self, timeout_seconds: float) -> None:
        """Ends the process that computes, if one does: nothing is lost by that."""
        self._process.end()
        self._periodic.stop(timeout_seconds)

    def totals(self) -> DiagnosisTotals:
        """For exporters; may be called from any thread."""
        return DiagnosisTotals(
            is_on=self._pause_seconds > 0.0,
            engines=self._engines,
            outcomes=dict(self._outcomes),
            seconds=self._seconds,
        )

    # --------------------------------------------------------------------------------------- by itself

    def step(self) -> float:
        """Diagnoses every engine anew; returns the pause until the next time.

        Where no minute came since the last time nothing is known of now, and no diagnosis is shown.
        """
        seen, self._seen = self._seen, self._ring.taken
        if self._seen == seen:
            self._engines = ()
        else:
            with self._busy:
                self._engines = tuple(self._all(self._ring.kept()))
        return self._pause_seconds

    def _all(self, kept: Sequence[KeptMinute]) -> list[EngineDiagnosis]:
        try:
            old, new = two_windows(_PLACE, _by_begin(kept), self._last, self._before)
        except MinuteError:
            self._outcomes["too_little"] += 1
            return []
        labels = sorted({each.engine for each in old} & {each.engine for each in new} - {""})
        found = []
        for some in self._in_turns(labels, (*old, *new)):
            try:
                answers = self._ask(_of(old, some), _of(new, some), some)
            except ProcessError as error:
                self._complain(error)
                continue
            self._failing = False
            found += [engine_of(each["diagnosis"]) for each in answers if "diagnosis" in each]
        return found

    def _in_turns(self, labels: Sequence[str], minutes: Sequence[KeptMinute]) -> list[list[str]]:
        """Engines by the process that is to diagnose them: no more minutes at once than it may get."""
        turns: list[list[str]] = []
        room = 0
        for label in labels:
            size = sum(each.size for each in minutes if each.engine == label)
            if size > room or not turns:
                turns.append([])
                room = MAX_BYTES
            turns[-1].append(label)
            room -= size
        return turns

    def _complain(self, error: ProcessError) -> None:
        if not self._failing:
            self._failing = True
            _logger.warning("no diagnosis: %s; accounting goes on, and it is tried again", error)

    # ------------------------------------------------------------------------------------ for who asks

    def answer(self, question: Question) -> bytes:
        """JSON of the diagnosis of an engine, as ``joulescope diagnose --json`` tells it.

        Raises:
            Refusal: there is none, and why.
        """
        if not self._busy.acquire(timeout=_WAIT_SECONDS):
            raise Refusal(503, "another diagnosis is being made; try again", _WAIT_SECONDS)
        try:
            key = (question, self._ring.taken)
            if key not in self._remembered:
                self._remembered[key] = self._rested(question)
            while len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)
            return self._remembered[key]
        finally:
            self._busy.release()

    def _rested(self, question: Question) -> bytes:
        begin_ns = self._clock.now_ns()
        left_seconds = (self._rests_until_ns - begin_ns) / 1e9
        if left_seconds > 0.0:
            raise Refusal(503, f"one was made just now; ask again in {left_seconds:.0f} s", left_seconds)
        try:
            return self._made(question)
        finally:
            end_ns = self._clock.now_ns()
            self._rests_until_ns = end_ns + round(self._rest * (end_ns - begin_ns))

    def _made(self, question: Question) -> bytes:
        kept, engine = _by_begin(self._ring.kept()), question.engine
        try:
            old, new = two_windows(_PLACE, kept, question.last_seconds, question.before_seconds)
            answers = self._ask(_of(old, [engine]), _of(new, [engine]), [engine], question.closed_loop)
        except MinuteError as error:
            self._outcomes["too_little"] += 1
            raise Refusal(422, str(error)) from None
        except ProcessError as error:
            raise Refusal(_STATUSES[error.outcome], f"no diagnosis: {error}") from None
        if "problem" in answers[0]:
            raise Refusal(422, answers[0]["problem"])
        return json.dumps(answers[0]["diagnosis"], allow_nan=False).encode() + b"\n"

    def _ask(
        self,
        old: Sequence[KeptMinute],
        new: Sequence[KeptMinute],
        engines: Sequence[str | None],
        closed_loop: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Counts what becomes of it.

        Raises:
            ProcessError: no answer came.
        """
        begin_ns = self._clock.now_ns()
        try:
            size = sum(each.size for window in (old, new) for each in window)
            if size > MAX_BYTES:
                raise ProcessError(
                    "too_much",
                    f"the two windows hold {size >> 20} MiB of minutes, and {MAX_BYTES >> 20} are the most; "
                    "take shorter ones, name the engine, or run joulescope diagnose elsewhere",
                )
            lines = ([each.line() for each in old], [each.line() for each in new])
            answers = self._process.ask(*lines, engines, closed_loop)
        except ProcessError as error:
            self._outcomes[error.outcome] += len(engines)
            raise
        finally:
            self._seconds += (self._clock.now_ns() - begin_ns) / 1e9
        for each in answers:
            self._outcomes["made" if "diagnosis" in each else "too_little"] += 1
        return answers


def _of(window: Sequence[KeptMinute], engines: Sequence[str | None]) -> Sequence[KeptMinute]:
    """Minutes of these engines; all where there are none, so that the answer can say which there are."""
    return [each for each in window if each.engine in engines] or window


def _by_begin(kept: Sequence[KeptMinute]) -> list[KeptMinute]:
    """As the command sorts what it reads."""
    return sorted(kept, key=lambda each: each.start_wall_seconds)


def engine_of(told: dict[str, Any]) -> EngineDiagnosis:
    """What exporters tell of a diagnosis."""
    sides = {"before": told["before"], "now": told["after"]}
    parts = {each["cause"]: each for each in told["parts"]}
    return EngineDiagnosis(
        engine=told["engine"],
        joules_per_token={name: side["joules_per_token"] for name, side in sides.items()},
        start_wall_seconds={name: side["start_wall_seconds"] for name, side in sides.items()},
        end_wall_seconds={name: side["end_wall_seconds"] for name, side in sides.items()},
        parts={name: parts[name]["joules_per_token"] if name in parts else 0.0 for name in CAUSES},
        errors={name: parts[name]["standard_error"] if name in parts else 0.0 for name in CAUSES},
        first_cause=told["first_cause"] or NO_CAUSE,
    )
