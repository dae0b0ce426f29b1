"""Copies of the rules: shorter windows for tests of the whole path, another base for runbooks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.requirements import need_program
from tools.rules import FOLDER, RUNBOOKS, load, main, scaled, seconds_of


def test_all_durations_are_scaled_and_nothing_else() -> None:
    """Windows in brackets, ``for`` and ``interval``; numbers, names and texts stay as they are."""
    rules = {
        "groups": [
            {
                "name": "g",
                "interval": "30s",
                "rules": [
                    {"record": "a:b:rate5m", "expr": "rate(x_total[5m]) > 3 * avg_over_time(y[1h30m])"},
                    {"alert": "A", "expr": "up == 0", "for": "2m", "annotations": {"summary": "5m [5m]"}},
                ],
            }
        ]
    }
    first, second = scaled(rules, 60)["groups"][0]["rules"]
    assert scaled(rules, 60)["groups"][0]["interval"] == "500ms"
    assert first == {"record": "a:b:rate5m", "expr": "rate(x_total[5000ms]) > 3 * avg_over_time(y[90000ms])"}
    assert second == {"alert": "A", "expr": "up == 0", "for": "2000ms", "annotations": {"summary": "5m [5m]"}}
    assert rules["groups"][0]["interval"] == "30s"


def test_windows_do_not_vanish() -> None:
    """What would be less than a millisecond is refused, and so is a duration that is none."""
    with pytest.raises(ValueError, match="30s cannot be made 1e"):
        scaled(load(), 1e6)
    with pytest.raises(ValueError, match="write 30s, 5m or 1h30m"):
        seconds_of("5 minutes")


def test_every_window_of_the_rules_is_reached() -> None:
    """Real rules: no expression keeps a window of minutes or hours."""
    text = str(scaled(load(), 60))
    assert re.findall(r"\[\d+(?:s|m|h|d)\]", text) == []
    assert "[21600000ms]" not in text
    assert "[360000ms]" in text


@pytest.mark.real
def test_promtool_takes_the_copies(tmp_path: Path) -> None:
    """Both files, scaled and with other runbooks, are rules that Prometheus loads."""
    assert main([str(tmp_path), "--divide", "60", "--runbooks", "https://wiki.example.com/x"]) == 0
    files = sorted(tmp_path.glob("*.yaml"))
    assert [path.name for path in files] == sorted(path.name for path in FOLDER.glob("*.yaml"))
    command = [need_program("promtool"), "check", "rules", *map(str, files)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    text = (tmp_path / "joulescope.alerts.yaml").read_text()
    assert RUNBOOKS not in text
    assert "https://wiki.example.com/x/JoulescopeGpuIdle.md" in text


def test_the_originals_are_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    """Writing copies where the originals are is refused."""
    before = {path: path.read_text() for path in FOLDER.glob("*.yaml")}
    assert main([str(FOLDER), "--divide", "60"]) == 2
    assert "name another folder" in capsys.readouterr().err
    assert {path: path.read_text() for path in FOLDER.glob("*.yaml")} == before


def test_groups_of_both_files_are_loaded_rules_first() -> None:
    """Recorded series are there before the alerts that read them."""
    names = [group["name"] for group in load()["groups"]]
    assert names[0] == "joulescope-power"
    assert names[-1] == "joulescope-alerts-sidecar"
    files = sorted(FOLDER.glob("*.yaml"))
    assert len(names) == sum(len(yaml.safe_load(path.read_text())["groups"]) for path in files)
