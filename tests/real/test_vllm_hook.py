"""The hook in a real vLLM server (CPU, tiny random Llama), its records read by a plain listener.

Needs about three minutes and an environment with vLLM (see ``vllm_env``).
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from joulescope.hook.wire import Gap, Hello, Progress, RequestEnd, RequestStart, Step
from tests.hook.listener import Listener, Session
from tests.real.api import Answer, Client
from tests.real.vllm_env import EAGER, VllmServer, install_hook, make_model

pytestmark = pytest.mark.real

PREFIX = "A server counts tokens, joules and seconds, and divides them fairly. " * 4
SETTLE_SECONDS = 30.0

OWN_SCHEDULER = """
from vllm.v1.core.sched.scheduler import Scheduler


class OwnScheduler(Scheduler):
    def schedule(self, *args, **kwargs):
        return super().schedule(*args, **kwargs)
"""


@dataclass
class Account:
    """What the records say about one request."""

    start: RequestStart
    end: RequestEnd | None = None
    scheduled: int = 0
    recomputed: int = 0
    sampled: int = 0
    cached: int = 0
    drafted: int = 0
    high_water: int = 0
    steps: list[int] = field(default_factory=list)

    def add(self, step: int, context: int, scheduled: int, sampled: int) -> None:
        self.steps.append(step)
        self.scheduled += scheduled
        self.sampled += sampled
        self.recomputed += max(0, min(self.high_water, context + scheduled) - context)
        self.high_water = max(self.high_water, context + scheduled)


def accounts(session: Session) -> dict[int, Account]:
    """Adds up the records of a session by request."""
    found: dict[int, Account] = {}
    for record in list(session.records):
        if isinstance(record, RequestStart):
            assert record.request not in found, "a request was started twice"
            found[record.request] = Account(record)
        elif isinstance(record, RequestEnd):
            assert found[record.request].end is None, "a request was ended twice"
            found[record.request].end = record
        elif isinstance(record, Step):
            count_step(found, record)
    return found


def count_step(found: dict[int, Account], step: Step) -> None:
    ones = [1] * len(step.request)
    columns = (step.request, step.context, step.scheduled or ones, step.sampled or ones)
    assert len({len(column) for column in columns}) == 1, "columns are not parallel"
    for handle, context, scheduled, sampled in zip(*columns, strict=True):
        found[handle].add(step.step, context, scheduled, sampled)
    for handle, local, external in step.cached:
        found[handle].cached += local + external
    for handle, count in step.drafted:
        found[handle].drafted += count


@dataclass
class Rig:
    """A server, its client, and the session of its engine."""

    server: VllmServer
    client: Client
    listener: Listener

    def session(self) -> Session:
        """The newest session of the engine itself."""
        return [each for each in self.listener.sessions if is_engine(each)][-1]

    def settled(self) -> dict[int, Account]:
        """The accounts once all that happened before now has arrived and every request has ended."""
        asked_ns = time.monotonic_ns()
        self.listener.wait_for(lambda: all_told(self.session(), asked_ns), SETTLE_SECONDS)
        return accounts(self.session())


def is_engine(session: Session) -> bool:
    first = session.records[0] if session.records else None
    return isinstance(first, Hello) and first.role == "engine"


def all_told(session: Session, until_ns: int) -> bool:
    progress = session.of(Progress)[-1]
    if progress.time_ns < until_ns or progress.pending_since_ns is not None:
        return False
    started = {each.request for each in session.of(RequestStart)}
    ends = session.of(RequestEnd)
    newest = max((each.step for each in session.of(Step)), default=0)
    return started == {each.request for each in ends} and all((e.final_step or 0) <= newest for e in ends)


@pytest.fixture(scope="module")
def hook_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_hook(tmp_path_factory.mktemp("hook"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def start_server(directory: Path, model: Path, hook_path: Path, *arguments: str) -> VllmServer:
    return VllmServer(
        model=model,
        hook_path=hook_path,
        socket_path=directory / "s",
        log_path=directory / "vllm.log",
        arguments=["--max-model-len", "512", "--enable-prompt-tokens-details", *arguments],
    )


@pytest.fixture(scope="module")
def rig(hook_path: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A compiled server with so few KV blocks that requests preempt each other. It starts, and answers,
    before anything listens at the socket."""
    directory = tmp_path_factory.mktemp("plain")
    small_cache = ("--block-size", "32", "--num-gpu-blocks-override", "24", "--max-num-batched-tokens", "256")
    with start_server(directory, model, hook_path, *small_cache) as server:
        client = Client(server.url)
        assert client.complete("before", "Nobody listens yet.", 4).output_tokens == 4
        with Listener(server.socket_path) as listener:
            listener.wait_for(lambda: any(map(is_engine, listener.sessions)))
            yield Rig(server, client, listener)


def test_greeting(rig: Rig) -> None:
    """The engine says who it is and what its model costs, admits what nobody heard, and the worker which
    device it drives."""
    records = rig.session().records
    hello, gap = records[0], records[1]
    assert isinstance(hello, Hello)
    assert hello.engine is not None
    facts = hello.engine
    assert (facts.served_model, facts.dtype, facts.device) == ("tiny", "bfloat16", "cpu")
    assert (facts.block_size, facts.kv_cache_tokens, facts.max_model_len) == (32, 24 * 32, 512)
    assert facts.vllm_version.startswith("0.")
    assert facts.cost.source == "vllm"
    parameters = 2 * (128 * 8 * 32 + 4 * 32 * 128 + 3 * 128 * 256) + 128 * 512
    assert facts.cost.weight_bytes == pytest.approx(2 * parameters, rel=0.05)
    assert facts.cost.kv_bytes_per_token == 2 * 2 * 2 * 32 * 2
    assert {"progress", "steps", "ends", "cached_split", "drafts", "gauges", "dummy_batch"} <= set(
        hello.capabilities
    )
    assert isinstance(gap, Gap)
    assert gap.reason == "disconnected"
    assert gap.dropped >= 1  # of six; what the thread had not taken up when it connected, it told
    rig.listener.wait_for(lambda: any(h.role == "worker" for h in rig.listener.of(Hello)))
    worker = next(h.worker for h in rig.listener.of(Hello) if h.role == "worker")
    assert worker is not None
    assert (worker.instance_id, worker.device, worker.gpu) == (facts.instance_id, "cpu", "")


def send_mixed(client: Client) -> list[Answer]:
    """Sixty requests at once: short and long, with a common prefix, chats, and some cut off."""

    def job(number: int) -> Answer | None:
        prompt = f"{PREFIX if number % 3 == 0 else ''}Number {number} of many. " * (1 + number % 4)
        if number % 10 == 7:
            client.abort(f"cut{number}", prompt)
            return None
        if number % 10 == 4:
            return client.chat(f"r{number}", prompt, 10 + number)
        return client.complete(f"r{number}", prompt, 10 + number)

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(job, range(60)))
    return [answer for answer in answers if answer is not None]


def check_identity(account: Account) -> None:
    """Tokens computed = prompt - cached + generated - 1 (the last token is never computed), plus what was
    computed twice."""
    assert account.end is not None
    assert account.end.output_tokens is not None
    expected = account.start.prompt_tokens - account.cached + account.end.output_tokens - 1
    assert account.scheduled - account.recomputed == expected
    assert account.sampled == account.end.output_tokens


def by_answer(found: dict[int, Account]) -> dict[str, list[Account]]:
    """Accounts under the id that the API gave its answer: a completion adds the number of the prompt."""
    grouped: dict[str, list[Account]] = defaultdict(list)
    for account in found.values():
        external = account.start.external_id
        grouped[external if external.startswith("chatcmpl-") else external.rpartition("-")[0]].append(account)
    return grouped


def test_every_answered_request_is_there_once(rig: Rig) -> None:
    """Under its own id, with the prompt, cached and output tokens of the API's usage, and with an account of
    scheduled tokens that closes; aborts, preemptions and vLLM's own counters agree too."""
    totals_before = {name: rig.client.counter(name) for name in COUNTERS}
    earlier = set(rig.settled())
    answers = send_mixed(rig.client)
    new = {handle: each for handle, each in rig.settled().items() if handle not in earlier}
    grouped = by_answer(new)
    assert len(answers) == 54
    for answer in answers:
        (account,) = grouped[answer.id]
        assert account.end is not None
        assert account.start.prompt_tokens == answer.prompt_tokens
        assert account.cached == answer.cached_tokens
        assert account.end.output_tokens == answer.output_tokens
        assert account.end.reason == answer.finish_reasons[0] == "length"
        check_identity(account)
    cut = [account for account in new.values() if account.start.external_id.startswith("cmpl-cut")]
    reasons = Counter(account.end.reason for account in cut if account.end)
    assert reasons.total() == 6
    assert reasons.keys() <= {"abort", "length"}  # a server this fast may finish before it notices
    assert len(new) == len(answers) + len(cut)
    assert sum(answer.cached_tokens for answer in answers) > 0
    check_counters(rig, new, totals_before)


COUNTERS = (
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:num_preemptions_total",
)


def check_counters(rig: Rig, new: dict[int, Account], before: dict[str, float]) -> None:
    """vLLM counts in the API server, which does not hear all of a request that was just aborted: its last
    tokens, and its preemptions since the last token, are missing there."""
    grown = {name: rig.client.counter(name) - before[name] for name in COUNTERS}
    everyone = list(new.values())
    kept = [account for account in everyone if account.end and account.end.reason != "abort"]
    generated = sum(account.sampled for account in everyone)
    aborted = len(everyone) - len(kept)
    assert generated - 2 * aborted <= grown["vllm:generation_tokens_total"] <= generated
    prompts_of_all, prompts_of_kept = (sum(e.start.prompt_tokens for e in each) for each in (everyone, kept))
    assert prompts_of_kept <= grown["vllm:prompt_tokens_total"] <= prompts_of_all
    preempted = sum(len(step.preempted) for step in rig.session().of(Step))
    of_all, of_kept = (sum(e.end.preemptions or 0 for e in each if e.end) for each in (everyone, kept))
    assert preempted == of_all > 0
    assert of_kept <= grown["vllm:num_preemptions_total"] <= of_all
    assert sum(account.recomputed for account in everyone) > 0


def test_several_answers_to_one_request(rig: Rig) -> None:
    """With ``n`` = 3 each child is a request of its own, under the one id that the API answered with."""
    answer = rig.client.complete("triple", "Three times please.", 5, n=3)
    children = by_answer(rig.settled())[answer.id]
    assert sum(account.end.output_tokens or 0 for account in children if account.end) == answer.output_tokens
    assert len(children) == 3


def test_steps_tile_time(rig: Rig) -> None:
    """Steps are numbered without holes, and the four instants of each are in order."""
    steps = rig.session().of(Step)
    first = steps[0].step
    assert [step.step for step in steps] == list(range(first, first + len(steps)))
    for step in steps:
        instants = [step.schedule_start_ns, step.schedule_end_ns, step.output_start_ns, step.output_end_ns]
        assert instants == sorted(instants)
    assert all(now.schedule_start_ns >= before.output_end_ns for before, now in pairwise(steps))


def test_sidecar_killed_and_restarted(rig: Rig) -> None:
    """While nobody listens vLLM answers as before; the next listener hears of the gap, of a request that
    was under way, and gets whole accounts of later ones."""
    socket_path = rig.server.socket_path
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(rig.client.complete, "long", "Long.", 480)
        rig.listener.wait_for(lambda: "cmpl-long-0" in ids_started(rig.listener))
        rig.listener.close()
        assert rig.client.complete("unheard", "Nobody listens.", 5).output_tokens == 5
        with Listener(socket_path) as again:
            again.wait_for(lambda: any(map(is_engine, again.sessions)), SETTLE_SECONDS)
            other = Rig(rig.server, rig.client, again)
            answer = rig.client.complete("later", "Someone listens again.", 20)
            assert long.result().output_tokens == 480
            found = other.settled()
            check_identity(by_answer(found)[answer.id][0])
            assert "cmpl-unheard-0" not in ids_started(again)
            assert all(each.start.resumed for each in by_answer(found).get("cmpl-long", []))
            assert [type(each) for each in other.session().records[:2]] == [Hello, Gap]


def ids_started(listener: Listener) -> set[str]:
    return {start.external_id for start in listener.of(RequestStart)}


def test_speculation_traces_and_a_foreign_scheduler(hook_path: Path, model: Path, tmp_path: Path) -> None:
    """In a server with n-gram speculation, tracing, and a scheduler class of its own that overrides
    ``schedule``: drafts and accepted tokens equal vLLM's counters, trace headers arrive, accounts close."""
    (hook_path / "own_scheduler.py").write_text(OWN_SCHEDULER)
    server = start_server(
        tmp_path,
        model,
        hook_path,
        EAGER,
        *("--scheduler-cls", "own_scheduler.OwnScheduler"),
        *("--otlp-traces-endpoint", "http://127.0.0.1:9"),
        "--speculative-config",
        '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3, "prompt_lookup_min": 1}',
    )
    with Listener(server.socket_path) as listener, server:
        client = Client(server.url)
        rig = Rig(server, client, listener)
        parent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
        body = {"prompt": "one two three " * 30, "max_tokens": 60, "ignore_eos": True, "temperature": 0}
        client.post("/v1/completions", body, "traced", {"traceparent": parent})
        found = rig.settled()
        (account,) = found.values()
        facts = rig.session().records[0].engine
        assert facts.scheduler_class == "own_scheduler.OwnScheduler"
        assert facts.speculative == "ngram:4"
        assert account.start.trace_parent == parent
        assert account.drafted == client.counter("vllm:spec_decode_num_draft_tokens_total") > 0
        accepted = account.sampled - len(account.steps)
        assert accepted <= client.counter("vllm:spec_decode_num_accepted_tokens_total")
        assert account.end is not None
        assert account.sampled == account.end.output_tokens == 60
        rejected = account.scheduled - (account.start.prompt_tokens + 60 - 1)
        assert rejected == account.recomputed


def test_pipeline(hook_path: Path, model: Path, tmp_path: Path) -> None:
    """With two pipeline stages two steps are under way at once; every account closes, and both workers
    belong to the engine."""
    few_tokens = ("--max-num-batched-tokens", "128")  # so that one step does not take all requests
    # Compiled: vLLM's second stage on a CPU has no buffer for the first one's output otherwise.
    server = start_server(tmp_path, model, hook_path, "--pipeline-parallel-size", "2", *few_tokens)
    server.environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    with Listener(server.socket_path) as listener, server:
        rig = Rig(server, Client(server.url), listener)
        answers = send_mixed(rig.client)
        grouped = by_answer(rig.settled())
        for answer in answers:
            (account,) = grouped[answer.id]
            assert account.cached == answer.cached_tokens
            check_identity(account)
        steps = rig.session().of(Step)
        assert any(now.schedule_start_ns < before.output_start_ns for before, now in pairwise(steps))
        engine = rig.session().records[0]
        workers = [hello for hello in listener.of(Hello) if hello.worker is not None]
        assert {hello.worker.pipeline_parallel_rank for hello in workers} == {0, 1}
        assert {hello.worker.instance_id for hello in workers} == {engine.engine.instance_id}
        assert {hello.ppid for hello in workers} == {engine.pid}


def test_off_without_a_socket(hook_path: Path, model: Path, tmp_path: Path) -> None:
    """Switched off by JOULESCOPE_DISABLED the hook leaves no word in the log and no connection."""
    server = start_server(tmp_path, model, hook_path, EAGER)
    server.environment["JOULESCOPE_DISABLED"] = "1"
    with Listener(server.socket_path) as listener, server:
        assert Client(server.url).complete("off", "Nothing to report.", 3).output_tokens == 3
        assert listener.sessions == []
    assert "joulescope:" not in server.log_path.read_text(errors="replace")
