"""Whatever names arrive: the page stays one that Prometheus reads, and no joule falls out of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from joulescope.attribution.tally import exemplar_labels
from joulescope.export.metric import MAX_OPEN_LABEL_VALUES, per_label
from joulescope.export.prometheus import MAX_EXEMPLAR_RUNES, Exposition, SnapshotCollector
from joulescope.label_model import OTHER, LabelTotals
from joulescope.model import EngineTotals, HistogramState, Snapshot
from tests.examples import examples
from tests.export.samples import engine_a, rich_snapshot

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
names = st.text(st.characters(codec="utf-8"), max_size=12)
anything = st.text(max_size=12)
"""Lone surrogates too."""


def rendered(engine: EngineTotals, accept: str = "") -> str:
    snapshot = replace(rich_snapshot(), engines=(engine,))
    return Exposition(lambda: snapshot, process_metrics=False).render(accept).body.decode("utf-8")


def both(engine: EngineTotals) -> Iterator[list[Sample]]:
    """The samples that the two reference parsers read."""
    for accept, parse in (("", parse_text), (OPENMETRICS, parse_openmetrics)):
        yield [sample for family in parse(rendered(engine, accept)) for sample in family.samples]


@settings(deadline=None, max_examples=examples(30))
@given(st.sets(names, max_size=6), anything)
def test_any_name_comes_back_as_it_was(adapters: set[str], model: str) -> None:
    """Quotes, newlines, backslashes, NULs, emoji: both reference parsers read back what was written."""
    told = {name: LabelTotals({"prefill": 1.0, "decode": 2.0}, 3, 4) for name in adapters}
    engine = replace(engine_a(), adapters=told, info=replace(engine_a().info, model=model))
    for samples in both(engine):
        name = "joulescope_adapter_energy_joules_total"
        assert {sample.labels["lora"] for sample in samples if sample.name == name} == adapters
        (identity,) = (sample for sample in samples if sample.name == "joulescope_engine_info")
        assert identity.labels["model"] == model.encode("utf-8", "replace").decode()


@settings(deadline=None, max_examples=examples(60))
@given(st.dictionaries(anything, st.integers(0, 1000), max_size=60), st.lists(anything, max_size=4))
def test_what_has_no_room_is_other_and_nothing_is_lost(values: dict[str, int], known: list[str]) -> None:
    """Known values are always there; all values together are what came in, and their number is bounded."""
    known = list(dict.fromkeys(known))
    points = list(per_label(("e",), values, known))
    assert sum(point.value for point in points) == sum(values.values())  # type: ignore[misc]
    assert len(points) <= len(known) + MAX_OPEN_LABEL_VALUES + 1
    assert len(values) <= len(known) + MAX_OPEN_LABEL_VALUES or points[-1].labels[-1] == OTHER


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(st.tuples(anything, st.integers(1, 9)), max_size=80))
def test_a_series_once_shown_stays_and_never_falls(counted: list[tuple[str, int]]) -> None:
    """Counts that grow, and new values among them: every scrape has all series of the one before."""
    values: dict[str, int] = {}
    before: dict[tuple[str, ...], float] = {}
    for value, more in counted:
        values[value] = values.get(value, 0) + more
        after = {point.labels: point.value for point in per_label((), values, ("stop",))}
        assert all(after[labels] >= number for labels, number in before.items())  # type: ignore[operator]
        before = after  # type: ignore[assignment]


@settings(deadline=None, max_examples=examples(60))
@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-01", fullmatch=True))
def test_exemplars_keep_to_their_length(trace_parent: str) -> None:
    """Whatever a client sends as its trace: the page can be read, and no exemplar is too long."""
    labels = exemplar_labels(trace_parent)
    exemplar = (labels, 0.5, 1.7e9) if labels else None
    state = HistogramState((1.0,), (1, 0), 0.5, (exemplar, None))
    engine = replace(engine_a(), joules_per_request=state)
    families = {family.name: family for family in parse_openmetrics(rendered(engine, OPENMETRICS))}
    shown = [sample.exemplar for sample in families["joulescope_request_energy_joules"].samples]
    for each in filter(None, shown):
        assert sum(len(name) + len(text) for name, text in each.labels.items()) <= MAX_EXEMPLAR_RUNES


@settings(deadline=None, max_examples=examples(20))
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_a_scrape_sees_what_is_there_and_nothing_else(chosen: list[int]) -> None:
    """Snapshots in any order, also back and forth: each scrape is of the one that is there."""
    snapshots = [replace(rich_snapshot(), wall_seconds=1.7e9 + number) for number in range(4)]
    current: list[Snapshot] = [snapshots[0]]
    exposition = Exposition(lambda: current[0], process_metrics=False)
    for number in chosen:
        current[0] = snapshots[number]
        (line,) = [
            line
            for line in exposition.render().body.decode().splitlines()
            if line.startswith("joulescope_snapshot_timestamp_seconds ")
        ]
        assert float(line.split()[1]) == 1.7e9 + number


@settings(deadline=None, max_examples=examples(30))
@given(st.lists(st.dictionaries(names, st.floats(), max_size=4), min_size=1, max_size=4), st.booleans())
def test_every_line_is_what_the_library_writes(scrapes: list[dict[str, float]], openmetrics: bool) -> None:
    """Scrape after scrape, with names that come and go and any values: the lines of the library."""
    accept = OPENMETRICS if openmetrics else ""
    current = [rich_snapshot()]
    exposition = Exposition(lambda: current[0], process_metrics=False)
    library = SnapshotCollector(lambda: current[0])
    for number, values in enumerate(scrapes):
        told = {name: LabelTotals({"prefill": value, "decode": value}) for name, value in values.items()}
        engine = replace(engine_a(), adapters=told, tokens={"generated": number})
        current[0] = replace(rich_snapshot(), engines=(engine,), wall_seconds=1.7e9 + number)
        ours, theirs = exposition.render(accept).body, choose_encoder(accept)[0](library)
        assert without_pages(ours) == without_pages(theirs)


def without_pages(page: bytes) -> list[bytes]:
    """Lines in order of their text; what making the pages took is another figure for each exposition."""
    return sorted(line for line in page.split(b"\n") if not line.startswith(b"joulescope_metrics_page"))
