"""The files of deploy/fleet in real Prometheus servers over real pages: what the global view says was drawn.

Intervals are shorter, and the windows of the rules 60 times; addresses and paths are those of the test.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.real.prometheus import PATIENCE_SECONDS, Prometheus
from tests.real.servers import ROOT, moved, prometheus_at
from tests.real.sidecar_pages import Account, serving
from tests.real.vllm_env import free_port
from tools.rules import load, scaled

pytestmark = pytest.mark.real

FLEET = ROOT / "deploy" / "fleet"
FASTER = 60.0
MEASURED = "joulescope_measured_energy_joules_total"
ATTRIBUTED = "joulescope_attributed_energy_joules_total"
POWER = "cluster:joulescope_measured_power_watts:rate5m"
MODEL = "meta-llama/Llama-3.1-8B"
SCRAPES_OFTEN = {"scrape_interval: 15s": "scrape_interval: 250ms"}


def _rules(folder: Path) -> dict[str, str]:
    """Where the rules are found, made faster."""
    for source in (ROOT / "deploy" / "prometheus", FLEET / "federation"):
        for path in source.glob("*.rules.yaml"):
            rules = yaml.safe_load(path.read_text())
            (folder / path.name).write_text(yaml.safe_dump(scaled(rules, FASTER), sort_keys=False))
    return {"/etc/prometheus/rules/": f"{folder}/", "evaluation_interval: 30s": "evaluation_interval: 500ms"}


def _until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


def _labels(prometheus: Prometheus, selector: str) -> list[Mapping[str, str]]:
    return [each["metric"] for each in prometheus.get("/api/v1/query", query=selector)["result"]]


def _one(prometheus: Prometheus, expression: str) -> float | None:
    """The value of an expression without labels, or nothing."""
    return prometheus.query(expression).get(())


@dataclass
class Federation:
    """Two clusters, one of them with two replicas, and what is above them."""

    north: tuple[Account, Account]
    south: Account
    above: Prometheus
    replica_b: ExitStack
    """Ends the second replica of the north."""

    def hold(self) -> None:
        for account in (*self.north, self.south):
            account.hold()


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("federation")
    north, south = (Account(8.0), Account(4.0)), Account(2.0)
    places = {**_rules(folder), **SCRAPES_OFTEN}
    text = (FLEET / "federation" / "cluster.yml").read_text()
    at = {name: f"127.0.0.1:{free_port()}" for name in ("north-a", "north-b", "south-a", "global")}

    def cluster(name: str, targets: list[Account]) -> AbstractContextManager[Prometheus]:
        where, replica = name.split("-")
        config = moved(
            text,
            {
                **places,
                "sidecar-1:5685, sidecar-2:5685": ", ".join(each.address for each in targets),
                "cluster: north": f"cluster: {where}",
                "replica: a": f"replica: {replica}",
                "alertmanager:9093": f"127.0.0.1:{free_port()}",
            },
        )
        return prometheus_at(at[name], config, folder, name)

    above = moved(
        (FLEET / "federation" / "global.yml").read_text(),
        {
            **_rules(folder),
            "scrape_interval: 30s": "scrape_interval: 500ms",
            **{f"prometheus-{name}:9090": at[name] for name in ("north-a", "north-b", "south-a")},
        },
    )
    with ExitStack() as stack:
        stack.enter_context(serving(*north, south))
        stack.enter_context(cluster("north-a", [*north]))
        replica_b = stack.enter_context(ExitStack())
        replica_b.enter_context(cluster("north-b", [*north]))
        stack.enter_context(cluster("south-a", [south]))
        yield Federation(
            north,
            south,
            stack.enter_context(prometheus_at(at["global"], above, folder, "global")),
            replica_b,
        )


def test_what_is_recorded_above_counts_each_cluster_once(federation: Federation) -> None:
    """Watts of the fleet are those of one replica of each cluster; without the rule's care they were more."""
    above = federation.above
    above.wait_for(f"count({POWER}) == 3 and on () fleet:joulescope_measured_power_watts:rate5m > 0")
    once = f'scalar(sum({POWER}{{replica="a"}}))'
    above.wait_for(f"fleet:joulescope_measured_power_watts:rate5m / {once} < 1.25")
    above.wait_for(f"sum({POWER}) / {once} > 1.4")
    idle = above.wait_for("sum(fleet:joulescope_idle_energy:ratio_rate5m)")
    assert idle == {(): pytest.approx(0.25, rel=1e-6)}
    per_token = "fleet_model:joulescope_energy_per_output_token_joules:ratio_rate5m"
    assert set(above.wait_for(f"max by (model) ({per_token})")) == {(MODEL,)}


def test_only_what_was_asked_for_came_and_says_from_where(federation: Federation) -> None:
    """Two counters, who the engines are, what is up, and sums; each with its cluster and its replica."""
    above = federation.above
    series = _labels(above, '{__name__=~".+", job!="federate", __name__!~".+:.+"}')
    series += _labels(above, '{__name__=~".+:.+", __name__!~"fleet.*"}')
    names = {each["__name__"] for each in series}
    raw = {name for name in names if ":" not in name}
    assert raw == {MEASURED, ATTRIBUTED, "joulescope_engine_info", "up"}
    assert {name.partition(":")[0] for name in names - raw} == {"model", "cluster"}
    assert {(each["cluster"], each["replica"]) for each in series} == {
        ("north", "a"),
        ("north", "b"),
        ("south", "a"),
    }


def test_joules_above_are_exactly_those_of_the_sidecars(federation: Federation) -> None:
    """To the last bit, by cluster; a plain sum counts the north twice, and a lost replica changes nothing.

    Series with times of their own get no mark of staleness: what the lost one said stands for a while.
    """
    federation.hold()
    north = sum(account.measured_joules for account in federation.north)
    south = federation.south.measured_joules
    by_cluster = f"sum by (cluster) (max without (replica) ({MEASURED}))"
    wanted = {("north",): north, ("south",): south}
    _until(lambda: federation.above.query(by_cluster) == wanted, f"{by_cluster} = {wanted}")
    _until(
        lambda: _one(federation.above, f"sum({MEASURED})") == 2 * north + south,
        "the second replica to say the same",
    )
    attributed = sum(each.attributed_joules for each in (*federation.north, federation.south))
    assert _one(federation.above, f"sum(max without (replica) ({ATTRIBUTED}))") == attributed

    federation.replica_b.close()
    federation.above.wait_for('sum(up{job="federate"}) == 2')
    assert _one(federation.above, f"sum({MEASURED})") == 2 * north + south
    assert federation.above.query(by_cluster) == wanted


@dataclass
class Written:
    """A cluster that stores and writes, an agent that writes, and what receives."""

    north: tuple[Account, Account]
    south: Account
    central: Prometheus
    start_replica_b: Callable[[], object]


def _kept(text: str) -> re.Pattern[str]:
    (write,) = yaml.safe_load(text)["remote_write"]
    (keep,) = write["write_relabel_configs"]
    return re.compile(keep["regex"])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    folder = tmp_path_factory.mktemp("written")
    north, south = (Account(8.0), Account(4.0)), Account(2.0)
    rules = _rules(folder)
    central_at = f"127.0.0.1:{free_port()}"
    central = moved((FLEET / "remote-write" / "central.yml").read_text(), rules)

    def cluster(replica: str) -> AbstractContextManager[Prometheus]:
        places = {
            **rules,
            **SCRAPES_OFTEN,
            "sidecar-1:5685, sidecar-2:5685": ", ".join(each.address for each in north),
            "replica: a": f"replica: {replica}",
            "central:9090": central_at,
        }
        config = moved((FLEET / "remote-write" / "cluster.yml").read_text(), places)
        return prometheus_at(f"127.0.0.1:{free_port()}", config, folder, f"north-{replica}")

    with ExitStack() as stack:
        stack.enter_context(serving(*north, south))
        receiver = "--web.enable-remote-write-receiver"
        received = stack.enter_context(prometheus_at(central_at, central, folder, "central", receiver))
        stack.enter_context(cluster("a"))
        places = {**SCRAPES_OFTEN, "sidecar-3:5685": south.address, "central:9090": central_at}
        agent = moved((FLEET / "remote-write" / "agent.yml").read_text(), places)
        mode = "--enable-feature=agent"
        stack.enter_context(
            prometheus_at(f"127.0.0.1:{free_port()}", agent, folder, "south", mode, agent=True)
        )
        yield Written(north, south, received, lambda: stack.enter_context(cluster("b")))


def test_the_shipped_rules_record_over_what_was_written(written: Written) -> None:
    """By cluster and by model, of the agent's cluster too, and no rule fails."""
    power = f"sum by (cluster) ({POWER}) > 0"
    assert set(written.central.wait_for(f"{power} and on () count({power}) == 2")) == {("north",), ("south",)}
    per_token = "model:joulescope_energy_per_output_token_joules:ratio_rate5m"
    assert set(written.central.wait_for(f"max by (model) ({per_token})")) == {(MODEL,)}
    groups = written.central.get("/api/v1/rules")["groups"]
    assert [rule for group in groups for rule in group["rules"] if rule.get("lastError")] == []


def test_what_was_not_named_is_not_sent(written: Written) -> None:
    """Every raw series at the receiver is one that the file keeps; histograms are not."""
    keep = _kept((FLEET / "remote-write" / "cluster.yml").read_text())
    names = {
        each["__name__"] for each in _labels(written.central, '{__name__=~".+", __name__!~".*:.*|ALERTS.*"}')
    }
    assert {MEASURED, ATTRIBUTED, "joulescope_engine_info", "up"} <= names
    assert [name for name in names if not keep.fullmatch(name)] == []
    assert [name for name in names if name.endswith("_bucket")] == []


def test_joules_received_are_exactly_those_of_the_sidecars(written: Written) -> None:
    """To the last bit, by cluster. A second replica that writes is counted twice by whoever does not look."""
    for account in (*written.north, written.south):
        account.hold()
    north = sum(account.measured_joules for account in written.north)
    south = written.south.measured_joules
    wanted = {("north",): north, ("south",): south}
    by_cluster = f"sum by (cluster) ({MEASURED})"
    _until(lambda: written.central.query(by_cluster) == wanted, f"{by_cluster} = {wanted}")

    written.start_replica_b()
    twice = {("north",): 2 * north, ("south",): south}
    _until(lambda: written.central.query(by_cluster) == twice, f"{by_cluster} = {twice}")
    assert written.central.query(f"sum by (cluster) (max without (replica) ({MEASURED}))") == wanted


def test_both_ways_of_writing_keep_the_same() -> None:
    """The agent sends what a cluster's server sends."""
    texts = [(FLEET / "remote-write" / name).read_text() for name in ("agent.yml", "cluster.yml")]
    assert len({_kept(text).pattern for text in texts}) == 1


def test_the_rules_have_what_they_read() -> None:
    """Every metric that a shipped rule or alert names is kept."""
    keep = _kept((FLEET / "remote-write" / "cluster.yml").read_text())
    rules = [rule for group in load()["groups"] for rule in group["rules"]]
    text = " ".join(rule["expr"] for rule in rules)
    named = set(re.findall(r"(?<![\w:])(?:joulescope_\w+|up)(?![\w:])", text))
    assert len(named) > 25
    assert [name for name in named if not keep.fullmatch(name)] == []
