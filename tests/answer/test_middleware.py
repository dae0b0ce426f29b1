"""The middleware between a server and its client: what it adds, and that it takes nothing away."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.answer import JoulescopeMiddleware
from joulescope.answer.asgi import Message, Scope
from joulescope.answer.facts import Facts
from joulescope.answer.reply import Reply
from joulescope.answer.sidecar import Figure
from tests.answer.bench import JSON_HEAD, STREAM_HEAD, App, Client, answered, body, nothing, peer, scope_of

ASKING = (b"x-joulescope", b"estimate")
COMPLETION = (
    b'{"id":"cmpl-7f3a","object":"text_completion","usage":{"prompt_tokens":9,"completion_tokens":4}}'
)
CHUNK = b'data: {"id":"cmpl-7f3a","object":"text_completion","created":5,"model":"m","choices":[]}\n\n'
DONE = b"data: [DONE]\n\n"


def run(app: App, scope: Scope, socket: Path, **environ: str) -> Client:
    """One request through a middleware with this environment."""
    client = Client()
    variables = {
        "JOULESCOPE_ANSWER_SOCKET": str(socket),
        "JOULESCOPE_ANSWER_DEADLINE_MS": "1000",
        **environ,
    }

    async def through() -> None:
        async with peer(socket):
            await JoulescopeMiddleware(app, variables)(scope, nothing, client)

    asyncio.run(through())
    return client


def test_a_json_answer_gets_headers_and_keeps_its_body(tmp_path: Path) -> None:
    """The estimate, whether it is final, the id, and where operators gave an address a link."""
    app = App([JSON_HEAD, body(COMPLETION)])
    client = run(app, scope_of(headers=[ASKING]), tmp_path / "a", JOULESCOPE_ANSWER_URL="https://j.example/")
    assert client.headers == {
        "content-length": "99",
        "content-type": "application/json",
        "x-joulescope-energy-joules": "12.500000",
        "x-joulescope-energy-final": "false",
        "x-joulescope-request-id": "cmpl-7f3a",
        "link": '<https://j.example/v1/requests/cmpl-7f3a>; rel="describedby"',
    }
    assert client.messages[1:] == [body(COMPLETION)]


def test_a_stream_gets_one_event_before_its_end(tmp_path: Path) -> None:
    """For who asked it is a chunk like the others, without choices."""
    app = App([STREAM_HEAD, body(CHUNK, True), body(CHUNK, True), body(DONE, True), body(b"")])
    client = run(app, scope_of(headers=[ASKING]), tmp_path / "a")
    *chunks, event, done, end = client.bodies
    assert (chunks, done, end) == ([CHUNK, CHUNK], DONE, b"")
    assert json.loads(event.removeprefix(b"data: ")) == {
        "id": "cmpl-7f3a",
        "object": "text_completion",
        "created": 5,
        "model": "m",
        "choices": [],
        "joulescope": {"energy_joules": 12.5, "final": False, "request_id": "cmpl-7f3a"},
    }
    assert client.messages[0] is STREAM_HEAD


def test_who_did_not_ask_gets_a_comment_where_all_get_one(tmp_path: Path) -> None:
    """Readers of event streams skip a line that begins with a colon."""
    app = App([STREAM_HEAD, body(CHUNK, True), body(DONE)])
    client = run(app, scope_of(), tmp_path / "a", JOULESCOPE_ANSWER="all")
    (event,) = [each for each in client.bodies if each not in (CHUNK, DONE)]
    assert event.startswith(b': joulescope {"energy_joules": 12.5')
    assert event.endswith(b"}\n\n")
    assert b"\n" not in event[:-2]


@pytest.mark.parametrize(
    ("scope", "environ"),
    [
        (scope_of(), {}),
        (scope_of(headers=[(b"x-joulescope", b"whatever")]), {}),
        (scope_of(headers=[(b"x-joulescope", b"off")]), {"JOULESCOPE_ANSWER": "all"}),
        (scope_of(headers=[ASKING]), {"JOULESCOPE_ANSWER": "off"}),
        (scope_of(headers=[ASKING]), {"JOULESCOPE_DISABLED": "1", "JOULESCOPE_ANSWER": "all"}),
        (scope_of("/tokenize", headers=[ASKING]), {}),
        ({**scope_of(headers=[ASKING]), "method": "GET"}, {}),
        ({"type": "websocket", "path": "/v1/realtime", "headers": [ASKING]}, {"JOULESCOPE_ANSWER": "all"}),
        ({"type": "lifespan"}, {"JOULESCOPE_ANSWER": "all"}),
    ],
)
def test_everything_else_goes_through_as_it_is(tmp_path: Path, scope: Scope, environ: dict[str, str]) -> None:
    """Not even an object stands in between."""
    app = App([JSON_HEAD, body(COMPLETION)])
    client = run(app, scope, tmp_path / "a", **environ)
    assert client.messages == app.messages
    assert app.sends == [client]
    assert app.scopes[0] is scope


@pytest.mark.parametrize("mode", ["off", "asked"])
def test_the_headers_names_reach_vllm_in_the_id(tmp_path: Path, mode: str) -> None:
    """With or without a figure in the answer; the scope of the server is left as it is."""
    scope = scope_of(headers=[(b"x-task", b"rag"), (b"x-tenant", b"acme"), (b"x-request-id", b"1")])
    app = App([JSON_HEAD, body(COMPLETION)])
    names = {"JOULESCOPE_TASK_HEADER": "X-Task", "JOULESCOPE_TENANT_HEADER": "X-Tenant"}
    run(app, scope, tmp_path / "a", **names, JOULESCOPE_ANSWER=mode)
    assert dict(app.scopes[0]["headers"])[b"x-request-id"] == b"acme~rag~1"
    assert dict(scope["headers"])[b"x-request-id"] == b"1"


@pytest.mark.parametrize(
    "messages",
    [
        [{**JSON_HEAD, "status": 400}, body(b'{"error":"no"}')],
        [{**JSON_HEAD, "headers": [*JSON_HEAD["headers"], (b"content-encoding", b"gzip")]}, body(COMPLETION)],
        [{**JSON_HEAD, "headers": [(b"content-type", b"text/plain")]}, body(COMPLETION)],
        [{"type": "http.response.start", "status": 200}, body(COMPLETION)],
        [JSON_HEAD, {"type": "http.response.pathsend", "path": "/x"}],
        [JSON_HEAD, body(b"[1, 2]")],
        [STREAM_HEAD, body(b"event: message_stop\ndata: {}\n\n")],
        [STREAM_HEAD, body(b"data: {}\n\ndata: [DO", True), body(b"NE]\n\n")],
        [STREAM_HEAD, body(b"data: {}\n\n", True), body(DONE)],
        [STREAM_HEAD],
        [body(b"no head")],
    ],
)
def test_an_answer_without_a_place_for_a_figure_is_left_alone(
    tmp_path: Path, messages: list[Message]
) -> None:
    """Errors, other kinds of bodies, encoded ones, streams that end otherwise."""
    assert run(App(messages), scope_of(headers=[ASKING]), tmp_path / "a").messages == messages


def test_what_vllm_leaves_in_the_state_is_what_is_asked_with(tmp_path: Path) -> None:
    """Id and token counts of the request's metadata, instance of the server, and instants of the clock."""
    asked: list[str] = []
    state = SimpleNamespace(vllm_config=SimpleNamespace(instance_id="i-7"))
    scope = scope_of(headers=[ASKING], app=SimpleNamespace(state=state))
    details = SimpleNamespace(cached_tokens=16)
    usage = SimpleNamespace(prompt_tokens=40, completion_tokens=7, prompt_tokens_details=details)

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        metadata = SimpleNamespace(request_id="chatcmpl-ä b", final_usage_info=usage)
        scope["state"]["request_metadata"] = metadata
        await send(JSON_HEAD)
        await send(body(COMPLETION))

    async def through() -> Client:
        def answer(question: str) -> bytes:
            asked.append(question.split(" ")[1])
            return answered()

        client, instants = Client(), iter((1000, 2000))
        async with peer(tmp_path / "a", answer):
            environ = {
                "JOULESCOPE_ANSWER_SOCKET": str(tmp_path / "a"),
                "JOULESCOPE_ANSWER_DEADLINE_MS": "1000",
            }
            await JoulescopeMiddleware(app, environ, lambda: next(instants))(scope, nothing, client)
        return client

    client = asyncio.run(through())
    target = urlsplit(asked[0])
    assert target.path == "/v1/requests/chatcmpl-%C3%A4%20b"
    assert {name: values[0] for name, values in parse_qs(target.query).items()} == {
        "brief": "1",
        "since_ns": "1000",
        "until_ns": "2000",
        "prompt_tokens": "40",
        "cached_tokens": "16",
        "output_tokens": "7",
        "instance": "i-7",
    }
    assert "x-joulescope-request-id" not in client.headers  # no header holds such a letter


def test_without_a_sidecar_the_answer_says_that_no_figure_is_known(tmp_path: Path) -> None:
    """The way to the final figure is still in it."""
    client, app = Client(), App([JSON_HEAD, body(COMPLETION)])
    environ = {"JOULESCOPE_ANSWER_SOCKET": str(tmp_path / "nobody")}
    asyncio.run(JoulescopeMiddleware(app, environ)(scope_of(headers=[ASKING]), nothing, client))
    assert client.headers["x-joulescope-energy-final"] == "false"
    assert client.headers["x-joulescope-request-id"] == "cmpl-7f3a"
    assert "x-joulescope-energy-joules" not in client.headers


def test_an_error_of_the_application_comes_out_before_anything_was_sent(tmp_path: Path) -> None:
    """A head that is held back does not keep the server from answering with 500."""
    client = Client()
    app = App([JSON_HEAD], then=RuntimeError("engine died"))
    middleware = JoulescopeMiddleware(app, {"JOULESCOPE_ANSWER_SOCKET": str(tmp_path / "nobody")})
    with pytest.raises(RuntimeError, match="engine died"):
        asyncio.run(middleware(scope_of(headers=[ASKING]), nothing, client))
    assert client.messages == []


def test_a_client_that_hangs_up_is_the_servers_affair(tmp_path: Path) -> None:
    """What ``send`` raises goes to the application, as without the middleware."""

    async def gone(message: Message) -> None:
        raise OSError("disconnected")

    app = App([JSON_HEAD, body(COMPLETION)])
    middleware = JoulescopeMiddleware(app, {"JOULESCOPE_ANSWER_SOCKET": str(tmp_path / "nobody")})
    with pytest.raises(OSError, match="disconnected"):
        asyncio.run(middleware(scope_of(headers=[ASKING]), nothing, gone))


def test_a_bug_costs_the_figure_and_one_line_of_log(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """A scope as no server makes one, and a message that breaks the middleware, pass untouched."""
    environ = {"JOULESCOPE_ANSWER_SOCKET": str(tmp_path / "nobody")}
    broken_head = {"type": "http.response.start", "headers": 5, "status": 200}
    app, client = App([broken_head, body(COMPLETION)]), Client()
    middleware = JoulescopeMiddleware(app, environ)
    with caplog.at_level(logging.WARNING, "vllm.joulescope"):
        asyncio.run(middleware(scope_of(headers=[ASKING]), nothing, client))
        asyncio.run(middleware({"type": "http", "method": "POST"}, nothing, client))
    assert client.messages == app.messages * 2
    assert len([line for line in caplog.messages if "please report it" in line]) == 1


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.just(CHUNK), st.just(DONE), st.binary(max_size=40)), max_size=8),
    st.booleans(),
    st.sampled_from([JSON_HEAD, STREAM_HEAD]),
    st.sampled_from([None, Figure(1.0, True), RuntimeError("bug")]),
)
def test_nothing_is_changed_lost_or_moved(
    parts: list[bytes], as_event: bool, head: Message, outcome: Figure | Exception | None
) -> None:
    """Whatever comes in whatever pieces: without the one event that may be put in, the bytes are the same."""
    client = Client()

    async def ask(facts: Facts, came_ns: int) -> Figure | None:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def through() -> None:
        reply = Reply(scope_of(), client, ask, as_event=as_event, complain=lambda error: None)
        await reply(head)
        for part in parts:
            await reply(body(part, True))
        await reply(body(b""))

    asyncio.run(through())
    sent = b"".join(client.bodies)
    assert [message["type"] for message in client.messages].count("http.response.start") == 1
    added = [each for each in client.bodies if b'"energy_joules"' in each]
    assert len(added) <= 1
    for event in added:
        sent = sent.replace(event, b"", 1)
    assert sent == b"".join(parts)
    assert client.messages[-1]["more_body"] is False


def test_it_imports_nothing_that_vllm_might_lack() -> None:
    """The API server's process gets modules of the standard library and of this package, no others."""
    code = (
        "import sys; before = set(sys.modules); import joulescope.answer; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} "
        "- set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['joulescope']"
