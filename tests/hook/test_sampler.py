"""The hook's keeper of a sampler: when it starts one, how, and what it says if that cannot work."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.hook.sampler import CANNOT, SamplerKeeper, keeper_for, sampler_environment
from joulescope.hook.wire import Bye, Wanted, encode_frame, wanted_in

ENCODER = msgspec.msgpack.Encoder()
SECOND = 10**9
GPU = Wanted(gpus=["GPU-0"])


def payload(*records: Any) -> bytes:
    return ENCODER.encode(list(records))


class Bench:
    """A keeper whose samplers are processes that do what the test says, and a clock by hand."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.now_ns = 0
        self.started: list[subprocess.Popen[bytes]] = []
        self.options: dict[str, Any] = {}
        self.command: list[str] = []
        self.code = "import time; time.sleep(60)"
        self.keeper = SamplerKeeper(
            "/run/s", ("i", 3), environ=environ or {}, spawn=self.spawn, now_ns=lambda: self.now_ns
        )

    def spawn(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        self.command, self.options = command, options
        child = subprocess.Popen([sys.executable, "-c", self.code], stderr=options["stderr"])
        self.started.append(child)
        return child

    def ask(self, wanted: Wanted = GPU) -> None:
        self.keeper.turn([payload(wanted)])

    def fail(self, words: str, code: int = 3) -> None:
        """A sampler that is asked for, says so much and ends."""
        self.code = f"import sys; print('noise\\n' + {words!r}, file=sys.stderr); sys.exit({code})"
        self.ask()
        self.started[-1].wait(30)
        self.keeper.turn([])


def test_it_starts_one_when_asked_and_no_second() -> None:
    """By exec, apart from the engine's descriptors, terminal and standard streams, and for this engine."""
    bench = Bench()
    bench.keeper.turn([])
    assert bench.started == []
    bench.ask()
    bench.ask()
    (child,) = bench.started
    assert bench.keeper.pid == child.pid
    assert bench.command[:3] == [sys.executable, "-m", "joulescope.inside"]
    told = dict(zip(bench.command[3::2], bench.command[4::2], strict=True))
    assert told == {
        "--socket": "/run/s",
        "--instance": "i",
        "--index": "3",
        "--parent": str(os.getpid()),
    }
    assert bench.options["close_fds"]
    assert bench.options["start_new_session"]
    assert "preexec_fn" not in bench.options
    bench.keeper.close()
    assert child.poll() is not None
    bench.ask()
    assert len(bench.started) == 1


def test_a_forked_child_leaves_its_parent_s_sampler_alone() -> None:
    """It neither ends it nor waits for it; should it report itself, it may have one of its own."""
    bench = Bench()
    bench.ask()
    (child,) = bench.started
    pid = os.fork()
    if not pid:
        bench.keeper.turn([])
        os._exit(0 if bench.keeper.pid is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert child.poll() is None
    bench.keeper.close()
    assert child.poll() is not None


def test_a_wish_that_is_taken_back_starts_nothing() -> None:
    """While it waits out a pause, the sidecar may change its mind."""
    bench = Bench()
    bench.fail("no driver")
    bench.ask()
    bench.ask(Wanted())
    bench.now_ns += 100 * SECOND
    bench.keeper.turn([])
    assert len(bench.started) == 1


def test_one_that_fails_is_tried_again_ever_more_seldom(caplog: pytest.LogCaptureFixture) -> None:
    """Ten seconds later, then twenty; the engine's log has one line, with the sampler's last words."""
    bench = Bench()
    with caplog.at_level(logging.WARNING, "vllm.joulescope"):
        for pause_seconds in (10, 20, 40):
            begun = len(bench.started)
            bench.fail("no driver here")
            assert len(bench.started) == begun + 1
            bench.ask()
            bench.now_ns += (pause_seconds - 1) * SECOND
            bench.ask()
            assert len(bench.started) == begun + 1
            bench.now_ns += SECOND
    (line,) = caplog.messages
    assert line == "joulescope: this engine's GPUs are not read here: no driver here"


def test_one_that_can_never_work_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Without a binding of NVML another try would end the same."""
    bench = Bench()
    bench.fail("nvidia-ml-py is not installed", CANNOT)
    bench.now_ns += 10_000 * SECOND
    bench.ask()
    assert len(bench.started) == 1
    assert "nvidia-ml-py" in caplog.text


def test_one_that_was_sent_away_may_be_asked_for_again_soon() -> None:
    """An end without an error is no failure."""
    bench = Bench()
    for _ in range(3):
        bench.fail("", 0)
        bench.now_ns += SECOND
    assert len(bench.started) == 3


def test_a_process_that_cannot_start_another_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """No memory, no permission: one line, and never an exception into the emitter."""

    def refuse(*_: Any, **__: Any) -> subprocess.Popen[bytes]:
        raise PermissionError("not in this container")

    keeper = SamplerKeeper("/run/s", ("i", 0), spawn=refuse)
    for _ in range(3):
        keeper.turn([payload(GPU)])
    (line,) = caplog.messages
    assert "not in this container" in line


def test_only_what_the_driver_needs_is_handed_on() -> None:
    """Preloaded allocators, vLLM's settings and secrets stay behind; the sampler finds this joulescope."""
    kept = sampler_environment(
        {
            "PATH": "/bin",
            "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64",
            "NVIDIA_VISIBLE_DEVICES": "all",
            "JOULESCOPE_DISABLED": "0",
            "PYTHONPATH": "relative:/absolute",
            "LD_PRELOAD": "libjemalloc.so",
            "VLLM_API_KEY": "secret",
            "HF_TOKEN": "secret",
            "PYTHONSTARTUP": "/tmp/x.py",
        }
    )
    here = str(Path(__file__).parents[2])
    assert kept.pop("PYTHONPATH").split(":") == [os.path.abspath("relative"), "/absolute", here]
    assert kept == {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "JOULESCOPE_DISABLED": "0",
        "PYTHONSAFEPATH": "1",
    }


CHOICES = [
    ("", "cuda", None, True),
    ("auto", "cpu", None, False),
    ("auto", "cuda", "6.4", False),
    ("on", "cpu", None, True),
    ("ON ", "cuda", "6.4", True),
    ("off", "cuda", None, False),
    ("yes", "cuda", None, False),
]


@pytest.mark.parametrize(("choice", "device", "hip", "offered"), CHOICES)
def test_which_engines_offer_one(
    choice: str,
    device: str,
    hip: str | None,
    offered: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By themselves those on NVIDIA GPUs, all or none as the variable says; a word that is none of the three
    is named."""
    torch = ModuleType("torch")
    torch.version = SimpleNamespace(hip=hip)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    config = SimpleNamespace(device_config=SimpleNamespace(device_type=device))
    keeper = keeper_for(config, "/run/s", ("i", 0), {"JOULESCOPE_SAMPLER": choice})
    assert (keeper is not None) == offered
    assert ("JOULESCOPE_SAMPLER cannot be 'yes'" in caplog.text) == (choice == "yes")


def test_the_last_wish_counts_and_other_words_are_passed_over() -> None:
    """A later sidecar may say more than this hook understands."""
    later = ENCODER.encode([{"type": "novelty", "x": 1}, {"type": "wanted", "gpus": ["GPU-1"], "new": True}])
    assert wanted_in([payload(GPU), later, payload(Bye(time_ns=0))]) == Wanted(gpus=["GPU-1"])
    assert wanted_in([b"", b"\xc1", payload()]) is None


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_no_bytes_can_hurt(payloads: list[bytes]) -> None:
    """Whatever comes from the far end, it is a wish or nothing."""
    assert wanted_in(payloads) is None or True
    wanted = wanted_in(payloads)
    assert wanted is None or isinstance(wanted, Wanted)


def test_frames_are_made_by_one_function() -> None:
    """What the sidecar sends is a frame like the hook's own."""
    frame = encode_frame([GPU], ENCODER)
    assert wanted_in([frame[4:]]) == GPU
