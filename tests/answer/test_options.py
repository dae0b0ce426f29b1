"""The environment of the middleware: what it asks for, and what is said of what it cannot."""

from __future__ import annotations

import pytest

from joulescope.answer.options import Options


def read(**environ: str) -> tuple[Options, list[str]]:
    complaints: list[str] = []
    names = {f"JOULESCOPE_{name}": value for name, value in environ.items()}
    return Options.of(names, complaints.append), complaints


def test_without_variables_it_answers_who_asks() -> None:
    """The socket is looked for where a sidecar would have it."""
    options, complaints = read()
    assert options == Options("asked", "/run/joulescope/answers.sock", 0.02, "", b"")
    assert complaints == []


def test_every_variable_is_heeded() -> None:
    """Names of headers are compared in lower case."""
    options, complaints = read(
        ANSWER="All",
        ANSWER_SOCKET="/s/a.sock",
        ANSWER_DEADLINE_MS="5",
        ANSWER_URL="https://j.example/base/",
        TENANT_HEADER="X-Tenant",
        TASK_HEADER="X-Task",
    )
    assert options == Options("all", "/s/a.sock", 0.005, "https://j.example/base", b"x-tenant", b"x-task")
    assert complaints == []


def test_the_socket_is_beside_the_hooks() -> None:
    """Who names one socket need not name the other."""
    assert read(SOCKET="/shared/js.sock")[0].socket_path == "/shared/answers.sock"


@pytest.mark.parametrize(
    ("name", "value", "holds"),
    [
        ("ANSWER", "yes", Options(mode="off")),
        ("ANSWER_DEADLINE_MS", "soon", Options()),
        ("ANSWER_DEADLINE_MS", "0", Options()),
        ("ANSWER_DEADLINE_MS", "nan", Options()),
        ("ANSWER_DEADLINE_MS", "5000", Options()),
        ("ANSWER_URL", "j.example", Options()),
        ("ANSWER_URL", "https://j.example/\r\nset-cookie: x", Options()),
        ("ANSWER_URL", 'https://j.example/">', Options()),
        ("TENANT_HEADER", "x tenant", Options()),
        ("TASK_HEADER", "x:task", Options()),
    ],
)
def test_what_cannot_be_is_said_and_the_default_holds(name: str, value: str, holds: Options) -> None:
    """One line that names the variable; what to answer is then nothing."""
    options, complaints = read(**{name: value})
    assert options == holds
    (complaint,) = complaints
    assert f"JOULESCOPE_{name}" in complaint
