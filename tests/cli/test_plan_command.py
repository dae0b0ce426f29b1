"""`joulescope plan`, through the command line, on the minutes of a simulated run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from joulescope.cli.main import main
from joulescope.clock import ManualClock
from joulescope.export.minute_ring import MinuteRing
from joulescope.ledger.writer import LedgerWriter, Rotation
from joulescope.minute_model import EngineMinute
from joulescope.minutes import json_line
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun
from tests.export.test_minutes_http import serving
from tests.ledger.rows import minute_row


@pytest.fixture(scope="module")
def minutes() -> list[EngineMinute]:
    found: list[EngineMinute] = []
    for _ in Replay(SimulatedRun(62.0, rate_per_second=5.0, truth=False).records(), on_minute=found.append):
        pass
    return found


@pytest.fixture(scope="module")
def source(minutes: list[EngineMinute], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "run.jsonl"
    path.write_text("".join(map(json_line, minutes)))
    return path


def test_it_tells_people_what_the_engine_could_serve(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(source), "--goal", "itl=20ms", "--what-if", "gpus=2"]) == 0
    text = capsys.readouterr().out
    assert "── as observed" in text
    assert "── gpus=2" in text
    assert "goal ITL ≤ 20 ms" in text
    assert "assumes: two all-reduces a layer" in text
    assert "* beyond what was seen" in text


def test_it_tells_programs_the_same(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--power-cap", "5kW", "--host-watts", "400W", "--rate", "7", "--json"]
    assert main(["plan", str(source), *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "joulescope.plan/1"
    (only,) = told["alternatives"]
    assert only["power_cap"]["cap"] == {"watts": 5000.0, "per": "node", "gpus": 8, "host_watts": 400.0}
    assert all(way["watts"] <= 4600.01 for way in only["power_cap"]["ways"])
    figure = only["at_load"]["joules_per_token"]
    assert figure["low"] < figure["value"] < figure["high"]


def test_a_goal_may_be_a_percentile(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", str(source), "--goal", "ttft-p99=1s, itl-p95=50ms", "--goal", "itl=40ms"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "goal TTFT p99 ≤ 1000 ms and ITL p95 ≤ 50 ms and ITL ≤ 40 ms" in text
    assert "TTFT ms: p50 " in text
    assert main([*arguments, "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["alternatives"]
    rate = only["goals"]["requests_per_second"]
    assert set(rate["percentiles"]) == {"first_token_seconds_p99", "inter_token_seconds_p95"}
    assert rate["percentiles"]["first_token_seconds_p99"]["value"] <= 1.0
    assert rate["sure_load"] < rate["load"]
    assert len(only["at_load"]["percentiles"]) == 8


def test_it_plans_from_a_ledger(
    source: Path, minutes: list[EngineMinute], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same as from the file of the same minutes."""
    begin = min(each.start_wall_seconds for each in minutes)
    writer = LedgerWriter(tmp_path, ManualClock(), begin, Rotation())
    writer.add("minutes", [minute_row(each) for each in minutes])
    writer.close()
    assert main(["plan", str(tmp_path), "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert main(["plan", str(source), "--json"]) == 0
    assert kept["alternatives"] == json.loads(capsys.readouterr().out)["alternatives"]


def test_it_plans_from_a_running_sidecar(
    source: Path, minutes: list[EngineMinute], capsys: pytest.CaptureFixture[str]
) -> None:
    """Through its page of minutes, over HTTP."""
    ring = MinuteRing()
    ring.take(minutes)
    with serving(ring) as (host, port):
        assert main(["plan", f"http://{host}:{port}", "--json"]) == 0
    live = json.loads(capsys.readouterr().out)
    assert main(["plan", str(source), "--json"]) == 0
    assert live["alternatives"] == json.loads(capsys.readouterr().out)["alternatives"]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_it_draws_the_frontier(source: Path, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    image = tmp_path / f"plan.{suffix}"
    assert main(["plan", str(source), "--image", str(image), "--goal", "itl=30ms"]) == 0
    begin = image.read_bytes()[:200]
    assert begin.startswith(b"\x89PNG") if suffix == "png" else b"<?xml" in begin


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--goal", "itl=30"], "is not a number above 0 with a unit (us, ms, s)"),
        (["--goal", "p99=30ms"], "is not one of itl=…, ttft=…, which are means, or of itl-p95=…, ttft-p99=…"),
        (["--goal", "itl-p99.9=30ms"], "p99.9 is not between p1 and p99.5"),
        (["--goal", "itl=30ms,itl=40ms"], "itl comes twice"),
        (["--what-if", "gpus=0"], "gpus=0 is not a whole number above 0"),
        (["--what-if", "precision=fp3"], "precision=fp3 is not one of"),
        (["--what-if", "gpus=2,gpus=3"], "gpus comes twice"),
        (["--rate", "nan"], "nan is no number of requests a second"),
        (["--rate", "inf"], "inf is no number of requests a second"),
        (["--power-cap", f"{'9' * 400}W"], "is not a number above 0 with a unit"),
        (["--power-cap", "5 horses"], "is not a number above 0 with a unit (W, kW, MW)"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    source: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["plan", str(source), *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_goal_that_one_setting_keeps_is_answered_under_a_cap_too(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One GPU cannot, and says so; two can, and say how many of them the cap lets serve."""
    arguments = ["plan", str(source), "--goal", "itl=6ms", "--power-cap", "5kW", "--what-if", "gpus=2"]
    assert main(arguments) == 0
    one, two = capsys.readouterr().out.split("── gpus=2")
    assert "no way: ITL is longer than its goal even with hardly any load" in one
    assert "engines serve" in two
    assert main([*arguments, "--json"]) == 0
    caps = [each["power_cap"] for each in json.loads(capsys.readouterr().out)["alternatives"]]
    assert [(cap["unmet"], bool(cap["ways"])) for cap in caps] == [
        ("inter_token_seconds", False),
        (None, True),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "nobody"], "does not tell of engine nobody"),
        (["--power-cap", "300W"], "at rest"),
        (["--what-if", "power-limit=100W"], "hardly more than"),
        (["--image", "plan.xyz"], "the picture cannot be written"),
    ],
)
def test_what_cannot_be_answered_is_said_on_one_line(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", str(source), *arguments]) == 4
    assert message in capsys.readouterr().err


def test_a_source_that_is_not_there_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(tmp_path / "nothing.jsonl")]) == 4
    assert "nothing.jsonl" in capsys.readouterr().err
