"""What a sentence advises: it depends on which way a setting went, or the advice would do harm."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.diagnosis import diagnose
from joulescope.insight.diagnosis.latents import Latents
from joulescope.insight.diagnosis.levers import lever_of
from joulescope.insight.diagnosis.sentences import sentence_of
from tests.insight.diagnosis.windows import minutes


@lru_cache(maxsize=1)
def _latents() -> Latents:
    return diagnose(minutes(), minutes()).before.latents


def _said(cause: str, before: dict[str, Any], after: dict[str, Any], *, closed: bool = False) -> str:
    """The sentence of a cause that made tokens dearer, where these figures were so and became so."""
    ends = (replace(_latents(), **before), replace(_latents(), **after))
    return sentence_of(cause, 0.1, *ends, closed=closed)


def test_shorter_answers_are_not_to_be_made_still_shorter() -> None:
    """In a simulated service whose answers fell to 70 tokens, max_tokens doubled the joules of a token."""
    shorter = _said(causes.MIX, {"output_tokens": 227.0}, {"output_tokens": 70.0})
    assert "max_tokens" not in shorter
    assert "look at joules a request" in shorter
    assert "or set max_tokens" in _said(causes.MIX, {"output_tokens": 157.0}, {"output_tokens": 2497.0})


@pytest.mark.parametrize(
    ("before", "after", "advice"),
    [
        ({"max_num_seqs": 256}, {"max_num_seqs": 8}, "max_num_seqs 256 to 8"),
        ({"max_num_seqs": 256}, {"max_num_seqs": 8}, ": raise max-num-seqs to 256 again."),
        ({"max_num_seqs": 3}, {"max_num_seqs": 256}, ": lower max-num-seqs to 3 again."),
        (
            {"max_num_batched_tokens": 8192},
            {"max_num_batched_tokens": 256},
            ": raise max-num-batched-tokens to 8192 again.",
        ),
        (
            {"max_num_seqs": 64, "max_num_batched_tokens": 8192},
            {"max_num_seqs": 32, "max_num_batched_tokens": 16384},
            ": raise max-num-seqs to 64 again, and lower max-num-batched-tokens to 8192 again.",
        ),
    ],
)
def test_the_limit_that_changed_is_named_and_taken_back(
    before: dict[str, Any], after: dict[str, Any], advice: str
) -> None:
    """A larger batch is dearer where the KV cache does not hold it and requests are computed again."""
    assert advice in _said(causes.BATCH_LIMIT, before, after)


@pytest.mark.parametrize(
    ("before", "after", "advice"),
    [
        ({"power_limit_watts": 330.0}, {"power_limit_watts": 700.0}, "lower the limit or the clocks again"),
        ({"sm_clock_hertz": 1.2e9}, {"sm_clock_hertz": 1.98e9}, "lower the limit or the clocks again"),
        ({"power_limit_watts": 700.0}, {"power_limit_watts": 330.0}, "see who lowered clocks or the limit"),
        ({"throttled_ratio": 0.0}, {"throttled_ratio": 0.9}, "see who lowered clocks or the limit"),
    ],
)
def test_nobody_lowered_a_limit_that_was_raised(
    before: dict[str, Any], after: dict[str, Any], advice: str
) -> None:
    """Faster clocks need more voltage: where they made tokens dearer, they are to be lowered."""
    assert advice in _said(causes.CLOCKS, before, after)


@pytest.mark.parametrize(
    ("before", "after", "advice"),
    [
        ({"gpus": 1}, {"gpus": 2}, "or use fewer GPUs"),
        (
            {"gpus": 2},
            {"gpus": 1},
            "fewer GPUs hold less KV cache and so fewer requests at a time; add GPUs again",
        ),
        ({"gpu_name": "H100"}, {"gpu_name": "L40S"}, "H100 to L40S"),
        ({"gpu_name": "H100"}, {"gpu_name": "L40S"}, "side by side at the same load"),
    ],
)
def test_what_became_of_the_gpus_is_said(before: dict[str, Any], after: dict[str, Any], advice: str) -> None:
    """More of them, fewer of them, or others."""
    assert advice in _said(causes.LAYOUT, before, after)


@pytest.mark.parametrize(
    ("before", "after", "advice"),
    [
        ({"model": "llama-8b"}, {"model": "llama-70b"}, "Model llama-8b to llama-70b;"),
        ({"model": "llama-8b"}, {"model": "llama-70b"}, "another model is other work"),
        ({"quantization": "fp8"}, {"quantization": ""}, "Quantization fp8 to none"),
        ({"quantization": "fp8"}, {"quantization": ""}, "low precision pays at large batches"),
    ],
)
def test_the_model_is_named(before: dict[str, Any], after: dict[str, Any], advice: str) -> None:
    """Which one it was and which it is, or in which precision."""
    assert advice in _said(causes.MODEL, before, after)


@pytest.mark.parametrize(
    ("drafted", "advice"),
    [
        ((3.0, 0.0), "3.0 to 0.0: turn drafting on again"),
        ((3.0, 1.0), "draft as many tokens as before"),
        ((1.0, 6.0), "draft fewer tokens"),
        ((3.0, 3.0), "draft fewer tokens"),
    ],
)
def test_how_much_is_drafted_decides(drafted: tuple[float, float], advice: str) -> None:
    """Whoever has turned drafting off cannot draft less."""
    ends = [{"drafted_per_pass": each, "accepted_ratio": 0.5 if each else None} for each in drafted]
    assert advice in _said(causes.SPECULATION, *ends)


@pytest.mark.parametrize(("closed", "figure"), [(False, "requests_per_second"), (True, "present")])
def test_more_load_is_not_sent_to_fewer_replicas(closed: bool, figure: str) -> None:
    """Where more requests made tokens dearer, as in a KV cache that is too small for them."""
    more = _said(causes.LOAD, {figure: 3.0}, {figure: 24.0}, closed=closed)
    assert "send some to another replica" in more
    assert "fewer replicas" in _said(causes.LOAD, {figure: 24.0}, {figure: 3.0}, closed=closed)


def test_a_queue_is_not_sent_to_fewer_replicas() -> None:
    """Fewer requests come and more are there: the engine has become too slow for those it has."""
    said = _said(
        causes.LOAD,
        {"requests_per_second": 5.8, "present": 12.7},
        {"requests_per_second": 4.1, "present": 120.3},
    )
    assert "replica" not in said


def test_a_larger_kv_cache_has_no_lever() -> None:
    """Nothing is known to help there, and nothing is said."""
    assert lever_of(causes.KV_CAPACITY, _latents(), replace(_latents(), kv_cache_tokens=10**9)) == ""


@pytest.mark.parametrize(("lost", "worth_it"), [(0.04, False), (0.8, True)])
def test_another_gpu_has_to_save_more_than_it_draws(lost: float, worth_it: bool) -> None:
    """For a cache that cost 4 % a second GPU made it 48 %; for one that cost 80 % it saved four fifths."""
    small = {"kv_cache_tokens": 1000, "preempted_joules_ratio": lost}
    said = _said(causes.KV_CAPACITY, {}, small)
    assert "raise gpu-memory-utilization" in said
    assert ("add a GPU" in said) is worth_it


def test_what_made_tokens_cheaper_needs_no_lever() -> None:
    """The facts alone, with a full stop."""
    said = sentence_of(causes.HOST, -0.1, _latents(), _latents())
    assert said.endswith(".")
    assert "CPU" not in said
