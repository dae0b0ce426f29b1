"""Figures by adapter and tenant: the engine's own once more, to the microjoule, whatever names arrive."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulescope.attribution.breakdown import MAX_REFUSED, Breakdown
from joulescope.attribution.labels import LabelRules
from joulescope.attribution.policy import Policy
from joulescope.config import Settings
from joulescope.daemon.label_rules import label_rules
from joulescope.hook import wire
from joulescope.label_model import BASE_ADAPTER, NO_TENANT, OTHER, LabelTotals
from joulescope.model import EngineTotals, FinishedRequest, OpenRequest, RequestStarted
from joulescope.pipeline import Pipeline
from tests.attribution.test_properties import run, worlds
from tests.examples import examples

RULES = LabelRules(
    adapters=("always",), most=2, tenant_from="request_id", tenant_pattern=re.compile("(?P<tenant>[a-z]+)~")
)
ADAPTERS = ("", "", "always", "a", "b", "c", "d", "base", "other")
IDS = ("", "no-tenant", "acme~1", "acme~2", "globex~1", "initech~1", "hooli~1", "other~1")


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    world=worlds(),
    names=st.lists(st.tuples(st.sampled_from(ADAPTERS), st.sampled_from(IDS)), min_size=1, max_size=9),
    recompute_to=st.sampled_from(["overhead", "request"]),
)
def test_by_adapter_and_by_tenant_is_the_sum_of_their_requests(
    world: list[object], names: list[tuple[str, str]], recompute_to: str
) -> None:
    """At any time, open requests included, each name's joules are those of its requests, to the microjoule;
    all names together are what is attributed; and no counter falls."""
    name(world, names)
    before: dict[object, float] = {}
    for pipeline, snapshot, finished in run(world, Policy(labels=RULES, recompute_to=recompute_to)):
        after: dict[object, float] = {}
        for engine in snapshot.engines:
            check_sums(engine)
            requests = [*finished, *pipeline.open_requests().costliest(1000)]
            own = [request for request in requests if request.engine == engine.info.engine]
            check_requests(engine.adapters, BASE_ADAPTER, [(r.lora, r) for r in own])
            tenants = tenants_of(own)
            check_requests(engine.tenants, NO_TENANT, [(tenants[r.request_id], r) for r in own])
            after.update(counters(engine))
        assert all(after[key] >= value for key, value in before.items())
        before = after


def name(world: list[object], names: Sequence[tuple[str, str]]) -> None:
    """Gives the requests of a world adapters and ids."""
    for item in world:
        if isinstance(item, wire.RequestStart):
            number = 7 * item.session + item.request
            item.lora, item.external_id = names[number % len(names)]
            item.request_id = f"{item.external_id}|{number}"


def tenants_of(requests: Iterable[FinishedRequest | OpenRequest]) -> dict[str, str]:
    """By the id, independently of the rules' own code."""
    found = {}
    for request in requests:
        tenant, tilde, _ = (request.external_id or request.request_id).partition("~")
        found[request.request_id] = tenant if tilde else ""
    return found


def check_sums(engine: EngineTotals) -> None:
    attributed = Counter[str]()
    for (_, phase), joules in engine.attributed_joules.items():
        attributed[phase] += round(1e6 * joules)
    for told in (engine.adapters, engine.tenants):
        assert sum(each.generated_tokens for each in told.values()) == engine.tokens.get("generated", 0)
        assert sum(each.requests_finished for each in told.values()) == sum(engine.requests_finished.values())
        for phase in ("prefill", "decode"):
            assert sum(round(1e6 * each.joules[phase]) for each in told.values()) == attributed[phase]


def check_requests(
    told: Mapping[str, LabelTotals],
    base: str,
    requests: Iterable[tuple[str, FinishedRequest | OpenRequest]],
) -> None:
    expected = Counter[str]()
    for value, request in requests:
        key = (value if value in told else OTHER) if value else base
        expected[key] += round(1e6 * (request.attributed_joules or 0.0))
    for key, each in told.items():
        assert round(1e6 * sum(each.joules.values())) == expected[key]
    assert set(+expected) <= set(told)


def counters(engine: EngineTotals) -> dict[object, float]:
    found: dict[object, float] = {}
    for label, told in (("lora", engine.adapters), ("tenant", engine.tenants)):
        found[engine.info.engine, label] = engine.refused_labels[label]
        for value, each in told.items():
            key = (engine.info.engine, label, value)
            found[(*key, "tokens")] = each.generated_tokens
            found[(*key, "finished")] = each.requests_finished
            found.update({(*key, phase): joules for phase, joules in each.joules.items()})
    return found


def test_who_is_listed_has_a_series_and_who_comes_first_keeps_it() -> None:
    """Listed names are there from the start, the first others find room, the rest is ``other``, for good."""
    breakdown = Breakdown("adapter", "base", ("listed",), most=2)
    assert list(breakdown.totals({"prefill": 0, "decode": 0}, 0)) == ["base", "listed"]
    codes = [breakdown.code(each) for each in ("x", "", "y", "z", "w", "z", "x", "listed", "other", "base")]
    assert codes == [3, 0, 4, 1, 1, 1, 3, 2, 1, 0]
    assert breakdown.refused == 2
    assert list(breakdown.totals({"prefill": 0, "decode": 0}, 0)) == ["base", "other", "listed", "x", "y"]


def test_no_room_at_all_is_room_for_the_listed() -> None:
    """With no room for others each of them is ``other``."""
    breakdown = Breakdown("adapter", "base", ("listed",), most=0)
    assert [breakdown.code(each) for each in ("x", "listed")] == [1, 2]


def test_names_that_look_alike_when_written_are_one() -> None:
    """A lone surrogate cannot be written; two names that differ in nothing else share a series."""
    breakdown = Breakdown("adapter", "base", (), most=2)
    assert [breakdown.code(each) for each in ("a\ud800", "a\ud801", "a?")] == [2, 2, 2]
    assert list(breakdown.totals({"prefill": 0, "decode": 0}, 0)) == ["base", "a?"]


def test_refused_names_do_not_fill_the_memory() -> None:
    """Names without number are counted up to a bound and then no further."""
    breakdown = Breakdown("tenant", "none", (), most=0)
    for number in range(MAX_REFUSED + 50):
        breakdown.code(f"t{number}")
    assert breakdown.refused == MAX_REFUSED


@pytest.mark.parametrize(
    ("external_id", "tenant"),
    [
        ("chatcmpl-acme~7f3", "acme"),
        ("cmpl-team-a~7f3-0", "team-a"),
        ("embd-acme~1-0", "acme"),
        ("1_cmpl-acme~7f3-0", "acme"),
        ("generate-tokens-acme~1", "acme"),
        ("acme~7f3", "acme"),
        ("acme~globex~1", "acme"),
        ("chatcmpl-cmpl-1~x", "cmpl-1"),
        ("chatcmpl-7f3a", "none"),
        ("chatcmpl-~x", "none"),
        ("chatcmpl-" + "a" * 64 + "~x", "none"),
        ("chatcmpl- acme~x", "none"),
        ("chatcmpl-x/acme~x", "none"),
        ("", "none"),
    ],
)
def test_the_tenant_stands_before_the_clients_id(external_id: str, tenant: str) -> None:
    """By default it is what comes before a tilde; vLLM's own prefix is no part of it."""
    rules = label_rules(Settings(tenant_from="request_id"))
    assert rules.tenant_of(RequestStarted("e", 1, "", 0, external_id)) == tenant


@pytest.mark.parametrize(
    ("lora", "tenant"), [("acme~sql", "acme"), ("sql", "sql"), ("", "none"), ("s" * 80, "s" * 63)]
)
def test_an_adapter_may_stand_for_a_tenant(lora: str, tenant: str) -> None:
    """Its name is the tenant, or what the pattern finds in it."""
    rules = label_rules(Settings(tenant_from="lora"))
    assert rules.tenant_of(RequestStarted("e", 1, "r", 0, lora=lora)) == tenant


def test_a_group_that_found_nothing_is_no_tenant() -> None:
    """An optional group may be absent from a match."""
    rules = LabelRules(tenant_from="request_id", tenant_pattern=re.compile("x(?P<tenant>a)?"))
    assert rules.tenant_of(RequestStarted("e", 1, "xb", 0)) == "none"


def test_without_tenants_nothing_is_said_of_them() -> None:
    """Off is the default: no tenant in the accounts, none in the snapshot."""
    pipeline = Pipeline()
    pipeline.take(0, [wire.Hello(time_ns=0, engine=wire.EngineFacts(model="m"))])
    pipeline.take(0, [wire.RequestStart(request=1, request_id="acme~1", time_ns=0)])
    (engine,) = pipeline.snapshot(0).engines
    assert (engine.tenants, dict(engine.refused_labels)) == ({}, {"lora": 0})
