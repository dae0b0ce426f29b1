"""Baselines as files: what is written is read back, and what is wrong is said by name."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.baselines.file import (
    MAX_BYTES,
    decode_baseline,
    decode_baselines,
    encode_baseline,
    encode_baselines,
    read_baseline,
    write_baseline,
)
from joulescope.errors import BaselineError
from joulescope.model import CostFacts
from tests.baselines.samples import baseline

figures = st.floats(min_value=1e-30, max_value=1e30)


@given(
    name=st.text(max_size=40).filter(lambda text: not any("\ud800" <= each <= "\udfff" for each in text)),
    times=st.tuples(*[figures] * 5),
    joules=st.tuples(*[figures] * 5),
    scale=figures,
)
def test_what_is_written_is_read_back(
    name: str, times: tuple[float, ...], joules: tuple[float, ...], scale: float
) -> None:
    """To the last digit: a baseline is compared with for months."""
    made = baseline(name=name, time_coefficients=times, energy_coefficients=joules, scale=scale)
    assert decode_baseline(encode_baseline(made), "here") == made


def test_a_file_of_format_1_is_as_sure_as_it_was() -> None:
    """Its covariances were those of more noise than there is, and were made smaller as a whole."""
    made = baseline()
    read = decode_baseline(change("joulescope_baseline", to=1), "here")
    for name in ("time_covariance", "energy_covariance"):
        assert np.array(getattr(read, name)) == pytest.approx(0.285**2 * np.array(getattr(made, name)))
    same = replace(read, time_covariance=made.time_covariance, energy_covariance=made.energy_covariance)
    assert same == made


def test_a_file_can_be_read_by_people() -> None:
    """Indented, with its format named first."""
    lines = encode_baseline(baseline()).decode().splitlines()
    assert lines[:2] == ["{", '  "joulescope_baseline": 2,']


def change(*path: str, to: object) -> bytes:
    """The sample's file with one field changed."""
    fields: dict[str, Any] = json.loads(encode_baseline(baseline()))
    holder = fields
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = to
    return json.dumps(fields).encode()


def use(**more: int) -> dict[str, int]:
    """How the cache fared with one class of prompts."""
    return {"up_to_tokens": 256, "requests": 1, "prompt_tokens": 20, "cached_tokens": 9, **more}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "not a baseline"),
        (b"{}", "joulescope_baseline"),
        (change("joulescope_baseline", to=3), "format 3, this version reads 1 and 2: make the baseline anew"),
        (change("name", to=7), r"`str`.*\$\.name"),
        (change("identity", "gpu_count", to=0), "identity.gpu_count must be 1 at least"),
        (change("identity", "gpu_count", to="one"), r"\$\.identity\.gpu_count"),
        (change("time_coefficients", to=[1.0]), "time_coefficients has 1 values, 5 are needed"),
        (change("energy_coefficients", to=[1.0] * 6), "energy_coefficients has 6 values, 5 are needed"),
        (
            change("energy_coefficients", to=[1, 1, 1, 1, -1]),
            "energy_coefficients must be finite and above 0",
        ),
        (change("time_covariance", to=[[1.0]]), "time_covariance must be 5 rows of 5 finite values"),
        (change("energy_covariance", to=[]), "energy_covariance must be 5 rows of 5 finite values"),
        (change("scale", to=0), "scale must be finite and above 0"),
        (change("scatter", to=-1), "scatter must be finite and not below 0"),
        (change("unevenness", to=1.5), "unevenness must lie between 0 and 1"),
        (change("wait_seconds", to=[-1, 0]), "wait_seconds must be finite and not below 0"),
        (
            change("energy_covariance", to=[[-float(row == at) for at in range(5)] for row in range(5)]),
            "energy_covariance has a variance below 0",
        ),
        (change("created_wall_seconds", to=1e300), "between the years 1970 and 9999"),
        (change("cost", "flops_per_token", to=-1.0), "cost.flops_per_token must be finite and not below 0"),
        (change("cache", to=[use(requests=0)]), r"cache\[0\] must have a request at least"),
        (
            change("cache", to=[use(), use(cached_tokens=30)]),
            r"cache\[1\] must have .* no more cached_tokens",
        ),
        (change("cache", to=[use(cached_tokens=-1)]), r"cache\[0\]"),
        (change("source", to="guessed"), "source must be 'pinned' or 'learned'"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(text: bytes, message: str) -> None:
    with pytest.raises(BaselineError, match=message) as caught:
        decode_baseline(text, "folder/a.json")
    assert str(caught.value).startswith("folder/a.json: ")


def test_mixtures_have_two_more_coefficients_of_time() -> None:
    cost = CostFacts("vllm", 60e9, 1e5, 6e9, 1e5, 1e9, 58e9, 0.0625)
    text = encode_baseline(baseline(cost=cost))
    with pytest.raises(BaselineError, match="5 values, 7 are needed for this model"):
        decode_baseline(text, "a.json")


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_words(text: bytes) -> None:
    with pytest.raises(BaselineError):
        decode_baseline(text, "a.json")


def test_several_go_into_one_page_and_back() -> None:
    """By engine; what is wrong with one is said with its engine."""
    both = {"a": baseline(), "b\n": baseline(scale=3.0)}
    assert decode_baselines(encode_baselines(both), "here") == both
    assert decode_baselines(encode_baselines({}), "here") == {}
    broken = encode_baselines(both).replace(b'"source": "learned"', b'"source": "guessed"', 1)
    with pytest.raises(BaselineError, match="here, engine 'a': source must be"):
        decode_baselines(broken, "here")
    for text in (b"", b"[]", b"{}", b'{"baselines": 7}', b"<html>"):
        with pytest.raises(BaselineError, match="here: not a sidecar's baselines"):
            decode_baselines(text, "here")


def test_files_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    """Missing, a folder, too large; and a folder that cannot be written to."""
    with pytest.raises(BaselineError, match=r"absent\.json: cannot be read: No such file"):
        read_baseline(tmp_path / "absent.json")
    with pytest.raises(BaselineError, match="cannot be read"):
        read_baseline(tmp_path)
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(BaselineError, match="so no baseline"):
        read_baseline(large)
    with pytest.raises(BaselineError, match=r"b\.json: cannot be written: No such file"):
        write_baseline(tmp_path / "nowhere" / "b.json", baseline())


def test_writing_leaves_the_file_whole_or_as_it_was(tmp_path: Path) -> None:
    """Beside it first, then renamed; nothing is left over, and others may read it."""
    path = tmp_path / "a.json"
    write_baseline(path, baseline())
    write_baseline(path, baseline(scale=2.0))
    assert read_baseline(path).scale == 2.0
    assert os.listdir(tmp_path) == ["a.json"]
    assert path.stat().st_mode & 0o777 == 0o644
