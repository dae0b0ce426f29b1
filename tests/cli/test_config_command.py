"""`joulescope config`, and the flags that every command takes from the table."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from joulescope.cli.config import command, example_yaml
from joulescope.cli.options import settings_options
from joulescope.config import TABLE, Settings
from joulescope.config.load import Origins, load


def test_show_prints_value_and_origin_of_each_setting(tmp_path: Path) -> None:
    """The table has one line a setting, with the flag, variable or file:line that decided it."""
    path = tmp_path / "settings.yaml"
    path.write_text("sensor: none\n")
    result = CliRunner().invoke(
        command,
        ["show", "--config", str(path), "--sample-hz", "50"],
        env={"JOULESCOPE_SOCKET_MODE": "600"},
        catch_exceptions=False,
    )
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in result.output.splitlines()}
    assert set(lines) == set(TABLE)
    assert lines["sample_hz"] == ["50", "flag --sample-hz"]
    assert lines["socket_mode"] == ["0600", "variable JOULESCOPE_SOCKET_MODE"]
    assert lines["sensor"] == ["none", f"file {path}:1"]
    assert lines["listen"] == ["0.0.0.0:5685", "default"]


def test_show_as_json_says_the_same() -> None:
    """--json gives value and origin by setting."""
    result = CliRunner().invoke(command, ["show", "--json", "--gpus", "all"], catch_exceptions=False)
    shown = json.loads(result.output)
    assert set(shown) == set(TABLE)
    assert shown["gpus"] == {"value": "all", "origin": "flag --gpus"}
    assert shown["request_log"] == {"value": "none", "origin": "default"}


def test_the_example_changes_nothing_until_it_is_uncommented(tmp_path: Path) -> None:
    """As printed it holds comments only; with the settings uncommented it gives the defaults."""
    result = CliRunner().invoke(command, ["example"], catch_exceptions=False)
    assert result.output == example_yaml()
    assert yaml.safe_load(result.output) is None
    uncommented = [
        line[1:] if line.startswith("#") and not line.startswith("# ") else line
        for line in result.output.splitlines()
    ]
    path = tmp_path / "settings.yaml"
    path.write_text("\n".join(uncommented))
    settings, origins = load({}, {}, str(path))
    assert settings == Settings()
    assert {origin.kind for origin in origins.values()} == {"file"}


def test_a_command_receives_the_settled_settings() -> None:
    """The decorator turns flags and environment into one Settings beside the command's own options."""
    seen: list[tuple[int, Settings, Origins]] = []

    @click.command()
    @click.option("--seconds", type=int)
    @settings_options(exclude=["record"])
    def probe(seconds: int, settings: Settings, origins: Origins) -> None:
        seen.append((seconds, settings, origins))

    environ = {"JOULESCOPE_RECORD": "/tmp/t.jsonl"}
    CliRunner().invoke(probe, ["--seconds", "3", "--listen", ":0"], env=environ, catch_exceptions=False)
    ((seconds, settings, origins),) = seen
    assert (seconds, settings.listen_port, settings.record) == (3, 0, "/tmp/t.jsonl")
    assert origins["listen"].kind == "flag"
    assert CliRunner().invoke(probe, ["--record", "x"]).exit_code == 2


def test_leaving_out_a_setting_that_does_not_exist_is_a_mistake() -> None:
    """`exclude` is held against the table."""
    with pytest.raises(ValueError, match="no such settings: nonsense"):
        settings_options(exclude=["nonsense"])


def test_help_names_flag_variable_and_default_of_every_setting() -> None:
    """The help page of a command with settings comes from the same table."""
    result = CliRunner().invoke(command, ["show", "--help"], terminal_width=200)
    words = " ".join(result.output.split())
    for setting in TABLE.values():
        assert f"{setting.flag} {setting.kind.metavar}" in words
        assert f"[default {setting.text(setting.default)}; variable {setting.variable}]" in words
