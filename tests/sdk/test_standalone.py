"""The SDK in processes of its own: nothing but the standard library, forks, and ends of all kinds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from joulescope.hook import wire
from tests.hook.listener import Listener

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "diffusion_loop.py"


def run(code: str, *options: str, **environ: str) -> str:
    """Runs code in a fresh interpreter that finds joulescope; gives what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOULESCOPE_")}
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**inherited, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top != "joulescope":
            raise ImportError(f"{name} is not of the standard library")

sys.meta_path.insert(0, Blocker())
"""

LIFE = """
from joulescope.sdk import Engine
with Engine("painter", gpus=["GPU-a"], unit="image") as engine:
    request = engine.request_started("r1")
    with engine.step({request: 4}) as step:
        step.produced([request])
    engine.request_ended(request)
"""


def test_it_needs_the_standard_library_only(tmp_path: Path) -> None:
    """In an interpreter that sees no installed package, and refuses each, an engine reports a whole life."""
    with Listener(tmp_path / "js.sock") as sidecar:
        run(BLOCKED + LIFE, "-S", JOULESCOPE_SOCKET=sidecar.path)
        sidecar.wait_for(lambda: bool(sidecar.sessions and sidecar.sessions[0].ended))
        (step,) = sidecar.of(wire.Step)
        assert (step.scheduled, step.sampled) == ([4], [])
        assert len(sidecar.of(wire.RequestEnd)) == len(sidecar.of(wire.Bye)) == 1


def test_the_blocker_blocks() -> None:
    """The check above can fail: what is not of the standard library cannot be imported there."""
    with pytest.raises(AssertionError, match="msgspec is not of the standard library"):
        run(BLOCKED + "import joulescope.hook.wire")


def test_importing_it_starts_nothing() -> None:
    """Until an engine is made there is no thread, and none of the packages that the sidecar needs."""
    shown = run(
        "import sys, threading, joulescope.sdk;"
        "print(threading.active_count(), [m for m in ('msgspec', 'numpy') if m in sys.modules])"
    )
    assert shown.split() == ["1", "[]"]


def test_a_script_that_just_ends_says_goodbye(tmp_path: Path) -> None:
    """Without a call of close, what was reported last is delivered at the interpreter's exit."""
    code = LIFE.replace("with Engine", "if engine := Engine").replace(") as engine:", "):")
    with Listener(tmp_path / "js.sock") as sidecar:
        run(code, JOULESCOPE_SOCKET=sidecar.path)
        sidecar.wait_for(lambda: bool(sidecar.sessions and sidecar.sessions[0].ended))
        assert [type(record) for record in sidecar.records if not isinstance(record, wire.Progress)] == [
            wire.Hello,
            wire.RequestStart,
            wire.Step,
            wire.RequestEnd,
            wire.Bye,
        ]


FORK = """
import os
from joulescope.sdk import Engine
engine = Engine("painter", gpus=["GPU-a"])
parents = engine.request_started("parents")
step = engine.step([parents])
if os.fork() == 0:
    step.end()
    try:
        engine.request_ended(parents)
    except ValueError as error:
        assert "of this process" in str(error), error
    childs = engine.request_started("childs")
    engine.step([childs]).end()
    engine.close()
    os._exit(0)
assert os.wait()[1] == 0
if os.fork() == 0:
    engine.close()
    os._exit(0)
assert os.wait()[1] == 0
step.end()
engine.request_ended(parents)
engine.close()
"""


def test_a_forked_child_is_an_engine_of_its_own(tmp_path: Path) -> None:
    """A child that reports gets a session of its own, one that does not has none; the parent's goes on."""
    with Listener(tmp_path / "js.sock") as sidecar:
        run(FORK, JOULESCOPE_SOCKET=sidecar.path)
        sidecar.wait_for(lambda: len(sidecar.sessions) == 2 and all(each.ended for each in sidecar.sessions))
        told = {
            session.of(wire.RequestStart)[0].request_id: session
            for session in sidecar.sessions
            if session.of(wire.RequestStart)
        }
        assert set(told) == {"parents", "childs"}
        for session in told.values():
            assert len(session.of(wire.Step)) == len(session.of(wire.Bye)) == 1
        assert len(told["parents"].of(wire.RequestEnd)) == 1
        hellos = [session.of(wire.Hello)[0] for session in told.values()]
        assert len({hello.pid for hello in hellos}) == 2
        assert len({hello.engine.instance_id for hello in hellos}) == 2


def example(*arguments: str, **environ: str) -> str:
    """Runs the example as a user would; gives what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOULESCOPE_")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        env={**inherited, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("environ", [{}, {"JOULESCOPE_DISABLED": "1"}])
def test_the_example_runs_without_a_sidecar(tmp_path: Path, environ: dict[str, str]) -> None:
    """The image server serves all its images where nobody listens, and where reporting is switched off."""
    nobody = str(tmp_path / "nobody.sock")
    shown = example("--images", "5", "--seconds-per-patch", "1e-6", JOULESCOPE_SOCKET=nobody, **environ)
    assert shown.splitlines()[-1] == "5 images; no sidecar listens"


def test_the_example_reports_what_it_prints(tmp_path: Path) -> None:
    """Images, patches and warm-up reach a sidecar as the example says them."""
    with Listener(tmp_path / "js.sock") as sidecar:
        shown = example("--images", "6", "--gpu", "GPU-a", JOULESCOPE_SOCKET=sidecar.path)
        sidecar.wait_for(lambda: bool(sidecar.of(wire.Bye)))
        work: dict[int, int] = {}
        images = 0
        for step in sidecar.of(wire.Step):
            images += sum(step.sampled or [1] * len(step.request))
            for request, patches in zip(step.request, step.scheduled, strict=True):
                work[request] = work.get(request, 0) + patches
        names = {start.request: start.request_id for start in sidecar.of(wire.RequestStart)}
        printed = dict(re.findall(r"^(\S+): .*, (\d+) patches", shown, flags=re.MULTILINE))
        assert {names[request]: str(patches) for request, patches in work.items()} == printed
        assert images == 6
        assert len(sidecar.of(wire.Overhead)) == 1
        assert shown.splitlines()[-1] == "6 images; a sidecar listens"
