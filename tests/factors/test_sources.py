"""Files that are replaced, servers that answer, and tokens that stay where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from joulescope.clock import ManualClock, WallAnchor
from joulescope.errors import FetchError
from joulescope.factors.sources import FileSource, UrlSource, clean_token, token_of_file
from tests.http_peer import Answer, http_peer

SECOND = 1_000_000_000
WALL = WallAnchor(monotonic_ns=0, wall_ns=1_700_000_000 * SECOND)


def written(path: Path, text: str, wall_seconds: float) -> None:
    """Replaces the file as a careful writer does, with the given time of change."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.utime(fresh, (wall_seconds, wall_seconds))
    fresh.replace(path)


def refused(source: FileSource | UrlSource) -> FetchError:
    with pytest.raises(FetchError) as caught:
        source.find()
    return caught.value


def test_a_file_is_as_old_as_its_last_change(tmp_path: Path) -> None:
    """Reading a file again does not make it fresh; replacing it does, and the new figure is there."""
    path, clock = tmp_path / "grid.json", ManualClock(100 * SECOND)
    source = FileSource(str(path), "/carbonIntensity", clock, WALL)
    written(path, '{"carbonIntensity": 302}', 1_700_000_040)
    assert (source.find().grams_per_kwh, source.find().time_ns) == (302.0, 40 * SECOND)
    clock.advance(500)
    assert source.find().time_ns == 40 * SECOND
    written(path, "120", 1_700_000_590)
    assert (source.find().grams_per_kwh, source.find().time_ns) == (120.0, 590 * SECOND)


def test_a_file_from_the_future_is_refused(tmp_path: Path) -> None:
    """A file with a date to come would never age; a few seconds are forgiven and count as now."""
    path, clock = tmp_path / "grid", ManualClock(100 * SECOND)
    source = FileSource(str(path), "", clock, WALL)
    written(path, "302", 1_700_000_130)
    assert source.find().time_ns == 100 * SECOND
    written(path, "302", 1_700_003_700)
    error = refused(source)
    assert (error.reason, "3600 s from now" in str(error)) == ("future", True)


def test_files_that_do_not_do_are_named(tmp_path: Path) -> None:
    """A missing file, a folder, a pipe that nobody writes, and one too long are refused at once."""
    pipe, long = tmp_path / "pipe", tmp_path / "long"
    os.mkfifo(pipe)
    long.write_bytes(b" " * ((1 << 20) + 1))
    for path, reason, words in (
        (tmp_path / "none", "unreadable", "No such file"),
        (tmp_path, "unreadable", "irectory"),
        (pipe, "unreadable", "no regular file"),
        (long, "too_large", "longer than"),
    ):
        error = refused(FileSource(str(path), "", ManualClock(), WALL))
        assert (error.reason, str(error).startswith(f"{path}: ")) == (reason, True)
        assert words in str(error)


def test_a_url_is_asked_with_its_token_and_believed_from_then_on(tmp_path: Path) -> None:
    """The token goes out in the header that was named, and a token that was replaced goes out next."""
    secret = tmp_path / "token"
    secret.write_text("sesame\n")
    clock = ManualClock(7 * SECOND)
    with http_peer() as peer:
        peer.answer = Answer(b'{"carbonIntensity": 302}')
        source = UrlSource(
            peer.url, "/carbonIntensity", clock, header="auth-token", token=token_of_file(str(secret))
        )
        assert (source.find().grams_per_kwh, source.find().time_ns) == (302.0, 7 * SECOND)
        secret.write_text("Bearer new")
        source.find()
        assert [headers["auth-token"] for _, headers in peer.asked] == ["sesame", "sesame", "Bearer new"]
        peer.answer = Answer(b'{"error": "over quota"}')
        error = refused(source)
        assert (error.reason, str(error).startswith(peer.url)) == ("missing_field", True)


def test_a_token_that_cannot_be_sent_is_not_shown(tmp_path: Path) -> None:
    """A token that is missing, empty or broken is refused without a word of it."""
    secret = tmp_path / "token"
    source = UrlSource("http://127.0.0.1:9/", "", ManualClock(), token=token_of_file(str(secret)))
    assert refused(source).reason == "token"
    for text in ("", " \n", "open\nsesame", "s\u00e9same", "x" * 9000):
        secret.write_text(text)
        error = refused(source)
        assert error.reason == "token"
        assert "same" not in str(error)
    with pytest.raises(ValueError, match="empty"):
        clean_token("\n")
