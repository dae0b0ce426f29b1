"""A carbon intensity in a text: found where it is, refused where it cannot be one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.errors import FetchError
from joulescope.factors.intensity import plausible, pointed_at, read_intensity
from joulescope.surroundings_model import FETCH_FAILURES

BRITISH = b'{"data":[{"from":"2026-11-01T12:00Z","intensity":{"forecast":266,"actual":263.5}}]}'


@pytest.mark.parametrize(
    ("body", "field", "grams"),
    [
        (b"302\n", "/carbonIntensity", 302.0),
        (b"\xef\xbb\xbf 41.5", "", 41.5),
        (b'{"zone":"DE","carbonIntensity":302}', "/carbonIntensity", 302.0),
        (BRITISH, "/data/0/intensity/actual", 263.5),
        (b'{"a/b":{"c~d":17}}', "/a~1b/c~0d", 17.0),
        (b'{"":{"":9}}', "//", 9.0),
        (b"0", "", 0.0),
    ],
)
def test_the_figure_is_found(body: bytes, field: str, grams: float) -> None:
    """A bare number needs no field; in JSON a pointer leads to it, through lists and odd keys too."""
    assert read_intensity(body, field) == grams


@pytest.mark.parametrize(
    ("body", "field", "reason", "words"),
    [
        (b"", "/x", "malformed", "neither a number nor JSON"),
        (b"\xff\xfe", "/x", "malformed", "neither"),
        (b"<html>302</html>", "/x", "malformed", "neither"),
        (b"[" * 100_000, "/x", "malformed", "neither"),
        (b'{"intensity": 302}', "/carbonIntensity", "missing_field", "no /carbonIntensity: nothing at"),
        (BRITISH, "/data/1/intensity", "missing_field", "at '1' in a list at /data"),
        (BRITISH, "/data/-1", "missing_field", "at '-1'"),
        (b'{"x": "302"}', "/x", "not_a_number", "/x holds a text"),
        (b'{"x": true}', "/x", "not_a_number", "/x holds true or false"),
        (b'{"x": null}', "/x", "not_a_number", "/x holds null"),
        (b'{"x": {}}', "/x", "not_a_number", "/x holds an object"),
        (b'{"x": NaN}', "/x", "not_a_number", "no finite number"),
        (b'"302"', "/x", "not_a_number", "a text"),
        (b'{"x": 0.302}', "/x", "out_of_range", "0.302 looks like kilograms: write 302"),
        (b'{"x": 302000}', "/x", "out_of_range", "write 302"),
        (b'{"x": -5}', "/x", "out_of_range", "between 1 and 2000"),
        (b"1" * 400, "/x", "out_of_range", "absurdly large"),
    ],
)
def test_what_is_no_intensity_is_refused(body: bytes, field: str, reason: str, words: str) -> None:
    """Garbage, a wrong type, a wrong place and a wrong unit each have their reason and their way out."""
    with pytest.raises(FetchError) as caught:
        read_intensity(body, field)
    assert caught.value.reason == reason
    assert words in str(caught.value)


@given(st.one_of(st.binary(max_size=200), st.builds(lambda value: json.dumps(value).encode(), st.floats())))
def test_any_bytes_give_a_plausible_figure_or_a_known_reason(body: bytes) -> None:
    """Whatever a source sends, it is a figure that a grid can have or an error that is counted."""
    try:
        figure, reason = read_intensity(body, "/x"), ""
    except FetchError as error:
        figure, reason = 0.0, error.reason
    assert plausible(figure) == figure
    assert reason in ("", *FETCH_FAILURES)


def test_the_empty_pointer_is_the_document() -> None:
    """RFC 6901: no steps lead nowhere else."""
    assert pointed_at([1], "") == [1]
