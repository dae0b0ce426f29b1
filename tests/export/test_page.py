"""The live page as the server hands it out: files, headers, the first figures, and what stands in its way."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from joulescope.export import page
from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.export.page.assets import Assets
from joulescope.export.page.history import History
from joulescope.export.snapshot_json import encode_snapshot
from joulescope.model import Snapshot
from tests.export.samples import engine_a, rich_snapshot
from tests.export.test_http import PATIENCE_SECONDS, always_ready, get, serving

STATIC = Path(page.__file__).parent / "static"
MAX_SCRIPT_BYTES, MAX_ZIPPED_BYTES = 100_000, 36_000

VENDORED = {
    "vendor/preact.module.js": "c30e721ebfdc6e2ad4c18c14d2dfb82667829c8aec27de1207774e3fc16858a8",
    "vendor/preact.LICENSE": "1fe6958409c8c257a70c587a18b6f7f412b179b456630790d30b2ec9a8e4b7d4",
}
"""SHA-256 of the files of preact 10.29.8 as npm has them: they are not changed here."""

HOSTILE = '</script><script>alert(1)</script><!--<img src=x onerror="alert(2)">\u2028\x00\ud800'


def _page(snapshot: Snapshot | None = None) -> tuple[dict[str, str], str]:
    with serving(lambda: snapshot or rich_snapshot()) as address:
        status, headers, body = get(address, "/")
    assert status == 200
    return headers, body.decode()


def _links(text: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]*)"', text)


def test_nothing_comes_from_elsewhere() -> None:
    """Every address in the page is relative, so that it holds below a proxy's path and without a network."""
    _, text = _page()
    assert {link for link in _links(text) if link.startswith(("/", "http", "data:"))} == set()
    assert {"metrics", "api/snapshot", "-/ready", "-/healthy"} <= set(_links(text))


def test_no_script_or_style_stands_in_the_page() -> None:
    """The policy forbids both, so that text which became markup would still do nothing."""
    headers, text = _page()
    policy = headers["content-security-policy"]
    for rule in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"):
        assert rule in policy.split("; ")
    assert "unsafe" not in policy
    assert "<style" not in text
    assert " style=" not in text
    assert not re.search(r"\son\w+=", text)
    scripts = re.findall(r"<script ([^>]*)>", text)
    assert [("src=" in each, "application/json" in each) for each in scripts] == [
        (True, False),
        (False, True),
    ]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_the_first_figures_are_the_snapshot_and_cannot_end_their_element() -> None:
    """The JSON in the page is what ``/api/snapshot`` says, with no ``<`` in it, whatever a model's name."""
    engine = replace(engine_a(), info=replace(engine_a().info, model=HOSTILE, served_model=HOSTILE))
    snapshot = replace(rich_snapshot(), engines=(engine,))
    _, text = _page(snapshot)
    (data,) = re.findall(
        r'<script type="application/json" id="first">(.*?)</script></body></html>$', text, re.S
    )
    assert "<" not in data
    assert json.loads(data) == json.loads(encode_snapshot(snapshot))
    assert json.loads(data)["snapshot"]["engines"][0]["info"]["model"] == HOSTILE.replace("\ud800", "?")
    assert "<img" not in text


def test_without_scripts_the_page_asks_again_by_itself() -> None:
    """A browser with scripts must not: it would throw the view away every five seconds."""
    _, text = _page()
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in text
    assert text.count("http-equiv") == 1


def test_every_file_of_the_page_is_served_for_ever() -> None:
    """Files have the digest of them all in their path: they are kept, and another version has other paths."""
    _, text = _page()
    files = [link for link in _links(text) if link.startswith("assets/")]
    assert {name.rpartition("/")[2] for name in files} >= {
        "main.js",
        "page.css",
        "icon.svg",
        "preact.module.js",
    }
    with serving() as address:
        for name in files:
            status, headers, plain = get(address, f"/{name}")
            assert (status, headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
            assert "content-encoding" not in headers
            _, headers, zipped = get(address, f"/{name}", Accept_Encoding="br, gzip")
            assert (headers["content-encoding"], headers["vary"]) == ("gzip", "Accept-Encoding")
            assert gzip.decompress(zipped) == plain
        assert get(address, f"/{files[0]}", Accept_Encoding="gzip;q=0")[1].get("content-encoding") is None


@pytest.mark.parametrize(
    "path",
    [
        "assets/0000000000000000/main.js",
        "assets/{digest}/nothing.js",
        "assets/{digest}/types.d.ts",
        "assets/{digest}/../history.py",
        "assets/{digest}/%2e%2e/history.py",
        "assets/{digest}//etc/passwd",
    ],
)
def test_what_is_no_file_of_this_version_is_not_found(path: str) -> None:
    """Neither the files of another version nor anything beside the folder can be had."""
    with serving() as address:
        status, headers, _ = get(address, "/" + path.format(digest=Assets.load().digest))
    assert status == 404
    assert "immutable" not in headers.get("cache-control", "")


def test_modules_name_each_other_by_relative_paths() -> None:
    """What a module imports is a file of the page: no bare name that would need a map."""
    for path in STATIC.glob("*.js"):
        for name in re.findall(r'^import .*? from "([^"]+)";$', path.read_text(), re.M):
            assert name.startswith("./"), path.name
            assert (STATIC / name).is_file(), f"{path.name} imports {name}"


def test_nothing_in_the_scripts_makes_markup_or_code_of_text() -> None:
    """No own script names a way by which text could become markup or code."""
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|https?:"
    )
    for path in [*STATIC.glob("*.js"), STATIC / "page.css"]:
        assert not forbidden.search(path.read_text()), path.name


def test_the_vendored_library_is_the_published_one() -> None:
    """A change of a vendored file, or a renewal without its record, fails here."""
    found = {name: hashlib.sha256((STATIC / name).read_bytes()).hexdigest() for name in VENDORED}
    assert found == VENDORED
    assert {path.name for path in (STATIC / "vendor").iterdir() if path.suffix != ".ts"} == {
        name.partition("/")[2] for name in VENDORED
    }


def test_the_scripts_stay_small() -> None:
    """All scripts together, preact included."""
    assets = Assets.load()
    scripts = [assets.by_name[name] for name in assets.modules]
    assert sum(len(each.plain) for each in scripts) < MAX_SCRIPT_BYTES
    assert sum(len(each.zipped) for each in scripts) < MAX_ZIPPED_BYTES


def test_the_page_is_compressed_where_the_browser_takes_it() -> None:
    """The page of a large node is tens of kilobytes of tables and figures."""
    with serving() as address:
        _, headers, zipped = get(address, "/", Accept_Encoding="gzip")
        _, _, plain = get(address, "/")
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(zipped) == plain


def test_the_history_is_served_from_an_instant_on() -> None:
    """``since`` leaves out the points that the page has; something that is no number is refused in words."""
    history = History(step_seconds=1.0)
    for second in range(4):
        snapshot = rich_snapshot()
        history.note(
            replace(
                snapshot,
                time_ns=snapshot.time_ns + second * 10**9,
                wall_seconds=snapshot.wall_seconds + second,
            )
        )
    server = HttpServer("127.0.0.1", 0, create_app(rich_snapshot, always_ready, history=history))
    address = server.start()
    try:
        whole = json.loads(get(address, "/api/history")[2])
        assert [point["t"] for point in whole["points"]] == [1_700_000_101, 1_700_000_102, 1_700_000_103]
        assert _times(address, "since=1700000102") == [1_700_000_103]
        assert _times(address, "since=1700000103") == []
        assert _times(address, "since=nan") == []
        status, _, body = get(address, "/api/history?since=yesterday")
        assert (status, body) == (400, b"since: not a number; give the time of your last point\n")
    finally:
        server.stop(PATIENCE_SECONDS)


def _times(address: tuple[str, int], query: str) -> Sequence[float]:
    return [point["t"] for point in json.loads(get(address, f"/api/history?{query}")[2])["points"]]
