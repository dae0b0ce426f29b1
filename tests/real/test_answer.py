"""Joules in the answers of a real vLLM: its own middleware option, the hook, and a sidecar beside it."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.sidecar import Sidecar, wait_until
from tests.real.vllm_env import EAGER, VllmServer, install_hook, make_model, vllm_python

pytestmark = pytest.mark.real

GPU = "GPU-5b1d3c5e-0000-4000-8000-000000000001"
LAYERS = 8
TOKEN = "not-a-secret"
ASKING = {"X-Joulescope": "estimate"}


@dataclass
class Reply:
    """What an HTTP server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def events(self) -> list[str]:
        """The events of a stream, as they stand in it."""
        return self.body.decode().split("\n\n")[:-1]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, as ``curl --unix-socket`` speaks it."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str
) -> Reply:
    sent = {"Content-Type": "application/json", **headers} if body is not None else headers
    try:
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        answer = connection.getresponse()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@dataclass
class World:
    """The parts while they run."""

    vllm: VllmServer
    sidecar: Sidecar
    answers: Path
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))

    def ask(self, body: dict[str, Any], path: str = "/v1/completions", **headers: str) -> Reply:
        """A request that is like no other, so that no prefix of it is cached."""
        given = {"model": "tiny", "max_tokens": 24, "ignore_eos": True, **body}
        if path == "/v1/completions":
            given.setdefault("prompt", [10 + next(self.numbers) % 390 for _ in range(20)])
        connection = http.client.HTTPConnection("127.0.0.1", self.vllm.port, timeout=120)
        return exchange(connection, "POST", path, given, **headers)

    def request(self, request_id: str, query: str = "") -> Reply:
        """The sidecar's word on a request, over its Unix socket."""
        path = f"/v1/requests/{urllib.parse.quote(request_id, safe='')}{query}"
        return exchange(UnixConnection(self.answers), "GET", path)

    def has_figure(self) -> bool:
        return "x-joulescope-energy-joules" in self.ask({}, **ASKING).headers

    def log_line(self, external_id: str) -> dict[str, Any]:
        (found,) = [line for line in self.sidecar.requests() if line["external_id"] == external_id]
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("answer")
    with ExitStack() as stack:
        driver = FakeDriver(folder / "nvml", [FakeGpu(uuid=GPU, live=True, power_watts=310.0)])
        answers = folder / "answers.sock"
        vllm = VllmServer(
            model=make_model(folder / "model", LAYERS),
            hook_path=install_hook(folder / "hook"),
            socket_path=folder / "js.sock",
            log_path=folder / "vllm.log",
            arguments=[
                "--middleware",
                "joulescope.answer.JoulescopeMiddleware",
                "--enable-prompt-tokens-details",
                EAGER,
            ],
            environment={
                "JOULESCOPE_ANSWER_SOCKET": str(answers),
                "JOULESCOPE_ANSWER_DEADLINE_MS": "1000",  # the machine of a test may be slow
                "JOULESCOPE_ANSWER_URL": "https://joules.example",
                "JOULESCOPE_TENANT_HEADER": "x-tenant",
                "JOULESCOPE_TASK_HEADER": "x-task",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            },
        )
        sidecar = Sidecar(
            vllm.socket_path,
            folder,
            {**environment(build(folder), driver), "REQUESTS_TOKEN": TOKEN},
            arguments=(
                *("--answer-socket", str(answers), "--request-api-token", "env:REQUESTS_TOKEN"),
                *("--task-from", "header,lengths,route", "--task-lengths", "long: output >= 60"),
                *("--tasks", "rag", "--max-tasks", "3"),
            ),
        )
        stack.callback(sidecar.kill)
        sidecar.start()
        stack.enter_context(vllm)
        made = World(vllm, sidecar, answers)
        wait_until(made.has_figure, "the first answer with a figure")
        yield made


def test_an_answer_carries_an_estimate_and_the_way_to_the_final_figure(world: World) -> None:
    """The figure stands in the head of a completion, and the account that it leads to is the log's."""
    answer = world.ask({}, **ASKING)
    answer_id = answer.json["id"]
    assert answer.headers["x-joulescope-request-id"] == answer_id
    assert answer.headers["x-joulescope-energy-final"] == "false"
    assert float(answer.headers["x-joulescope-energy-joules"]) > 0
    assert answer.headers["link"] == (
        f'<https://joules.example/v1/requests/{urllib.parse.quote(answer_id)}>; rel="describedby"'
    )
    final = world.request(answer_id, "?wait=5").json
    assert final["final"], final
    (account,) = final["requests"]
    assert account.pop("final") is True
    assert account == world.log_line(f"{answer_id}-0")
    assert final["attributed_joules"] == account["attributed_joules"] > 0


def test_several_choices_are_one_answer(world: World) -> None:
    """A chat with n = 3 is three requests of the engine under one id; their joules are summed."""
    body = {"messages": [{"role": "user", "content": "Count to twenty."}], "n": 3}
    answer = world.ask(body, "/v1/chat/completions", **ASKING)
    assert len(answer.json["choices"]) == 3
    final = world.request(answer.json["id"], "?wait=5").json
    assert final["final"]
    joules = [request["attributed_joules"] for request in final["requests"]]
    assert len(joules) == 3
    assert final["attributed_joules"] == pytest.approx(sum(joules))


def test_several_prompts_are_one_answer(world: World) -> None:
    """Prompts of one completion are numbered; the id of the answer leads to all of them."""
    answer = world.ask({"prompt": [[11, 12, 13], [21, 22, 23, 24]]}, **ASKING)
    final = world.request(answer.json["id"], "?wait=5").json
    names = {request["external_id"] for request in final["requests"]}
    assert final["final"]
    assert names == {f"{answer.json['id']}-0", f"{answer.json['id']}-1"}


def test_a_stream_has_one_more_event_for_who_asked(world: World) -> None:
    """It stands before the end, looks like a chunk, and nothing else of the stream is changed."""
    body = {"messages": [{"role": "user", "content": "Hello."}], "stream": True, "seed": 3, "temperature": 0}
    plain = world.ask(body, "/v1/chat/completions")
    asked = world.ask(body, "/v1/chat/completions", **ASKING)
    assert b"joulescope" not in plain.body
    *chunks, event, done = asked.events
    assert done == "data: [DONE]"
    told, first = json.loads(event.removeprefix("data: ")), json.loads(chunks[0].removeprefix("data: "))
    assert told["choices"] == []
    assert {name: told[name] for name in ("id", "object", "model")} == {
        name: first[name] for name in ("id", "object", "model")
    }
    assert told["joulescope"]["energy_joules"] > 0
    assert told["joulescope"]["request_id"] == first["id"]
    assert told["joulescope"]["final"] is False
    assert _said(chunks) == _said(plain.events[:-1])


def _said(chunks: Sequence[str]) -> tuple[str, list[Any], list[Any]]:
    """The text, roles and reasons to end of a stream: how vLLM cuts the text is a matter of its pace."""
    choices = [each for chunk in chunks for each in json.loads(chunk.removeprefix("data: "))["choices"]]
    return (
        "".join(each["delta"].get("content") or "" for each in choices),
        [each["delta"]["role"] for each in choices if "role" in each["delta"]],
        [each["finish_reason"] for each in choices if each["finish_reason"]],
    )


OPENAI_CLIENT = """
import json, sys
from openai import LengthFinishReasonError, OpenAI
client = OpenAI(base_url=sys.argv[1], api_key="none")
asked = dict(model="tiny", messages=[{"role": "user", "content": "Hello."}], max_tokens=8,
             extra_headers={"X-Joulescope": "estimate"})
chunks = list(client.chat.completions.create(stream=True, **asked))
with client.chat.completions.stream(**asked) as stream:
    for event in stream:
        pass
    try:
        whole = stream.get_final_completion()
    except LengthFinishReasonError as cut:  # put together, and then refused for being cut at max_tokens
        whole = cut.completion
raw = client.chat.completions.with_raw_response.create(**asked)
old = list(client.completions.create(model="tiny", prompt="Hello", max_tokens=8, stream=True,
                                     extra_headers={"X-Joulescope": "estimate"}))
print(json.dumps({
    "chunks": len(chunks), "choices": len(chunks[-1].choices), "told": chunks[-1].model_extra["joulescope"],
    "whole": whole.choices[0].message.content is not None, "header": raw.headers["x-joulescope-energy-final"],
    "old": old[-1].model_extra["joulescope"],
}))
"""


def test_the_openai_client_bears_it(world: World) -> None:
    """OpenAI's own Python client reads streams with the event, keeps the figure, and its helper that puts
    chunks together is not thrown off."""
    done = subprocess.run(
        [str(vllm_python()), "-c", OPENAI_CLIENT, f"{world.vllm.url}/v1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["choices"] == 0
    assert told["whole"]
    assert told["header"] == "false"
    for figure in (told["told"], told["old"]):
        assert set(figure) == {"energy_joules", "final", "request_id", "url"}


def test_who_does_not_ask_gets_what_vllm_made(world: World) -> None:
    """No header, and no trace of the middleware; an error of vLLM's is passed on to who asked too."""
    assert not [name for name in world.ask({}).headers if name.startswith("x-joulescope")]
    refused = world.ask({"max_tokens": -3}, **ASKING)
    assert refused.status == 400
    assert not [name for name in refused.headers if name.startswith("x-joulescope")]


def test_the_gateways_tenant_is_in_the_id_and_nobody_elses(world: World) -> None:
    """The header's tenant stands before the id; a client that writes one into its id, in the header or the
    body, does not become it."""
    gateway = world.ask({}, **ASKING, **{"X-Tenant": "acme", "X-Request-Id": "order-7"})
    assert gateway.json["id"] == "cmpl-acme~order-7"
    forged = world.ask({}, **ASKING, **{"X-Request-Id": "acme~order-8"})
    assert forged.json["id"] == "cmpl-acme-order-8"
    in_the_body = world.ask({"request_id": "acme~order-9"}, **ASKING)
    assert "~" not in in_the_body.json["id"]
    assert world.request("cmpl-acme~order-7", "?wait=5").json["final"]


def test_the_task_is_the_headers_or_follows_from_lengths_and_route(world: World) -> None:
    """What the client's header says, cleaned; else a rule on lengths; else vLLM's route. An id that looks as
    if the middleware had marked it says nothing, and made-up names without end are one class in the end."""
    chat = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 8}
    asked = {
        "rag": world.ask({}, **{"X-Task": "rag", "X-Tenant": "acme", "X-Request-Id": "t-1"}),
        "completion": world.ask({}, **{"X-Request-Id": "~rag~t-2"}),
        "chat": world.ask(chat, "/v1/chat/completions", **{"X-Task": "no plain name"}),
        "long": world.ask({"max_tokens": 70}, **{"X-Task": "x" * 32}),
    }
    assert asked["rag"].json["id"] == "cmpl-acme~rag~t-1"
    assert asked["completion"].json["id"] == "cmpl--rag-t-2"
    told = {name: world.request(answer.json["id"], "?wait=5").json for name, answer in asked.items()}
    assert {name: [each["task"] for each in one["requests"]] for name, one in told.items()} == {
        name: [name] for name in asked
    }
    for at in range(3):
        made_up = world.ask({"max_tokens": 2}, **{"X-Task": f"made-up-{at}"}).json["id"]
        (last,) = world.request(made_up, "?wait=5").json["requests"]
    assert last["task"] == "other"
    (engine,) = world.sidecar.snapshot().engines
    assert set(engine.tasks) == {"none", "other", "rag", "long", "completion", "chat", "made-up-0"}
    by_task = sum(sum(each.joules.values()) for each in engine.tasks.values())
    undecided = sum(engine.undecided_joules.values())
    assert by_task + undecided == pytest.approx(sum(engine.attributed_joules.values()), abs=1e-4)
    page = (world.sidecar.get("/metrics") or b"").decode()
    (long,) = re.findall(r"^joulescope_task_request_energy_joules_sum{.*task=\"long\"} (.*)$", page, re.M)
    assert float(long) == pytest.approx(told["long"]["attributed_joules"])


def test_the_sidecars_address_wants_the_token(world: World) -> None:
    """At the port the same account is there with the token only; the socket's permissions are its token."""
    answer_id = world.ask({}).json["id"]
    wait_until(lambda: world.request(answer_id).status == 200, "the sidecar to hear of it")
    path = f"/v1/requests/{answer_id}?wait=5"

    def at_the_port(**headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", world.sidecar.port, timeout=30)
        return exchange(connection, "GET", path, **headers)

    assert at_the_port().status == 401
    assert at_the_port(Authorization="Bearer wrong").status == 401
    account = at_the_port(Authorization=f"Bearer {TOKEN}").json
    assert account["final"]
    assert account["requests"] == world.request(answer_id).json["requests"]


def test_outcomes_of_answers_are_counted(world: World) -> None:
    """The middleware's own counts come out as a metric of the sidecar."""
    world.ask({}, **ASKING)
    world.ask({}, **ASKING)  # tells of the one before
    page = world.sidecar.get("/metrics") or b""
    wanted = b'joulescope_exported_requests_total{exporter="answer",outcome="estimated"}'

    def estimated() -> float:
        page = world.sidecar.get("/metrics") or b""
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(wanted))

    wait_until(lambda: estimated() > 0, f"answers in {page.decode()}")


def test_without_a_sidecar_answers_go_on(world: World) -> None:
    """Killed in the middle of a stream: all answers come, without joules, until there is a sidecar again."""
    connection = http.client.HTTPConnection("127.0.0.1", world.vllm.port, timeout=120)
    body = {"model": "tiny", "prompt": [5, 6, 7], "max_tokens": 200, "ignore_eos": True, "stream": True}
    headers = {"Content-Type": "application/json", **ASKING}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    stream = connection.getresponse()
    first = stream.readline()
    world.sidecar.kill()
    rest = stream.read().decode().split("\n\n")
    connection.close()
    assert first.startswith(b"data: {")
    assert rest[-2] == "data: [DONE]"
    assert json.loads(rest[-3].removeprefix("data: "))["joulescope"]["energy_joules"] is None

    def is_given_up() -> bool:
        """Questions side by side fail as one: how many it takes depends on how fast they are asked."""
        answer = world.ask({}, **ASKING)
        assert answer.status == 200
        assert answer.headers["x-joulescope-energy-final"] == "false"
        assert "x-joulescope-energy-joules" not in answer.headers
        return "answers go out without joules" in world.vllm.log_path.read_text()

    wait_until(is_given_up, "the middleware to ask no more")
    assert world.ask({}, **ASKING).status == 200
    world.sidecar.start()
    wait_until(world.has_figure, "figures after the restart of the sidecar")
    log = world.vllm.log_path.read_text()
    assert log.count("answers go out without joules") == 1
    assert "please report it" not in log
