"""The diagnosis that a running sidecar makes: the same as the command's, bounded, and in nobody's way."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from benchmarks.planted import Plant
from joulescope.cli.main import main
from joulescope.clock import ManualClock, SystemClock
from joulescope.config import Settings
from joulescope.daemon.daemon import Daemon
from joulescope.daemon.diagnoses import Diagnoses
from joulescope.daemon.diagnosis_process import MAX_BYTES, DiagnosisProcess, ProcessError
from joulescope.diagnosis_model import CAUSES, OUTCOMES
from joulescope.export.diagnosis_http import Question, Refusal, asked, diagnosis_page
from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.export.minute_ring import KeptMinute, MinuteRing
from joulescope.insight.diagnosis import causes
from joulescope.minute_model import EngineMinute
from tests.daemon.test_daemon import settings_in
from tests.export.samples import rich_snapshot
from tests.export.test_http import get
from tests.insight.diagnosis.windows import later, minutes

SETTINGS = Settings(diagnosis_last_seconds=120.0, diagnosis_before_seconds=3600.0)


def _named(window: Sequence[EngineMinute], engine: str, later_seconds: float = 0.0) -> list[EngineMinute]:
    return [replace(each, kind=replace(each.kind, engine=engine)) for each in later(window, later_seconds)]


def _ring(*engines: str) -> MinuteRing:
    """Engines of which each lost most of its batch within an hour."""
    ring = MinuteRing()
    for engine in engines:
        ring.take(_named(minutes(), engine))
        ring.take(_named(minutes(Plant("batch", 8)), engine, 3600.0))
    return ring


def _answering(script: str) -> DiagnosisProcess:
    """Another program in the place of the real one."""
    return DiagnosisProcess((sys.executable, "-c", script), timeout_seconds=0.5)


class Answering(DiagnosisProcess):
    """A function of the engines that were asked of, in the place of a process."""

    def __init__(self, answer: Callable[[Sequence[str | None]], list[dict[str, Any]]]) -> None:
        super().__init__()
        self._answer = answer

    def ask(
        self, before: Any, now: Any, engines: Sequence[str | None], closed_loop: bool | None = None
    ) -> list[dict[str, Any]]:
        return self._answer(engines)


@contextmanager
def _served(diagnoses: Diagnoses, ring: MinuteRing) -> Iterator[tuple[str, int]]:
    page = diagnosis_page(diagnoses.answer, 120.0, 3600.0)
    app = create_app(rich_snapshot, lambda: (True, "ready"), minutes=ring, diagnosis=page)
    server = HttpServer("127.0.0.1", 0, app)
    try:
        yield server.start()
    finally:
        server.stop()


def test_the_page_says_what_the_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Byte for byte, of the same minutes; of several engines the one that is named."""
    ring = _ring("a", "b")
    with _served(Diagnoses(ring, SystemClock(), SETTINGS, rest=0.0), ring) as address:
        source = f"http://{address[0]}:{address[1]}"
        url = f"{source}/api/v1/diagnosis?last=2m&before=1h&engine=b"
        with urllib.request.urlopen(url, timeout=60.0) as response:
            body = response.read()
            assert response.headers["content-type"] == "application/json"
        arguments = ["diagnose", source, "--last", "2m", "--before", "1h", "--engine", "b", "--json"]
        assert main(arguments) == 0
        assert body.decode() == capsys.readouterr().out
        assert json.loads(body)["first_cause"] == "batch_limit"
        assert get(address, "/api/v1/diagnosis?since=1")[0] == 400


def test_whoever_asks_may_say_that_clients_wait(capsys: pytest.CaptureFixture[str]) -> None:
    """As the command's flag does; and the answer is not taken for that of the question without it."""
    ring = _ring("a")
    with _served(Diagnoses(ring, SystemClock(), SETTINGS, rest=0.0), ring) as address:
        plain = get(address, "/api/v1/diagnosis")[2]
        status, _, body = get(address, "/api/v1/diagnosis?closed_loop=true")
        arguments = [
            "diagnose",
            f"http://{address[0]}:{address[1]}",
            "--last",
            "2m",
            "--closed-loop",
            "--json",
        ]
        assert main(arguments) == 0
    assert status == 200
    assert body.decode() == capsys.readouterr().out
    assert (json.loads(plain)["closed_loop"], json.loads(body)["closed_loop"]) == (False, True)


def test_windows_that_would_overlap_are_refused() -> None:
    """What is in both would hide what changed."""
    with pytest.raises(Refusal, match=r"windows of 120 min overlap if one ends 60 min before") as refused:
        Diagnoses(_ring("a"), SystemClock(), SETTINGS).answer(Question(7200.0, 3600.0))
    assert refused.value.status == 422


@pytest.mark.parametrize("engine", [None, "c"])
def test_which_engine_is_meant_has_to_be_said(engine: str | None) -> None:
    """Where there are several; and where there is none of that name, the answer says which there are."""
    with pytest.raises(Refusal, match=r"a, b") as refused:
        Diagnoses(_ring("a", "b"), SystemClock(), SETTINGS).answer(Question(120.0, 3600.0, engine))
    assert refused.value.status == 422


def test_all_engines_are_diagnosed_now_and_then() -> None:
    """What exporters get sums to the change, with every cause there is; counted, and with its time."""
    ring = _ring("a", "b")
    diagnoses = Diagnoses(ring, SystemClock(), SETTINGS)
    assert diagnoses.step() == SETTINGS.diagnosis_seconds
    totals = diagnoses.totals()
    assert [each.engine for each in totals.engines] == ["a", "b"]
    for each in totals.engines:
        change = each.joules_per_token["now"] - each.joules_per_token["before"]
        assert sum(each.parts.values()) == pytest.approx(change)
        assert set(each.parts) == set(each.errors) == set(CAUSES)
        assert each.first_cause == "batch_limit"
        assert each.end_wall_seconds["now"] == pytest.approx(
            each.end_wall_seconds["before"] + 3600.0, abs=0.1
        )
    assert totals.outcomes == {**dict.fromkeys(OUTCOMES, 0), "made": 2}
    assert totals.seconds > 0.0
    diagnoses.step()  # no minute came since: nothing is known of now
    assert diagnoses.totals().engines == ()


def test_the_causes_are_those_of_the_insight() -> None:
    """Exporters have their names without importing it."""
    assert tuple(causes.CAUSES) == CAUSES


def test_too_short_a_past_is_no_failure() -> None:
    """It is counted, and whoever asks is told what there is."""
    ring = MinuteRing()
    diagnoses = Diagnoses(ring, ManualClock(), SETTINGS)
    with pytest.raises(Refusal, match="no minute of an engine"):
        diagnoses.answer(Question(600.0, 3600.0))
    ring.take(minutes())
    diagnoses.step()
    with pytest.raises(Refusal, match="Give a shorter --before") as refused:
        diagnoses.answer(Question(600.0, 3600.0))
    assert refused.value.status == 422
    assert diagnoses.totals().outcomes["too_little"] == 3


@pytest.mark.parametrize(
    ("script", "outcome", "status", "message"),
    [
        ("import time; time.sleep(60)", "timeout", 504, "took longer"),
        ("import sys; sys.exit('numpy is gone')", "failed", 500, "ended with 1: numpy is gone"),
        ("print()", "failed", 500, "ended with 0: without an answer"),
    ],
)
def test_a_process_that_gives_no_answer(
    script: str, outcome: str, status: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is ended, counted, and said once; whoever asks is told."""
    ring = _ring("a")
    diagnoses = Diagnoses(ring, SystemClock(), SETTINGS, _answering(script))
    for _ in range(2):
        diagnoses.step()
        ring.take([])
        diagnoses._seen = 0
    assert caplog.text.count("no diagnosis") == 1
    with pytest.raises(Refusal, match=message) as refused:
        diagnoses.answer(Question(120.0, 3600.0))
    assert refused.value.status == status
    assert diagnoses.totals().outcomes[outcome] == 3


def test_a_program_that_is_not_there() -> None:
    """As where processes may not be started."""
    process = DiagnosisProcess(("/nowhere/python",))
    with pytest.raises(ProcessError, match="cannot be started: No such file") as refused:
        process.ask([], [], ["a"])
    assert refused.value.outcome == "failed"


def test_more_minutes_than_a_process_may_get() -> None:
    """Refused before any is unpacked; by itself the sidecar diagnoses engines in several processes."""
    ring = _ring("a", "b", "c")
    huge = [replace(each, size=MAX_BYTES // 8) for each in ring.kept()]
    assert len(huge) == 12

    class Ring(MinuteRing):
        def kept(self) -> list[KeptMinute]:
            return huge

    diagnoses = Diagnoses(Ring(), SystemClock(), SETTINGS)
    with pytest.raises(Refusal, match="24 MiB of minutes, and 16 are the most") as refused:
        diagnoses.answer(Question(120.0, 3600.0))
    assert refused.value.status == 413
    asked_of: list[Sequence[str | None]] = []

    def asked(engines: Sequence[str | None]) -> list[dict[str, Any]]:
        asked_of.append(engines)
        return [{"engine": each, "problem": "too little"} for each in engines]

    crowded = Ring()
    crowded.take(minutes())
    Diagnoses(crowded, SystemClock(), SETTINGS, Answering(asked)).step()
    assert asked_of == [["a", "b"], ["c"]]


def test_an_answer_is_made_once_for_the_same_minutes() -> None:
    """Whoever asks again gets it as it is, until there are new minutes."""
    ring, started = _ring("a"), 0

    def spawn(*args: Any, **more: Any) -> subprocess.Popen[bytes]:
        nonlocal started
        started += 1
        return subprocess.Popen(*args, **more)

    diagnoses = Diagnoses(ring, SystemClock(), SETTINGS, DiagnosisProcess(spawn=spawn), rest=0.0)
    first = diagnoses.answer(Question(120.0, 3600.0, "a"))
    assert (diagnoses.answer(Question(120.0, 3600.0, "a")), started) == (first, 1)
    ring.take(_named(minutes()[-1:], "a", 3600.0))
    diagnoses.answer(Question(120.0, 3600.0, "a"))
    assert started == 2


def test_whoever_asks_without_end_gets_a_fifth_of_a_core() -> None:
    """After one that took two seconds there is a rest of eight; what was made is told all the same."""
    clock = ManualClock()

    def slow(engines: Sequence[str | None]) -> list[dict[str, Any]]:
        clock.advance(2.0)
        return [{"engine": each, "diagnosis": {}} for each in engines]

    diagnoses = Diagnoses(_ring("a"), clock, SETTINGS, Answering(slow))
    diagnoses.answer(Question(120.0, 3600.0, "a"))
    clock.advance(5.0)
    diagnoses.answer(Question(120.0, 3600.0, "a"))
    with pytest.raises(Refusal, match="ask again in 3 s") as refused:
        diagnoses.answer(Question(120.0, 3600.0))
    response = diagnosis_page(diagnoses.answer, 120.0, 3600.0)(Request({"type": "http", "query_string": b""}))
    assert (refused.value.status, response.status_code, response.headers["retry-after"]) == (503, 503, "3")
    clock.advance(3.0)
    diagnoses.answer(Question(120.0, 3600.0))


def test_the_end_does_not_wait_for_a_diagnosis() -> None:
    """Its process is killed, and no other is started."""
    begun = threading.Event()

    def spawn(*args: Any, **more: Any) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(*args, **more)
        begun.set()
        return child

    process = DiagnosisProcess((sys.executable, "-c", "import time; time.sleep(60)"), spawn=spawn)
    diagnoses = Diagnoses(_ring("a"), SystemClock(), SETTINGS, process)
    diagnoses.start()
    assert begun.wait(10.0)
    diagnoses.stop(10.0)
    assert diagnoses.totals().outcomes["failed"] == 1
    with pytest.raises(ProcessError, match="the sidecar ends"):
        process.ask([], [], ["a"])


def test_the_worker_steps_back_for_everybody_else() -> None:
    """It is nice, the first to go where memory runs out, and has no more processor time than it may need."""
    script = (
        "import os, json, resource; from joulescope.insight.diagnosis.worker import step_back; step_back();"
        "print(json.dumps({'engine': [os.nice(0), open('/proc/self/oom_score_adj').read().strip(),"
        " resource.getrlimit(resource.RLIMIT_CPU)[0]]}))"
    )
    found = DiagnosisProcess((sys.executable, "-c", script)).ask([], [], [[10, "1000", 60]])  # type: ignore[list-item]
    assert len(found) == 1


def test_the_worker_says_what_is_wrong_with_its_question() -> None:
    """A line that is no minute ends it; the last line it says is in the message."""
    with pytest.raises(ProcessError, match=r"before:1: .*is no JSON"):
        DiagnosisProcess().ask([b"nonsense\n"], [], ["a"])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"last": "soon"}, "last: 'soon' is no stretch of time such as 10m"),
        ({"before": "0s"}, "before: '0s' is no stretch"),
        ({"window": "1h"}, "no parameter is called 'window'; there are last, before, engine, closed_loop"),
        ({"closed_loop": "1"}, "closed_loop: '1' is neither true nor false"),
    ],
)
def test_a_query_that_makes_no_sense(query: dict[str, str], message: str) -> None:
    """400, and what would make sense."""
    with pytest.raises(Refusal, match=message) as refused:
        asked(query, 600.0, 3600.0)
    assert refused.value.status == 400


def test_what_is_not_asked_for_is_as_the_settings_have_it() -> None:
    """Length of the windows, and time between them."""
    assert asked({}, 600.0, 3600.0) == Question(600.0, 3600.0)
    query = {"last": "5m", "engine": "a", "closed_loop": "false"}
    assert asked(query, 600.0, 3600.0) == Question(300.0, 3600.0, "a", closed_loop=False)


def test_the_sidecar_serves_it(tmp_path: Path) -> None:
    """Beside its other pages, by its own settings; and its metrics tell how often it was asked."""
    settings = replace(settings_in(tmp_path), listen="127.0.0.1:0", diagnosis_last_seconds=120.0)
    daemon = Daemon(settings, open_sensor=None, clock=SystemClock())
    daemon.start()
    try:
        status, _, body = get(daemon.address, "/api/v1/diagnosis")
        assert (status, body) == (422, b"this sidecar: there is no minute of an engine in it\n")
        daemon.publish()
        page = get(daemon.address, "/metrics")[2].decode()
    finally:
        daemon.close()
    assert 'joulescope_diagnosis_runs_total{outcome="too_little"} 1.0' in page
