"""``GET /api/v1/minutes``: what is kept of the last day, who may ask, and how it is read page by page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from joulescope.cli.minutes_source import MINUTES_PATH, read_minutes
from joulescope.errors import MinuteError
from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.export.minute_ring import KEPT_SECONDS, MinuteRing
from joulescope.export.minutes_http import MAX_PAGE_BYTES, MEDIA_TYPE, PATH, SEQUENCE_HEADER
from joulescope.minute_model import EngineMinute, Joules, Kind
from tests.export.certificates import USERS
from tests.export.samples import rich_snapshot
from tests.export.test_http import get
from tests.export.web_server import basic, running

DAY = 24 * 60


def minute(at: int, engine: str = "e", joules: float = 1.0) -> EngineMinute:
    return EngineMinute(Kind(engine), 60.0 * at, 60.0 * (at + 1), joules=Joules(measured=joules))


def ring_of(minutes: Sequence[EngineMinute]) -> MinuteRing:
    ring = MinuteRing()
    ring.take(minutes)
    return ring


@contextmanager
def serving(ring: MinuteRing | None) -> Iterator[tuple[str, int]]:
    server = HttpServer("127.0.0.1", 0, create_app(rich_snapshot, lambda: (True, "ready"), minutes=ring))
    try:
        yield server.start()
    finally:
        server.stop()


def ends(body: bytes) -> list[str]:
    return [json.loads(line)["end"][11:16] for line in body.splitlines()]


# -------------------------------------------------------------------------------------------------- kept


def test_a_day_is_kept_and_no_more() -> None:
    """What is older than a day before the latest end is gone."""
    ring = ring_of([minute(at) for at in range(DAY + 30)])
    assert len(ring) == DAY
    ring.take([minute(DAY + 30)])
    first = next(ring.lines(0.0, None, 1 << 30))
    assert json.loads(first)["start"] == "1970-01-01T00:31:00.000000Z"
    assert (KEPT_SECONDS, ring.crowded_out) == (86_400.0, 0)


def test_memory_is_bounded_whatever_comes() -> None:
    """The oldest make room, and are counted."""
    ring = MinuteRing(max_bytes=20_000)
    for at in range(100):
        ring.take([minute(at, engine=f"e{at}-{at * 7919 % 1000}")])
    assert 10 < len(ring) < 90
    assert ring.crowded_out == 100 - len(ring)


def test_a_late_addition_stands_with_its_minute() -> None:
    """In the order of ends, not of arrival."""
    ring = ring_of([minute(5), minute(6), minute(5, joules=0.5)])
    assert ends(b"".join(ring.lines(0.0, None, 1 << 30))) == ["00:06", "00:06", "00:07"]


def told(ring: MinuteRing, sequence: str, **more: object) -> tuple[list[str], str]:
    asked = {"since": 0.0, "engine": None, "max_bytes": 1 << 30, **more}
    lines, following = ring.after(sequence, **asked)  # type: ignore[arg-type]
    return ends(b"".join(lines)), following


def test_who_goes_on_from_a_sequence_misses_no_late_line() -> None:
    """And gets none twice, whatever its minute; another process begins anew."""
    ring = ring_of([minute(5), minute(6)])
    first, following = told(ring, "")
    assert first == ["00:06", "00:07"]
    assert told(ring, following) == ([], following)
    ring.take([minute(5, joules=0.5)])
    ring.take([minute(7)])
    late, following = told(ring, following)
    assert late == ["00:06", "00:08"]
    assert told(ring, following) == ([], following)
    assert told(ring_of([minute(8)]), following)[0] == ["00:09"]


def test_a_sequence_is_read_page_by_page() -> None:
    """Each line once, also of one engine, and where lines were forgotten meanwhile."""
    ring = ring_of([minute(at, f"e{at % 2}") for at in range(40)])
    found: list[str] = []
    following, pages = "", 0
    while (page := told(ring, following, max_bytes=5000, engine="e1"))[0]:
        found += page[0]
        following, pages = page[1], pages + 1
    assert pages > 5
    assert found == [f"00:{at + 1:02d}" for at in range(1, 40, 2)]
    ring.take([minute(at) for at in range(40, 2 * DAY)])
    assert len(told(ring, following)[0]) == DAY


@pytest.mark.parametrize("sequence", ["5", "a-", "a-b", "-", "x-²", "a-" + "9" * 30])
def test_a_sequence_that_none_was_is_refused(sequence: str) -> None:
    with pytest.raises(ValueError, match="Joulescope-Sequence"):
        told(ring_of([minute(1)]), sequence)


# -------------------------------------------------------------------------------------------------- page


def test_the_page_says_from_where_to_go_on() -> None:
    """In a header, to whoever asks by sequence."""
    ring = ring_of([minute(5), minute(6)])
    with serving(ring) as address:
        assert SEQUENCE_HEADER.lower() not in get(address, PATH)[1]
        _, headers, body = get(address, f"{PATH}?since_sequence=")
        assert ends(body) == ["00:06", "00:07"]
        following = headers[SEQUENCE_HEADER.lower()]
        ring.take([minute(5)])
        assert ends(get(address, f"{PATH}?since_sequence={following}")[2]) == ["00:06"]
        status, _, body = get(address, f"{PATH}?since_sequence=7")
    assert status == 400
    assert b"Joulescope-Sequence" in body


def test_the_page_has_a_line_for_each_minute() -> None:
    """As `replay --minutes` writes them; nothing may be kept by caches."""
    with serving(ring_of([minute(5), minute(6)])) as address:
        status, headers, body = get(address, PATH)
    assert (status, headers["content-type"], headers["cache-control"]) == (200, MEDIA_TYPE, "no-store")
    assert ends(body) == ["00:06", "00:07"]
    assert PATH == MINUTES_PATH


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("since=360", ["00:07", "00:08"]),
        ("since=359.5", ["00:06", "00:07", "00:08"]),
        ("since=1970-01-01T00:06:00Z", ["00:07", "00:08"]),
        ("since=1970-01-01T01:06:00%2B01:00", ["00:07", "00:08"]),
        ("since=1970-01-01T01:06:00+01:00", ["00:07", "00:08"]),
        ("engine=other", ["00:08"]),
        ("engine=", []),
        ("engine=e&since=360", ["00:07"]),
        ("since=1e12", []),
    ],
)
def test_the_page_can_be_asked_for_less(query: str, found: list[str]) -> None:
    """Minutes that end after an instant, or of one engine."""
    with serving(ring_of([minute(5), minute(6), minute(7, "other")])) as address:
        status, _, body = get(address, f"{PATH}?{query}")
    assert (status, ends(body)) == (200, found)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("since=yesterday", b"since is seconds since the epoch, or an instant such as"),
        ("since=nan", b"not 'nan'"),
        ("since=", b"not ''"),
        ("until=5", b"no parameter is called 'until'; there are since, engine, since_sequence"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(query: str, message: bytes) -> None:
    """With what would."""
    with serving(MinuteRing()) as address:
        status, _, body = get(address, f"{PATH}?{query}")
    assert status == 400
    assert message in body


def test_a_sidecar_that_just_started_has_none() -> None:
    """An empty page, and a command that says so."""
    with serving(None) as address:
        assert get(address, PATH)[::2] == (200, b"")
        with pytest.raises(MinuteError, match="there is no minute of an engine in it"):
            read_minutes(f"http://{address[0]}:{address[1]}")


def test_minutes_that_come_later_are_shown() -> None:
    """The page is of the ring as it is when it is asked."""
    ring = MinuteRing()
    with serving(ring) as address:
        assert get(address, PATH)[2] == b""
        ring.take([minute(1)])
        assert ends(get(address, PATH)[2]) == ["00:02"]


def test_a_day_is_read_page_by_page() -> None:
    """No page is much longer than it may be, and no minute is missed where several end together."""
    kept = [minute(at, f"e{number}") for at in range(900) for number in range(3)]
    with serving(ring_of(kept)) as address:
        first = get(address, PATH)[2]
        found = read_minutes(f"http://{address[0]}:{address[1]}@-10h..")
    assert MAX_PAGE_BYTES <= len(first) < 1.01 * MAX_PAGE_BYTES
    assert len(first.splitlines()) % 3 == 0
    assert found == kept[-3 * 600 :]


def test_the_page_is_guarded_like_the_others(tmp_path: Path) -> None:
    """Where there are users, nobody else learns anything."""
    config = tmp_path / "web.yml"
    config.write_text(USERS)
    app = create_app(rich_snapshot, lambda: (True, "ready"), minutes=ring_of([minute(1)]))
    with running(config, app) as server:
        assert server.get(PATH)[0] == 401
        status, _, body = server.get(PATH, basic())
    assert (status, ends(body)) == (200, ["00:02"])
