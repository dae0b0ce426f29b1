"""Every alert in the real promtool: when it fires, and when it must not.

Each story says all alerts that fire at a time, so that none may fire beside the one that is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from tests.promtool import RULES, Firing, Values, alerts_missed, level, rising, texts_missed
from tests.rules import sidecars as s
from tests.rules.sidecars import ENGINE, GPU, INSTANCE, healthy, throttled, unattributed
from tools.rules import RUNBOOKS

pytestmark = pytest.mark.real

ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((RULES / "joulescope.alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]

NOTHING: Firing = ()


def _of(alert: str, severity: str, **labels: str) -> dict[str, str]:
    return {"alertname": alert, "severity": severity, "instance": INSTANCE, **labels}


FAST = _of("JoulescopeEnergyRegression", "critical", engine=ENGINE, window="30m")
SLOW = _of("JoulescopeEnergyRegression", "warning", engine=ENGINE, window="6h")
UNLEARNED = _of("JoulescopeBaselineMissing", "info", engine=ENGINE)
IDLE = _of("JoulescopeGpuIdle", "info", gpu=GPU)
THRASH = _of("JoulescopeKvCacheThrashing", "warning", engine=ENGINE, reason="preemption")
ABORTS = _of("JoulescopeAbortedEnergy", "warning", engine=ENGINE, reason="abort")
HOT = _of("JoulescopeGpuThrottled", "warning", gpu=GPU, reason="thermal")
CAPPED = _of("JoulescopeGpuThrottled", "info", gpu=GPU, reason="power_cap")
OPEN = _of("JoulescopeConservationResidual", "critical", gpu=GPU)
BLIND = _of("JoulescopeSensorDown", "critical", gpu=GPU)
BLIND_ENGINE = _of("JoulescopeSensorDown", "critical", gpu=GPU, engine=ENGINE)
BLIND_HOST = _of("JoulescopeHostSensorDown", "warning", domain="package-0")
UNKNOWN = _of("JoulescopeUnattributedEnergy", "warning", gpu=GPU, reason="records_lost")
DROPS = _of("JoulescopeRecordsDropped", "warning", engine=ENGINE)
LATE = _of("JoulescopeAttributionLagging", "warning")
DOWN = _of("JoulescopeSidecarDown", "warning")
ABSENT = {"alertname": "JoulescopeAbsent", "severity": "warning"}
STILL = _of("JoulescopeSnapshotStale", "critical")
LOSES = _of("JoulescopeExporterLosing", "warning", exporter="request_log")
FAILS = _of("JoulescopeLedgerFailing", "warning", operation="upload")
EXPIRES = _of("JoulescopeCertificateExpiring", "warning")
DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Story:
    """What happens to an otherwise healthy sidecar, and which alerts fire when."""

    what: str
    minutes: float
    expected: Mapping[str, Firing]
    changed: Mapping[str, Values | None] = field(default_factory=dict)
    seconds: int = 30
    """Between two samples."""

    @property
    def series(self) -> Mapping[str, Values]:
        return healthy(round(self.minutes * 60 / self.seconds) + 1, self.changed)


def _both(*stretches: tuple[float | None, int]) -> dict[str, Values | None]:
    """The baseline's two counters: 8 kJ expected every 30 s, and of it the index that each stretch has."""
    actual = [(rise if rise is None or rise < 0 else 8000 * rise, count) for rise, count in stretches]
    expected = [(rise if rise is None or rise < 0 else 8000.0, count) for rise, count in stretches]
    return {s.ACTUAL: rising(*actual), s.EXPECTED: rising(*expected)}


def _scaled(factor: float, *names: str, at: int, count: int) -> dict[str, Values | None]:
    """Counters that rise by another factor after ``at`` samples."""
    usual = healthy(2)
    result: dict[str, Values | None] = {}
    for name in names:
        rise = usual[name][1] or 0.0
        result[name] = rising((rise, at), (rise * factor, count))
    return result


_WORK = (s.EXPECTED, s.ACTUAL, s.STEPS, s.DECODE, s.PREFILL, s.TOKENS, s.FINISHED, s.MEASURED)

REGRESSION = (
    Story("a healthy sidecar", 100, {"100m": NOTHING}),
    # 20 % more from 60 min on: half of the long window and the pause of 2 minutes later it is told.
    Story(
        "the same work costs 20 % more",
        200,
        {"60m": NOTHING, "74m": NOTHING, "79m": [FAST], "120m": [FAST, SLOW], "200m": [FAST, SLOW]},
        _both((1, 120), (1.2, 281)),
    ),
    Story(
        "it is mended",
        200,
        {"88m": [FAST], "100m": [SLOW], "160m": NOTHING},
        _both((1, 120), (1.2, 60), (1, 221)),
    ),
    Story("7 % more", 300, {"100m": NOTHING, "300m": [SLOW]}, _both((1, 120), (1.07, 481))),
    Story("4 % more", 300, {"300m": NOTHING}, _both((1, 120), (1.04, 481))),
    Story("less than it should cost", 200, {"200m": NOTHING}, _both((1, 120), (0.7, 281))),
    Story("a blip of two minutes", 100, {"64m": NOTHING, "70m": NOTHING}, _both((1, 120), (2, 4), (1, 77))),
    Story(
        "the mix shifts: joules per token double, and so does what the work should cost",
        200,
        {"80m": NOTHING, "200m": NOTHING},
        _scaled(2.0, *(name for name in _WORK if name is not s.TOKENS), at=120, count=281),
    ),
    Story("the load halves", 200, {"80m": NOTHING, "200m": NOTHING}, _scaled(0.5, *_WORK, at=120, count=281)),
    Story(
        "the load doubles", 200, {"80m": NOTHING, "200m": NOTHING}, _scaled(2.0, *_WORK, at=120, count=281)
    ),
    Story(
        "the sidecar restarts, and its counters with it",
        200,
        {f"{minute}m": NOTHING for minute in (60, 61, 65, 90, 200)},
        _both((1, 120), (-1, 1), (1, 280)),
    ),
    Story(
        "a restart amid a regression",
        200,
        {"100m": [FAST, SLOW], "130m": [FAST, SLOW]},
        _both((1, 20), (1.3, 200), (-1, 1), (1.3, 180)),
    ),
    Story("no baseline yet", 100, {"100m": NOTHING}, {s.ACTUAL: None, s.EXPECTED: None, s.ERROR: None}),
    Story("the error is not known", 100, {"100m": NOTHING}, {**_both((1.5, 201)), s.ERROR: None}),
    Story(
        "the baseline is not sure enough",
        200,
        {"200m": NOTHING},
        {**_both((1.25, 401)), s.ERROR: level((0.09, 401))},
    ),
    Story("too few steps to tell", 200, {"200m": NOTHING}, {**_both((1.5, 401)), s.STEPS: rising((20, 401))}),
    Story(
        "nothing runs",
        200,
        {"200m": NOTHING},
        _scaled(0.0, *_WORK, at=120, count=281),
    ),
    Story(
        "the first sample of a counter that was never seen is no rise",
        70,
        {"60m": NOTHING, "61m": NOTHING, "70m": NOTHING},
        {
            s.ACTUAL: [None] * 120 + rising((8000, 21), first=9e6),
            s.EXPECTED: [None] * 120 + rising((8000, 21), first=1e6),
        },
    ),
    Story(
        "a regression from the first sample on",
        100,
        {"61m": NOTHING, "66m": [FAST]},
        {name: [None] * 120 + (values or [])[:81] for name, values in _both((1.3, 201)).items()},
    ),
)

BASELINE = (
    Story(
        "twelve hours of work and no baseline",
        750,
        {"600m": NOTHING, "745m": [UNLEARNED]},
        {s.LEARNED: level((0.4, 376)), s.ACTUAL: None, s.EXPECTED: None},
        120,
    ),
    Story("learned at last", 750, {"745m": NOTHING}, {s.LEARNED: level((0.4, 300), (1, 76))}, 120),
    Story(
        "no work to learn from",
        750,
        {"745m": NOTHING},
        {s.LEARNED: level((0.4, 376)), s.STEPS: rising((40, 376))},
        120,
    ),
    Story("baselines are not made here", 750, {"745m": NOTHING}, {s.LEARNED: None}, 120),
)

WASTE = (
    Story(
        "a GPU is held and not used",
        500,
        {"300m": NOTHING, "430m": [IDLE]},
        {s.MEASURED: rising((3000, 251)), s.IDLE: rising((2990, 251)), s.STEPS: rising((0, 251))},
        120,
    ),
    Story(
        "a GPU without an engine is idle by right",
        500,
        {"430m": NOTHING},
        {s.MEASURED: rising((3000, 251)), s.IDLE: rising((2990, 251)), s.ENGINE_UP: level((0, 251))},
        120,
    ),
    Story(
        "an hour of work ends the wait",
        500,
        {"430m": NOTHING},
        {s.MEASURED: rising((3000, 251)), s.IDLE: rising((2990, 100), (100, 30), (2990, 121))},
        120,
    ),
    Story(
        "the KV cache is too small",
        60,
        {"30m": NOTHING, "50m": [THRASH]},
        {s.PREEMPTED: rising((0, 60), (900, 61))},
    ),
    Story("some preemptions", 60, {"60m": NOTHING}, {s.PREEMPTED: rising((300, 121))}),
    Story(
        "preemptions of an engine that hardly runs",
        60,
        {"60m": NOTHING},
        {s.PREEMPTED: rising((900, 121)), s.STEPS: rising((20, 121))},
    ),
    Story(
        "preemptions and a restart of the sidecar",
        60,
        {"60m": NOTHING},
        {
            s.PREEMPTED: rising((300, 60), (-1, 1), (300, 60)),
            s.DECODE: rising((6000, 60), (-1, 1), (6000, 60)),
        },
    ),
    Story("clients hang up", 120, {"20m": NOTHING, "110m": [ABORTS]}, {s.ABORTED: rising((2400, 241))}),
    Story(
        "one of few clients hangs up",
        120,
        {"110m": NOTHING},
        {s.ABORTED: rising((2400, 241)), s.FINISHED: rising((0.2, 241))},
    ),
    Story("nothing is known of waste", 120, {"110m": NOTHING}, {s.ABORTED: None, s.PREEMPTED: None}),
)

GPUS = (
    Story("too hot", 60, {"30m": NOTHING, "45m": [HOT]}, {throttled("thermal"): level((0, 60), (1, 61))}),
    Story(
        "too hot for a moment",
        60,
        {"32m": NOTHING, "45m": NOTHING},
        {throttled("thermal"): level((0, 60), (1, 2), (0, 59))},
    ),
    Story(
        "at the power limit for hours",
        180,
        {"60m": NOTHING, "170m": [CAPPED]},
        {throttled("power_cap"): level((0, 60), (1, 301))},
    ),
    Story(
        "at the power limit now and then",
        180,
        {"170m": NOTHING},
        {throttled("power_cap"): [float(at % 3 == 0) for at in range(361)]},
    ),
    Story(
        "the driver tells no reasons",
        60,
        {"60m": NOTHING},
        {throttled("power_cap"): None, throttled("thermal"): None},
    ),
)

ACCOUNT = (
    Story(
        "the account does not close",
        20,
        {"10m": NOTHING, "12m": [OPEN]},
        {s.RESIDUAL: level((0, 22), (2, 19))},
    ),
    Story(
        "the host's account does not close",
        20,
        {"12m": [_of("JoulescopeConservationResidual", "critical", domain="package-0")]},
        {s.series_name("joulescope_host_conservation_residual_joules", domain="package-0"): level((-1, 41))},
    ),
    Story(
        "a GPU stops answering",
        30,
        {"10m": NOTHING, "12m": NOTHING, "15m": [BLIND]},
        {
            s.SENSOR_UP: level((1, 20), (0, 41)),
            s.MEASURED: rising((9000, 20), (None, 41)),
        },
    ),
    Story("it answers again soon", 30, {"20m": NOTHING}, {s.SENSOR_UP: level((1, 20), (0, 5), (1, 36))}),
    Story("a GPU that an engine names was never read", 30, {"15m": [BLIND_ENGINE]}, {s.SENSOR_UP: None}),
    Story(
        "its engine left",
        30,
        {"15m": NOTHING},
        {s.SENSOR_UP: None, s.ENGINE_UP: level((0, 61))},
    ),
    Story(
        "a counter of the host is not read any more",
        40,
        {"18m": NOTHING, "35m": [BLIND_HOST]},
        {s.HOST_SENSOR_UP: level((1, 20), (0, 61))},
    ),
    Story(
        "it is read again soon",
        40,
        {"18m": NOTHING, "35m": NOTHING},
        {s.HOST_SENSOR_UP: level((1, 20), (0, 10), (1, 51))},
    ),
    Story("no host energy", 40, {"35m": NOTHING}, {s.HOST_SENSOR_UP: None}),
    Story(
        "records are missing",
        60,
        {"10m": NOTHING, "50m": [UNKNOWN]},
        {unattributed("records_lost"): rising((900, 121))},
    ),
    Story("nobody's GPU", 60, {"50m": NOTHING}, {unattributed("no_engine"): rising((9000, 121))}),
    Story(
        "the sidecar restarts, energy included",
        60,
        {"50m": NOTHING},
        {
            unattributed("records_lost"): rising((0, 60), (-1, 1), (200, 2), (0, 58)),
            s.MEASURED: rising((9000, 60), (-1, 1), (9000, 60)),
        },
    ),
    Story("the hook drops", 40, {"10m": NOTHING, "40m": [DROPS]}, {s.DROPPED: rising((0, 40), (100, 41))}),
    Story("one record was dropped", 40, {"40m": NOTHING}, {s.DROPPED: rising((0, 40), (1, 1), (0, 40))}),
    Story("nothing to drop", 40, {"40m": NOTHING}, {s.STEPS: rising((0, 81))}),
    Story(
        "the hook's count began again",
        40,
        {"25m": NOTHING, "40m": NOTHING},
        {s.DROPPED: rising((0, 40), (-1, 1), (0, 40), first=500)},
    ),
    Story("the account is behind", 30, {"10m": NOTHING, "20m": [LATE]}, {s.LAG: level((0.6, 20), (45, 41))}),
    Story("nothing was accounted yet", 30, {"20m": NOTHING}, {s.LAG: None}),
)

SIDECAR = (
    Story(
        "a sidecar is down",
        30,
        {"10m": NOTHING, "17m": [DOWN]},
        {s.UP: level((1, 20), (0, 41)), s.SNAPSHOT: rising((30, 20), (None, 41))},
    ),
    Story(
        "another target is down",
        30,
        {"17m": NOTHING},
        {'up{job="node", instance="node-1:9100"}': level((0, 61))},
    ),
    Story("no sidecar at all", 30, {"10m": NOTHING, "16m": [ABSENT]}, {s.BUILD: None}),
    Story(
        "the figures stand still",
        30,
        {"10m": NOTHING, "17m": [STILL]},
        {s.SNAPSHOT: rising((30, 20), (0, 41))},
    ),
    Story("a sidecar just started", 30, {"10m": NOTHING}, {s.SNAPSHOT: rising((None, 19), (30, 42))}),
    Story(
        "a disk is full",
        60,
        {"20m": NOTHING, "58m": [LOSES]},
        {s.WRITTEN: rising((120, 60), (0, 61)), s.LOST: rising((0, 60), (120, 61))},
    ),
    Story("one request was lost", 60, {"58m": NOTHING}, {s.LOST: rising((0, 60), (1, 1), (0, 60))}),
    Story("no requests", 60, {"58m": NOTHING}, {s.WRITTEN: rising((0, 121))}),
    Story(
        "the ledger's store does not answer, and later does",
        90,
        {"20m": NOTHING, "58m": [FAILS], "88m": NOTHING},
        {s.LEDGER_FAILURES: rising((0, 40), (1, 80), (0, 61))},
    ),
    Story(
        "a store hiccups",
        60,
        {"40m": NOTHING, "58m": NOTHING},
        {s.LEDGER_FAILURES: rising((0, 60), (1, 3), (0, 58))},
    ),
    Story(
        "the certificate is good for ten days",
        100,
        {"50m": NOTHING, "90m": [EXPIRES]},
        {s.NOT_AFTER: level((10 * DAY_SECONDS, 201))},
    ),
    Story(
        "it is renewed",
        100,
        {"80m": [EXPIRES], "95m": NOTHING},
        {s.NOT_AFTER: level((10 * DAY_SECONDS, 180), (90 * DAY_SECONDS, 21))},
    ),
    Story(
        "it comes into its last two weeks",
        200,
        {"90m": NOTHING, "190m": [EXPIRES]},
        {s.NOT_AFTER: level((14 * DAY_SECONDS + 6000, 401))},
    ),
    Story(
        "it lives for a day and is renewed all the time",
        200,
        {"190m": NOTHING},
        {s.NOT_AFTER: [DAY_SECONDS + 3600.0 * (at // 80) for at in range(401)]},
    ),
    Story("no TLS", 100, {"90m": NOTHING}, {s.NOT_AFTER: None}),
    Story("no exporter", 60, {"58m": NOTHING}, {s.WRITTEN: None, s.LOST: None}),
)

STORIES = (*REGRESSION, *BASELINE, *WASTE, *GPUS, *ACCOUNT, *SIDECAR)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.what)
def test_alerts_fire_when_they_should_and_no_others(story: Story, tmp_path: Path) -> None:
    """At each time of the story exactly these alerts fire."""
    assert alerts_missed(tmp_path, story.series, story.expected, story.seconds) == ""


def test_each_alert_fires_in_a_story() -> None:
    """None is only written: some story has each alert of the file, and some story lets it be."""
    told = {alert["alertname"] for story in STORIES for firing in story.expected.values() for alert in firing}
    assert told == set(ALERTS)


def test_an_alert_that_does_not_fire_is_noticed(tmp_path: Path) -> None:
    """The check fails where an expected alert is missing, and where one fires that was not expected."""
    hot = {throttled("thermal"): level((1, 61))}
    assert "JoulescopeGpuThrottled" in alerts_missed(tmp_path, healthy(61), {"30m": [HOT]})
    assert "JoulescopeGpuThrottled" in alerts_missed(tmp_path, healthy(61, hot), {"30m": NOTHING})


def test_the_texts_carry_the_figures(tmp_path: Path) -> None:
    """Shares in percent, times in words, and who it is about."""
    late = {s.LAG: level((75, 61))}
    labels = {"severity": "warning", "job": "joulescope", "instance": INSTANCE}
    texts = {
        "summary": f"The account of {INSTANCE} is 1m 15s behind",
        "description": f"The newest instant up to which the sidecar {INSTANCE} has divided all energy is"
        " 1m 15s ago. Usual is a second; an engine that is silent is waited for 10 seconds.",
        "runbook_url": f"{RUNBOOKS}JoulescopeAttributionLagging.md",
    }
    alert = "JoulescopeAttributionLagging"
    assert texts_missed(tmp_path, healthy(61, late), "20m", alert, [(labels, texts)]) == ""
    dropped = {s.DROPPED: rising((375, 81))}
    labels |= {"engine": ENGINE}
    texts = {
        "summary": f"The hook in {ENGINE} drops records",
        "description": f"The hook of engine {ENGINE} dropped 25% as many records in the last 15 minutes as"
        f" the engine made steps, since the sidecar {INSTANCE} did not take them in time. The joules of what"
        " is missing are unattributed.",
        "runbook_url": f"{RUNBOOKS}JoulescopeRecordsDropped.md",
    }
    alert = "JoulescopeRecordsDropped"
    assert texts_missed(tmp_path, healthy(81, dropped), "40m", alert, [(labels, texts)]) == ""


def test_a_regression_names_the_command_that_explains_it(tmp_path: Path) -> None:
    """With the sidecar and the engine put in, in the command and in the address of the dashboard."""
    series = healthy(61, _both((1.25, 61)))
    labels = {"severity": "critical", "job": "joulescope", "instance": INSTANCE}
    labels |= {"engine": ENGINE, "window": "30m"}
    texts = {
        "summary": f"{ENGINE} draws 25% more energy for the same work",
        "description": f"The work of engine {ENGINE} on {INSTANCE} in the last 30 minutes cost 25% more"
        " joules than its baseline says of the same tokens, batches and contexts; the last 5 minutes too are"
        " more than 10% above it. A change of load or of the mix of requests does not do that: look for"
        " slower kernels, lost prefix-cache hits, lower clocks or a slower host.",
        "runbook_url": f"{RUNBOOKS}JoulescopeEnergyRegression.md",
        "diagnose": f"joulescope diagnose http://{INSTANCE} --engine '{ENGINE}' --last 30m --before 1h",
        "dashboard": f"/d/joulescope-efficiency?var-instance={quote(INSTANCE, safe='')}&var-engine={ENGINE}",
    }
    assert texts_missed(tmp_path, series, "10m", "JoulescopeEnergyRegression", [(labels, texts)]) == ""
