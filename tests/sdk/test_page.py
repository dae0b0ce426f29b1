"""docs/sdk.md tells the truth: its first example runs as printed, and its numbers are the code's."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from joulescope.hook import wire
from joulescope.sdk import Cost, Engine, Step
from joulescope.sdk.book import MAX_OPEN_REQUESTS, MAX_UNDER_WAY
from joulescope.sdk.engine import MAX_LATE_SECONDS, log
from joulescope.sdk.reporter import POLL_SECONDS
from tests.hook.listener import Listener

PAGE = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text()
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n)+", PAGE, flags=re.MULTILINE)]
EXAMPLE = next(block for block in BLOCKS if "from joulescope.sdk import" in block)


def test_the_first_example_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pasted into a program, it reports one step of two requests, an image, and an end."""
    with Listener(tmp_path / "js.sock") as sidecar:
        monkeypatch.setenv("JOULESCOPE_SOCKET", sidecar.path)
        monkeypatch.delenv("JOULESCOPE_DISABLED", raising=False)
        torch = SimpleNamespace(cuda=SimpleNamespace(synchronize=lambda: None))
        names: dict[str, Any] = {"torch": torch, "denoise": lambda *_: None}
        exec(EXAMPLE, names)
        names["engine"].close()
        sidecar.wait_for(lambda: bool(sidecar.of(wire.Bye)))
        (step,), (ended,) = sidecar.of(wire.Step), sidecar.of(wire.RequestEnd)
        assert (step.request, step.sampled) == ([1, 2], [0, 1])
        assert (ended.request, ended.reason) == (2, "stop")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("every 20 ms", POLL_SECONDS == 0.02),
        ("At most 65,536 requests", MAX_OPEN_REQUESTS == 65_536),
        ("At most 1,024\n  steps", MAX_UNDER_WAY == 1024),
        ("5 s at most", MAX_LATE_SECONDS == 5),
        ("log `joulescope.sdk`", log.name == "joulescope.sdk"),
    ],
)
def test_numbers(text: str, value: bool) -> None:
    """Limits and names on the page are those of the code."""
    assert text in PAGE
    assert value


def test_every_name_on_the_page_exists() -> None:
    """Functions and arguments that the page mentions are there."""
    arguments = {*Engine.__init__.__annotations__, *Cost.__annotations__, *Step.end.__annotations__}
    arguments |= {*Engine.request_started.__annotations__, *Engine.report_step.__annotations__}
    named = set(re.findall(r"\b(\w+)=…", PAGE))
    assert {"start_ns", "weight_bytes"} <= named <= arguments
    called = set(re.findall(r"\bengine\.(\w+)", PAGE))
    assert {"step", "report_step", "dropped"} <= called
    assert all(hasattr(Engine, name) for name in called)
