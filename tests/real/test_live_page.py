"""The live page as a user meets it: a real Chromium on a real sidecar, and on wrong or hostile ones."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.export.page.history import History
from joulescope.export.snapshot_json import encode_snapshot
from joulescope.model import OpenRequest, Snapshot
from tests.export.samples import GPU_A, GPU_B, GPU_C, INSTANCE_C, engine_a, finished, gpu_a, rich_snapshot
from tests.real.browser import Tab, browser, tab
from tests.real.sidecar import wait_until
from tests.real.vllm_env import free_port

pytestmark = pytest.mark.real

PATIENCE_SECONDS = 60.0
WIDTHS = (320, 360, 412, 600, 768, 1024, 1280, 1600)
HOSTILE = (
    '<img src=x onerror="document.title=1"><script>document.title=2</script>\x00\x1b[31m\u202e\ud800'
    + "A" * 10_000
)


@dataclass
class Demo:
    """``joulescope demo`` as a process."""

    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        command = [sys.executable, "-m", "joulescope.cli.main", "demo", "--no-table"]
        command += ["--listen", f"127.0.0.1:{self.port}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(lambda: self.figures() is not None, "the demo to answer", PATIENCE_SECONDS)

    def figures(self) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(f"{self.url}api/snapshot", timeout=5) as answer:
                found: dict[str, Any] = json.loads(answer.read())["snapshot"]
                return found
        except OSError:
            return None

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A sidecar that has accounted for a while, so that the page has a past to show."""
    running = Demo(free_port(), tmp_path_factory.mktemp("demo") / "log")
    running.start()
    try:
        wait_until(lambda: _finished(running) > 20, "requests to end", PATIENCE_SECONDS)
        yield running
    finally:
        running.end()


def _finished(demo: Demo) -> int:
    figures = demo.figures()
    return 0 if figures is None else sum(sum(e["requests_finished"].values()) for e in figures["engines"])


@contextmanager
def opened(chromium: Any, url: str, **options: Any) -> Iterator[Tab]:
    """The page with its first figures; at the end nothing may have complained, and nothing gone elsewhere."""
    with tab(chromium, **options) as page:
        page.page.goto(url)
        page.wait("!document.getElementById('live').hidden")
        yield page
        assert page.complaints == []
        assert [asked for asked in page.asked if not asked.startswith(url)] == []


@contextmanager
def served(
    snapshot: Snapshot, requests: Any = lambda: ((), ()), ready: str = "", stands_still: bool = False
) -> Iterator[str]:
    """A sidecar that has always the same to say, behind a proxy's path; ``ready`` is why it is not.

    Its time goes on by a microsecond with each look, unless it stands still.
    """
    looks = itertools.count(0, 0 if stands_still else 1000)
    history = History()
    for back in (4.0, 2.0, 0.0):
        history.note(_earlier(snapshot, back))
    app = create_app(
        lambda: replace(snapshot, time_ns=snapshot.time_ns + next(looks)),
        lambda: (not ready, ready or "ready"),
        get_requests=requests,
        history=history,
    )
    server = HttpServer("127.0.0.1", 0, Starlette(routes=[Mount("/some/path", app)]))
    host, port = server.start()
    try:
        yield f"http://{host}:{port}/some/path/"
    finally:
        server.stop(PATIENCE_SECONDS)


def _earlier(snapshot: Snapshot, seconds: float) -> Snapshot:
    """The snapshot as it was: all its joules came in the last ten seconds."""
    left = 1 - seconds / 10
    gpus = tuple(
        replace(
            gpu,
            idle_joules=gpu.idle_joules * left,
            overhead_joules={reason: joules * left for reason, joules in gpu.overhead_joules.items()},
            unattributed_joules={reason: joules * left for reason, joules in gpu.unattributed_joules.items()},
            accounted_until_ns=gpu.accounted_until_ns and gpu.accounted_until_ns - round(seconds * 1e9),
        )
        for gpu in snapshot.gpus
    )
    engines = tuple(
        replace(
            engine,
            attributed_joules={key: joules * left for key, joules in engine.attributed_joules.items()},
            tokens={kind: round(tokens * left) for kind, tokens in engine.tokens.items()},
        )
        for engine in snapshot.engines
    )
    return replace(
        snapshot,
        time_ns=snapshot.time_ns - round(seconds * 1e9),
        wall_seconds=snapshot.wall_seconds - seconds,
        gpus=gpus,
        engines=engines,
    )


# ------------------------------------------------------------------------------------ a real sidecar


def test_the_figures_are_those_of_the_sidecar(chromium: Any, demo: Demo) -> None:
    """Paused, the page shows what the answers said: joules, loads, requests, and watts from the history."""
    with opened(chromium, demo.url) as page:
        answers: dict[str, Any] = {}

        def keep(response: Any) -> None:
            if "/api/" in response.url:
                answers.setdefault(response.url.partition("/api/")[2].partition("?")[0], []).append(response)

        page.page.on("response", keep)
        page.wait("document.querySelectorAll('#open tbody tr').length >= 10")
        page.until(lambda: len(answers.get("requests", [])) > 3, "more figures")
        page.page.click("#pause")
        page.wait("document.querySelector('.link').innerText === 'paused'")
        _rests(page)
        snapshot = answers["snapshot"][-1].json()["snapshot"]
        requests = answers["requests"][-1].json()
        text = page.text("#engines")
        (engine,), (gpu,) = snapshot["engines"], snapshot["gpus"]
        assert f"running {engine['running']} of {engine['info']['max_num_seqs']}" in text
        assert f"waiting {engine['waiting']}" in text
        assert f"KV cache {_percent(engine['kv_usage_ratio'])}" in text
        measured = gpu["measured_joules"]
        assert f"{_joules(measured)} measured, residual 0 J" in page.text("#gpus")
        assert f"{round(gpu['reading']['power_watts'])} W of 700 W" in page.text("#gpus")
        assert f"Running now: {requests['open_total']}" in page.text("main")
        first = requests["open"][0]
        row = page.text("#open tbody tr:first-child")
        assert row.startswith(first["external_id"] or first["request_id"])
        assert _joules(first["attributed_joules"]) in row
        assert "Nothing is wrong" in page.text("#trouble")

        points = [point for each in answers["history"] for point in each.json()["points"]]
        lately = [p for p in points if snapshot["wall_seconds"] - 12 < p["t"] <= snapshot["wall_seconds"]]
        if len(lately) >= 5:
            seconds = sum(point["s"] for point in lately)
            watts = sum(sum(point["w"]) * point["s"] for point in lately) / seconds
            assert page.text(".tile:first-child .big") == f"{watts:.0f} W"


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.{1 if 0 < ratio < 0.0995 else 0}f} %"


def _joules(value: float) -> str:
    """Three digits that matter, as the page writes them."""
    for size, unit in ((1e6, "MJ"), (1e3, "kJ"), (1.0, "J")):
        if value >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {unit}"
    return f"{value * 1e3:.0f} mJ"


def test_a_reload_has_the_past_at_once(chromium: Any, demo: Demo) -> None:
    """The chart of a page that was just opened reaches back to before it was."""
    with opened(chromium, demo.url) as page:
        page.wait("document.querySelector('path.area.decode')?.getAttribute('d').length > 100")
        page.page.reload()
        # A question under way is given up by the reload.
        page.complaints = [each for each in page.complaints if "ERR_ABORTED" not in each]
        page.wait("document.querySelector('path.area.decode')?.getAttribute('d').length > 100")
        assert len(page.value("document.querySelector('path.area.decode').getAttribute('d')").split("L")) > 8
    history = json.loads(urllib.request.urlopen(f"{demo.url}api/history").read())
    assert len(history["points"]) >= 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_overflows(chromium: Any, demo: Demo, scheme: str) -> None:
    """From a small phone to a wide screen nothing sticks out sideways, and the charts follow."""
    with opened(chromium, demo.url, color_scheme=scheme) as page:
        page.wait("document.querySelectorAll('#finished tbody tr').length >= 10")
        backgrounds = page.value("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", backgrounds))) < 60) == (scheme == "dark")
        for width in WIDTHS:
            page.page.set_viewport_size({"width": width, "height": 800})
            page.wait(
                f"Math.abs(document.querySelector('.chart svg').getBoundingClientRect().right) <= {width}"
            )
            assert page.value("document.documentElement.scrollWidth") <= width
            outside = page.value(
                "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && "
                "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.className || e.tagName)"
            )
            assert outside == []


def test_text_has_contrast(chromium: Any, demo: Demo) -> None:
    """Every colour of text keeps 4.5 : 1 against the ground it stands on (WCAG 2.2, 1.4.3)."""
    for scheme in ("light", "dark"):
        with opened(chromium, demo.url, color_scheme=scheme) as page:
            page.wait("document.querySelectorAll('#finished tbody tr').length >= 10")
            poor = page.value(CONTRAST)
            assert poor == [], scheme


CONTRAST = """(() => {
  const parts = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && e.checkVisibility();
  const ratio = (e) => {
    const style = getComputedStyle(e);
    const [a, b] = [light(parts(e instanceof SVGElement ? style.fill : style.color)), light(ground(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  return [...document.querySelectorAll('body *')].filter(own)
    .map((e) => [ratio(e), e.className, e.textContent.slice(0, 30)]).filter(([r]) => r < 4.5);
})()"""


def test_keys_sort_the_tables_and_focus_stays(chromium: Any, demo: Demo) -> None:
    """A heading is a button: Enter sorts, again turns round, and the next figures do not steal the focus."""
    with opened(chromium, demo.url) as page:
        page.wait("document.querySelectorAll('#finished tbody tr').length >= 10")
        page.page.focus("#finished th:nth-child(5) .sort")
        page.page.keyboard.press("Enter")
        heading = "document.querySelector('#finished th:nth-child(5)').getAttribute('aria-sort')"
        page.wait(f"{heading} === 'descending'")
        assert _column(page, 5) == sorted(_column(page, 5), reverse=True)
        asked = len(page.asked)
        page.until(lambda: len(page.asked) > asked + 8, "more figures")
        assert page.value("document.activeElement.className") == "sort"
        page.page.keyboard.press("Enter")
        page.wait(f"{heading} === 'ascending'")
        assert _column(page, 5) == sorted(_column(page, 5))
        assert page.value("document.querySelectorAll('#finished [aria-sort]').length") == 1


def _column(page: Tab, number: int) -> list[int]:
    cells = page.value(
        f"[...document.querySelectorAll('#finished tbody tr > :nth-child({number})')].map(e => e.innerText)"
    )
    return [int(re.sub(r"\D", "", cell)) for cell in cells]


def test_everything_is_reached_by_keys(chromium: Any, demo: Demo) -> None:
    """Tab goes through buttons, charts, tables and links; in a chart the arrows read single moments."""
    with opened(chromium, demo.url) as page:
        page.wait("document.querySelectorAll('#finished tbody tr').length >= 10")
        seen = []
        for _ in range(60):
            page.page.keyboard.press("Tab")
            seen.append(
                page.value("document.activeElement.tagName + '.' + (document.activeElement.id || '')")
            )
        assert {"BUTTON.pause", "svg.", "DIV.", "BUTTON.", "A."} <= set(seen)
        page.page.focus(".chart svg")
        page.page.keyboard.press("ArrowLeft")
        page.wait("document.querySelector('.readout')?.innerText.includes('decode')")
        page.page.keyboard.press("Escape")
        page.wait("!document.querySelector('.readout')")


def test_pause_asks_for_nothing(chromium: Any, demo: Demo) -> None:
    """The key p pauses and goes on; a hidden tab asks for nothing either."""
    with opened(chromium, demo.url) as page:
        page.page.keyboard.press("p")
        page.wait("document.getElementById('pause').getAttribute('aria-pressed') === 'true'")
        _rests(page)
        page.page.keyboard.press("p")
        page.wait("document.querySelector('.link').innerText === 'live'")
        page.value(
            "Object.defineProperty(document, 'hidden', {configurable: true, get: () => true}),"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        _rests(page)
        asked = len(page.asked)
        page.value("delete document.hidden, document.dispatchEvent(new Event('visibilitychange'))")
        page.until(lambda: len(page.asked) > asked, "it to ask again")


def _rests(page: Tab) -> None:
    """After what was under way, three seconds without a request."""
    page.page.wait_for_timeout(1500)
    asked = len(page.asked)
    page.page.wait_for_timeout(3000)
    assert page.asked[asked:] == []


def test_it_asks_one_after_the_other(chromium: Any, demo: Demo) -> None:
    """No two questions at once: an open page takes one of the places for pages in the making, no more."""
    with opened(chromium, demo.url) as page:
        page.until(lambda: sum("/api/" in asked for asked in page.asked) > 12, "more figures")
        spans = page.value(
            "performance.getEntriesByType('resource').filter(e => /api|ready/.test(e.name))"
            ".map(e => [e.startTime, e.responseEnd])"
        )
    spans.sort()
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_reduced_motion_is_heeded(chromium: Any, demo: Demo) -> None:
    """Nothing glides where the user's system asks for stillness; elsewhere meters do."""
    seconds = "getComputedStyle(document.querySelector('.meter i')).transitionDuration"
    with opened(chromium, demo.url, reduced_motion="reduce") as page:
        assert page.value(seconds) == "0s"
    with opened(chromium, demo.url, reduced_motion="no-preference") as page:
        assert page.value(seconds) != "0s"


def test_a_sidecar_that_dies_and_returns(chromium: Any, tmp_path: Path) -> None:
    """Killed: greyed out, with since when. Started again: live by itself, and nothing below zero."""
    demo = Demo(free_port(), tmp_path / "log")
    demo.start()
    try:
        wait_until(lambda: _finished(demo) > 3, "requests to end", PATIENCE_SECONDS)
        with tab(chromium) as page:
            page.page.goto(demo.url)
            page.wait("document.querySelector('.link')?.innerText === 'live'")
            old = (demo.figures() or {})["sidecar"]["start_wall_seconds"]
            demo.end()
            page.wait("document.querySelector('.link').innerText === 'disconnected'")
            page.wait("/for [3-9]/.test(document.querySelector('.since').innerText)")
            assert page.value("getComputedStyle(document.querySelector('main')).opacity") == "0.45"
            assert page.value("document.title") == "joulescope: disconnected"
            demo.start()
            page.wait("document.querySelector('.link').innerText === 'live'")
            page.wait("!document.querySelector('.page').classList.contains('cut')")
            assert (demo.figures() or {})["sidecar"]["start_wall_seconds"] > old
            page.wait("document.querySelectorAll('#open tbody tr').length > 0")
            page.wait("document.querySelector('.tile .big').innerText !== '–'")
            assert re.search(r"[-−]\d[\d.]* [mkMG]?[JW]", page.text("main")) is None
            assert [each for each in page.complaints if "ERR_" not in each] == []
    finally:
        demo.end()


def test_without_scripts_the_server_draws(chromium: Any, demo: Demo) -> None:
    """The tables of the server, in the page's own colours, and asked for again by the browser."""
    with tab(chromium, java_script_enabled=False) as page:
        page.page.goto(demo.url)
        text = page.text("#drawn")
        for words in ("Energy balance", "measured", "attributed", "Llama-3.1-8B", "NVIDIA H100"):
            assert words in text
        assert page.page.is_hidden("#live")
        assert page.page.locator("#drawn svg.bar rect").count() == 4
        first = len(page.asked)
        page.page.wait_for_timeout(6500)
        assert any(asked == demo.url for asked in page.asked[first:])
        # Modules that were asked for early are let go where scripts do not run.
        assert [each for each in page.complaints if not each.endswith(".js")] == []


# ------------------------------------------------------------------- sidecars that are wrong or hostile


def _open(**changes: Any) -> OpenRequest:
    request = OpenRequest(
        request_id="r-1",
        external_id="",
        engine="llama-0",
        model="llama",
        lora="",
        kind="generate",
        start_ns=95_000_000_000,
        first_token_ns=None,
        phase="prefill",
        prompt_tokens=100,
        cached_tokens=0,
        output_tokens=0,
        preemptions=0,
        attributed_joules=None,
        prefill_joules=None,
        marginal_joules=None,
    )
    return replace(request, **changes)


def test_hostile_names_are_only_text(chromium: Any) -> None:
    """Markup, control characters and ten kilobytes in every name: nothing runs, nothing breaks the layout."""
    engine = replace(
        engine_a(),
        info=replace(engine_a().info, engine=HOSTILE, model=HOSTILE, served_model=HOSTILE, unit=HOSTILE),
    )
    gpu = replace(gpu_a(), info=replace(gpu_a().info, name=HOSTILE))
    snapshot = replace(rich_snapshot(), engines=(engine,), gpus=(gpu,))
    requests = (
        [_open(request_id=HOSTILE, external_id=HOSTILE, engine=HOSTILE, lora=HOSTILE, phase=HOSTILE)],
        [finished(request_id=HOSTILE, external_id=HOSTILE, finish_reason=HOSTILE, lora=HOSTILE)],
    )
    with (
        served(snapshot, lambda: requests, HOSTILE.replace("\ud800", "")) as url,
        opened(chromium, url, viewport={"width": 360, "height": 800}) as page,
    ):
        page.complaints.clear()  # readiness answers 503, of which the console makes an error
        page.wait("document.querySelectorAll('#open tbody tr').length === 1")
        assert page.value("document.querySelectorAll('img, #live script').length") == 0
        assert page.value("document.title") not in ("1", "2")
        assert "<img src=x onerror=" in page.text("#engines h3")
        assert (
            page.value("/[\\u0000-\\u0008\\u001b\\u202e]/.test(document.getElementById('live').innerText)")
            is False
        )
        assert page.value("document.getElementById('live').innerText.length") < 8000
        assert page.value("document.documentElement.scrollWidth") <= 360
        page.complaints = [each for each in page.complaints if "503" not in each]


def test_what_is_wrong_is_said_in_words(chromium: Any) -> None:
    """A dead sensor, a residual, drops, refused records, throttling, a lost server: each has its line."""
    gpu = replace(gpu_a(), residual_joules=0.25)
    snapshot = replace(rich_snapshot(), gpus=(gpu, *rich_snapshot().gpus[1:]))
    with served(snapshot, ready="the sensor does not answer") as url, opened(chromium, url) as page:
        page.wait("document.getElementById('trouble').innerText.includes('Not ready')")
        text = page.text("#trouble")
        for words in (
            "Not ready: the sensor does not answer",
            f"{GPU_B[:13]}…, {GPU_C[:13]}…, {INSTANCE_C[:13]}…: the sensor does not answer",
            "the account does not add up, 250 mJ are left over",
            "clocks are held back (power cap, too hot)",
            "Engine odd-1 is not connected",
            "its hook dropped 7 records, none of them lately",
            "The sidecar refused (unknown type) 4 records",
            "http://127.0.0.1:8080/metrics: its page cannot be had",
            "dram-0: its sensor does not answer",
        ):
            assert words in text
        assert page.text("#trouble h2").endswith("things are wrong")
        page.complaints = [each for each in page.complaints if "503" not in each]


def test_figures_that_stand_still_are_not_fresh(chromium: Any) -> None:
    """A sidecar that answers the same snapshot again and again is greyed out, too."""
    with served(rich_snapshot(), stands_still=True) as url, opened(chromium, url) as page:
        page.wait("document.querySelector('.link').innerText.includes('stand still')")
        assert "Not known" in page.text("#trouble")
        assert page.value("document.querySelector('.page').classList.contains('cut')")


def test_what_is_not_known_is_a_dash(chromium: Any) -> None:
    """An empty sidecar: no zero watts, no zero joules per token, and words for what is missing."""
    with served(Snapshot(time_ns=0, wall_seconds=0.0)) as url, opened(chromium, url) as page:
        page.wait("document.getElementById('trouble').innerText.includes('No engine has connected')")
        tiles = page.value("[...document.querySelectorAll('.tile .big')].map(e => e.innerText)")
        assert [tile[0] for tile in tiles] == ["–"] * len(tiles)
        assert "No GPU is being measured." in page.text("#gpus")
        assert "No energy accounted yet." in page.text("main")


def test_a_lost_gpu_shows_no_last_value(chromium: Any) -> None:
    """Stale is not fresh: power, clocks and memory of a GPU whose sensor is down are gone."""
    gpu = replace(gpu_a(), up=False)
    with served(replace(rich_snapshot(), gpus=(gpu,))) as url, opened(chromium, url) as page:
        text = page.text("#gpus")
        assert "sensor down" in text
        assert "power –" in text
        assert "512" not in text


def test_an_engine_that_left_is_not_running(chromium: Any) -> None:
    """What it said last is not how it is now: its load is a dash, and in no sum."""
    with served(rich_snapshot()) as url, opened(chromium, url) as page:
        gone = page.text("#engines article:nth-child(2)")
        assert "odd-1" in gone
        assert "running – waiting –" in gone
        assert "KV cache –" in gone
        assert page.text(".tile:nth-child(4) .big") == "2 running"


def test_a_large_node_fits(chromium: Any) -> None:
    """16 GPUs, 8 engines and 256 requests: drawn well within a second, on a phone as well."""
    gpus = tuple(
        replace(gpu_a(), info=replace(gpu_a().info, gpu=f"{GPU_A[:-2]}{number:02}", index=number))
        for number in range(16)
    )
    engines = tuple(
        replace(engine_a(), info=replace(engine_a().info, engine=f"engine-{number}")) for number in range(8)
    )
    requests = (
        [_open(request_id=f"r-{number}", attributed_joules=float(number)) for number in range(256)],
        (),
    )
    snapshot = replace(rich_snapshot(), gpus=gpus, engines=engines)
    with served(snapshot, lambda: requests) as url, opened(chromium, url) as page:
        page.wait("document.querySelectorAll('#gpus article').length === 16")
        assert page.value("document.querySelectorAll('#engines article').length") == 8
        page.page.click("section:has(#open) .more")
        page.wait("document.querySelectorAll('#open tbody tr').length === 256")
        page.page.set_viewport_size({"width": 360, "height": 800})
        assert page.value("document.documentElement.scrollWidth") <= 360


def test_an_older_sidecar_without_requests_is_borne(chromium: Any) -> None:
    """Where ``/api/requests`` is not there the page says so, and shows the rest."""
    with served(rich_snapshot()) as url, tab(chromium) as page:
        page.page.route("**/api/requests*", lambda route: route.fulfill(status=404, body="not found"))
        page.page.goto(url)
        page.wait("document.getElementById('live').innerText.includes('does not tell of single requests')")
        assert "llama-0" in page.text("#engines")


def test_a_busy_sidecar_is_not_a_dead_one(chromium: Any) -> None:
    """503 to the scrape of the page means: wait. The figures at hand stay until they are old."""
    with served(rich_snapshot()) as url, tab(chromium) as page:
        page.page.goto(url)
        page.wait("!document.getElementById('live').hidden")
        headers = {"Retry-After": "1"}
        page.page.route("**/api/snapshot", lambda route: route.fulfill(status=503, headers=headers))
        page.wait("document.querySelector('.link').innerText === 'the sidecar is busy'")
        page.page.unroute("**/api/snapshot")
        page.wait("document.querySelector('.link').innerText !== 'the sidecar is busy'")


def test_a_login_that_ended_is_said(chromium: Any) -> None:
    """401 means: whoever looks has to log in again, which loading the page anew asks for."""
    with served(rich_snapshot()) as url, tab(chromium) as page:
        page.page.goto(url)
        page.wait("!document.getElementById('live').hidden")
        page.page.route("**/api/snapshot", lambda route: route.fulfill(status=401))
        page.wait("document.querySelector('.link').innerText.includes('not allowed')")


def test_another_version_offers_to_reload(chromium: Any) -> None:
    """After an upgrade of the sidecar the page's scripts are old: a button loads the new ones."""
    with served(rich_snapshot()) as url, tab(chromium) as page:
        page.page.goto(url)
        page.wait("!document.getElementById('live').hidden")
        body = json.dumps({"joulescope_version": "99.0", "method": "m", "method_version": "1"})[:-1]
        body += ',"snapshot":' + encode_snapshot(rich_snapshot()).decode().partition('"snapshot":')[2]
        page.page.route("**/api/snapshot", lambda route: route.fulfill(body=body))
        page.wait("document.querySelector('button.strong')?.innerText.includes('reload')")
        page.page.unroute("**/api/snapshot")
        page.page.click("button.strong")
        page.wait("document.getElementById('live')?.hidden === false && !document.querySelector('.strong')")


def test_nonsense_in_place_of_figures_is_borne(chromium: Any) -> None:
    """A login page of a proxy answers with HTML: that is no figure, and what was there stays, greyed out."""
    with served(rich_snapshot()) as url, tab(chromium) as page:
        page.page.goto(url)
        page.wait("!document.getElementById('live').hidden")
        page.page.route(
            "**/api/snapshot", lambda route: route.fulfill(status=200, body="<html>Log in</html>")
        )
        page.wait("document.querySelector('.page').classList.contains('cut')")
        assert "llama-0" in page.text("#engines")
        assert [each for each in page.complaints if "uncaught" in each] == []


# -------------------------------------------------------------------------------- the modules by themselves


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("f.joules(0)", "0 J"),
        ("f.joules(0.0004)", "0.400 mJ"),
        ("f.joules(0.25)", "250 mJ"),
        ("f.joules(999.96)", "1.00 kJ"),
        ("f.joules(1234567)", "1.23 MJ"),
        ("f.joules(null)", "–"),
        ("f.joules(NaN)", "–"),
        ("f.joules(-3)", "-3.00 J"),
        ("f.watts(0)", "0 W"),
        ("f.watts(4.25)", "4.3 W"),
        ("f.watts(612.4)", "612 W"),
        ("f.watts(123456)", "123 kW"),
        ("f.percent(0)", "0 %"),
        ("f.percent(0.004)", "0.4 %"),
        ("f.percent(0.876)", "88 %"),
        ("f.count(1234567)", "1\u202f234\u202f567"),
        ("f.duration(3725)", "1 h 2 min"),
        ("f.duration(90061)", "1 d 1 h"),
        ("f.bytes(85899345920)", "80.0 GiB"),
        ("f.shown('a\\u202eb\\u0000' + 'x'.repeat(99), 8)", "a\ufffdb\ufffdxxx…"),
        ("f.shown('😀'.repeat(50), 5)", "😀😀😀😀…"),
        ("f.unitOf([])", "token"),
        ("f.unitOf([{info: {unit: 'image'}}, {info: {unit: 'token'}}])", "output"),
    ],
)
def test_figures_as_text(modules: Tab, call: str, text: str) -> None:
    """Three digits that matter and a unit; what is not known is a dash."""
    assert modules.value(_module(modules, "format.js", call)) == text


@pytest.fixture(scope="module")
def modules(chromium: Any) -> Iterator[Tab]:
    """A page from which single modules are called."""
    with served(rich_snapshot()) as url, opened(chromium, url) as page:
        yield page


def _module(page: Tab, name: str, call: str) -> str:
    folder = page.value("document.querySelector('script[type=module]').src.replace(/[^/]*$/, '')")
    return f"import({json.dumps(folder + name)}).then(f => {call})"


POINTS = (
    "[{t: 100, s: 2, gpus: 1, w: [100, 300, 0, 0, 0], e: {a: [800, 400, 90, 100]}},"
    " {t: 102, s: 3, gpus: 1, w: [0, 100, 0, 0, 0], e: {a: [300, 100, 110, 100], b: [50, 0, null, null]}},"
    " {t: 104, s: 2, gpus: 0, w: null, e: {}}]"
)


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (f"f.meanWatts({POINTS})", [40.0, 180.0, 0, 0, 0]),
        (f"f.meanWatts({POINTS}.slice(2))", None),
        (f"f.perOutput({POINTS})", 2.3),
        (f"f.perOutput({POINTS}, 'a')", 2.2),
        (f"f.perOutput({POINTS}, 'b')", None),
        (f"f.index({POINTS})", 1.0),
        (f"f.index({POINTS}.slice(1), 'a')", 1.1),
        (f"f.index({POINTS}, 'b')", None),
        (f"f.joined({POINTS}, [{{t: 102, s: 1, gpus: 0, w: null, e: {{}}}}]).map(p => p.t)", [100, 102]),
        (f"f.joined({POINTS}, [{{t: 703, s: 1, gpus: 0, w: null, e: {{}}}}]).map(p => p.t)", [104, 703]),
        (f"f.within({POINTS}, 3, 103).map(p => p.t)", [102]),
        ("f.span([], 0)", 60),
        ("f.span([{t: 0}], 61)", 120),
        ("f.span([{t: 0}], 5000)", 600),
    ],
)
def test_figures_from_points(modules: Tab, call: str, value: Any) -> None:
    """Means weigh points by their seconds; what was not accounted is no zero; ratios are of sums."""
    assert modules.value(_module(modules, "figures.js", call)) == pytest.approx(value)
