"""The exposition: text, OpenMetrics, negotiation."""

from __future__ import annotations

import gzip
import os
import platform
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from joulescope import __version__
from joulescope.export.budget import LARGEST, snapshot_of
from joulescope.export.metrics import METRICS
from joulescope.export.prometheus import MAX_KEPT, Exposition, Page, accepts_gzip
from joulescope.model import HistogramState, Snapshot
from tests.export.samples import TRACE_ID, engine_a, rich_snapshot
from tests.requirements import need_program

GOLDEN = Path(__file__).parent / "golden"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def render(accept: str = "") -> str:
    """The rich snapshot without the process's own figures."""
    return Exposition(rich_snapshot, process_metrics=False).render(accept).body.decode("utf-8")


@pytest.mark.parametrize(("accept", "file"), [("", "metrics.txt"), (OPENMETRICS, "openmetrics.txt")])
def test_golden(accept: str, file: str) -> None:
    """Both formats are, byte for byte, what was reviewed; ``UPDATE_GOLDEN=1`` writes them anew."""
    text = render(accept)
    text = text.replace(f'"{platform.python_version()}"', '"PYTHON"').replace(f'"{__version__}"', '"VERSION"')
    if os.environ.get("UPDATE_GOLDEN") == "1":
        (GOLDEN / file).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / file).read_text(encoding="utf-8")


def test_two_scrapes_of_one_snapshot_are_the_same() -> None:
    """Reading changes nothing: they are one page, made once. The next snapshot's tells what it took."""
    snapshots = [rich_snapshot(), rich_snapshot()]
    exposition = Exposition(lambda: snapshots[0])
    first = exposition.render()
    assert exposition.render() is first
    assert exposition.render(OPENMETRICS) is exposition.render(OPENMETRICS)
    for page in (first, exposition.render(OPENMETRICS)):
        assert b"\njoulescope_metrics_pages_total 0.0\n" in page.body
    del snapshots[0]
    assert b"\njoulescope_metrics_pages_total 2.0\n" in exposition.render().body


def test_what_a_client_invents_is_not_kept() -> None:
    """Formats without number, as a client may ask for them, do not fill the memory."""
    snapshot = rich_snapshot()
    exposition = Exposition(lambda: snapshot)
    for number in range(3 * MAX_KEPT):
        exposition.render(f"application/openmetrics-text;version=1.0.{number}")
    page = exposition.render("application/openmetrics-text;version=9.9.9")
    assert exposition.render("application/openmetrics-text;version=9.9.9") is not page


def test_many_scrapers_at_once_make_one_page() -> None:
    """Eight threads ask for the page of one snapshot at the same time, and all get the same one."""
    snapshot = rich_snapshot()
    exposition = Exposition(lambda: snapshot)
    together = threading.Barrier(8)

    def scrape(_: int) -> Page:
        together.wait(10.0)
        return exposition.render()

    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(scrape, range(8)))
    assert all(page is pages[0] for page in pages)


def test_one_scrape_reads_one_snapshot() -> None:
    """All families of a scrape, and none at start, come from a single call: figures fit together."""
    calls = []

    def get_snapshot():  # type: ignore[no-untyped-def]
        calls.append(1)
        return rich_snapshot()

    exposition = Exposition(get_snapshot)
    assert calls == []
    exposition.render()
    assert calls == [1]


def test_both_formats_parse_and_agree() -> None:
    """The reference parsers read both formats, and they hold the same samples."""

    def samples(families):  # type: ignore[no-untyped-def]
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}

    text = samples(parse_text(render()))
    assert text == samples(parse_openmetrics(render(OPENMETRICS)))
    assert not [name for name, _ in text if name.endswith("_created")]


def test_every_metric_of_the_table_is_exported() -> None:
    """The rich snapshot fills each family of the table."""
    exported = {family.name for family in parse_openmetrics(render(OPENMETRICS))}
    assert exported == {metric.family for metric in METRICS}


def test_a_nasty_model_name_survives() -> None:
    """Quotes, backslashes, newlines and non-ASCII letters come back; a lone surrogate becomes ``?``."""
    families = {family.name: family for family in parse_text(render())}
    models = [sample.labels["model"] for sample in families["joulescope_engine_info"].samples]
    assert models[1] == 'a"b\\c\nd{}=,#é漢?'


def test_exemplars_only_in_openmetrics() -> None:
    """The trace id stands on the bucket that the request fell in, and not in the plain text format."""
    assert TRACE_ID not in render()
    marked = [line for line in render(OPENMETRICS).splitlines() if TRACE_ID in line]
    assert len(marked) == 1
    assert marked[0].startswith('joulescope_request_energy_joules_bucket{engine="llama-0",le="10.0"} 33.0 # ')


def test_an_overlong_exemplar_is_left_out() -> None:
    """An exemplar beyond OpenMetrics' 128 characters would cost the whole scrape, so it goes alone."""
    state = HistogramState((1.0,), (1, 0), 0.5, (({"trace_id": "x" * 121}, 0.5, 1.0), None))
    snapshot = replace(rich_snapshot(), engines=(replace(engine_a(), joules_per_request=state),))
    text = Exposition(lambda: snapshot).render(OPENMETRICS).body.decode()
    assert "xxx" not in text
    assert 'joulescope_request_energy_joules_count{engine="llama-0"} 1.0' in text


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("", False),
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip; q=0", False),
        ("gzip;q=0.000", False),
        ("deflate", False),
    ],
)
def test_gzip_negotiation(header: str, accepted: bool) -> None:
    """gzip is used exactly when the client allows it."""
    assert accepts_gzip(header) is accepted


def test_gzip_holds_the_same_text() -> None:
    """The compressed body is the plain one, compressed, and says so in its headers."""
    snapshot = rich_snapshot()
    exposition = Exposition(lambda: snapshot)
    plain, packed = exposition.render(), exposition.render(accept_encoding="gzip")
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["Content-Encoding"] == "gzip"
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_own_cost_is_exported() -> None:
    """CPU time and memory of the process stand beside the figures."""
    text = Exposition(rich_snapshot).render().body.decode()
    assert "process_cpu_seconds_total " in text
    assert "process_resident_memory_bytes " in text


@pytest.mark.parametrize("snapshot", [rich_snapshot(), snapshot_of(LARGEST)], ids=["rich", "largest"])
def test_promtool_finds_nothing(snapshot: Snapshot) -> None:
    """``promtool check metrics`` accepts names, types and help without a word, also of the largest node."""
    promtool = need_program("promtool")
    page = Exposition(lambda: snapshot).render().body
    result = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
