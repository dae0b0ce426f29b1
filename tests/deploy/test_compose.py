"""deploy/compose as the real programs read it: Compose, promtool and amtool; none of them needs an engine."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import joulescope
from tests.requirements import need_program

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
PROVISIONING = COMPOSE / "grafana" / "provisioning"
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+")


def _config(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What ``docker compose config`` says of a file."""
    command = [need_program("docker-compose"), "-f", str(file), "config", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services with everything put in: anchors, variables, paths, short forms."""
    result = _config(COMPOSE / "compose.yaml", "--format", "json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["services"]


@pytest.mark.real
def test_compose_takes_the_file_as_it_is() -> None:
    """No error and no warning, as the README checks it."""
    result = _config(COMPOSE / "compose.yaml", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.real
@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("condition: service_healthy", "condition: service_is_fine", "condition"),
        ("depends_on:\n      prometheus:", "depends_on:\n      promethius:", "promethius"),
        ("read_only: true", "readonly: true", "readonly"),
        ("\nvolumes:\n  prometheus:", "\nvolumes:\n  promethius:", "prometheus"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, old: str, new: str, word: str) -> None:
    """The check sees a wrong word, an unknown service, an unknown key and a volume that is not declared."""
    text = (COMPOSE / "compose.yaml").read_text()
    assert old in text
    (tmp_path / "compose.yaml").write_text(text.replace(old, new))
    result = _config(tmp_path / "compose.yaml", "--quiet")
    assert result.returncode != 0
    assert word in result.stderr


@pytest.mark.real
def test_every_service_is_pinned_and_without_privilege(services: dict[str, Any]) -> None:
    """Exact versions, no capability, no way to gain one, a read-only root, ports of this machine alone."""
    assert set(services) == {"joulescope", "prometheus", "alertmanager", "grafana", "jaeger"}
    for name, service in services.items():
        assert PINNED.fullmatch(service["image"]), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert not service.get("privileged"), name
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}, name


@pytest.mark.real
def test_the_sidecar_is_nobody_and_its_image_is_this_version(services: dict[str, Any]) -> None:
    """The user of the image by number, and the tag of what the repository would build."""
    sidecar = services["joulescope"]
    assert sidecar["user"] == "10001:10001"
    assert sidecar["image"] == f"localhost/joulescope:{joulescope.__version__}"
    assert Path(sidecar["build"]["context"]) == ROOT
    assert (ROOT / sidecar["build"]["dockerfile"]).is_file()


@pytest.mark.real
def test_what_is_mounted_is_there_and_read_only(services: dict[str, Any]) -> None:
    """A file of the repository that is missing would become an empty folder of root's."""
    mounted = [volume for service in services.values() for volume in service.get("volumes", ())]
    binds = [volume for volume in mounted if volume["type"] == "bind"]
    assert {Path(volume["source"]).relative_to(ROOT).as_posix() for volume in binds} == {
        "deploy/compose/prometheus.yml",
        "deploy/compose/alertmanager.yml",
        "deploy/compose/grafana/provisioning",
        "deploy/prometheus",
        "grafana/dashboards",
    }
    for volume in binds:
        assert Path(volume["source"]).exists(), volume
        assert volume["read_only"] is True, volume


@pytest.mark.real
def test_every_address_names_a_service_and_its_port(services: dict[str, Any]) -> None:
    """In the files of Prometheus and Grafana, and in the sidecar's environment."""
    ports = {"jaeger:4318"}  # OTLP, published to nobody
    ports |= {f"{name}:{port['target']}" for name, each in services.items() for port in each["ports"]}
    sources = yaml.safe_load((PROVISIONING / "datasources" / "joulescope.yaml").read_text())["datasources"]
    named = {source["url"].removeprefix("http://") for source in sources}
    named.add(services["joulescope"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"].removeprefix("http://"))
    config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    for scrape in (*config["scrape_configs"], *config["alerting"]["alertmanagers"]):
        named |= {target for static in scrape["static_configs"] for target in static["targets"]}
    assert named - {"127.0.0.1:9090"} == ports - {"grafana:3000"}


def _sources() -> dict[str, dict[str, Any]]:
    text = (PROVISIONING / "datasources" / "joulescope.yaml").read_text()
    return {source["uid"]: source for source in yaml.safe_load(text)["datasources"]}


SOURCE_KEYS = {"name", "uid", "type", "access", "url", "isDefault", "editable", "jsonData"}
PROVIDER_KEYS = {"name", "folder", "folderUid", "type", "options"} | {
    "disableDeletion",
    "allowUiUpdates",
    "updateIntervalSeconds",
}
JSON_KEYS = {
    "prometheus": {"httpMethod", "timeInterval", "exemplarTraceIdDestinations"},
    "jaeger": set(),
    "alertmanager": {"implementation", "handleGrafanaManagedAlerts"},
}
"""What Grafana's documentation of provisioning names; it says nothing of a key that it does not know."""


def test_grafana_knows_every_key_of_its_files() -> None:
    """No key is misspelt, and none that is needed is missing."""
    sources = yaml.safe_load((PROVISIONING / "datasources" / "joulescope.yaml").read_text())
    assert set(sources) == {"apiVersion", "prune", "datasources"}
    for source in sources["datasources"]:
        assert {"name", "uid", "type", "access", "url"} <= set(source) <= SOURCE_KEYS
        assert set(source.get("jsonData", ())) == JSON_KEYS[source["type"]]
    providers = yaml.safe_load((PROVISIONING / "dashboards" / "joulescope.yaml").read_text())
    assert set(providers) == {"apiVersion", "providers"}
    (provider,) = providers["providers"]
    assert set(provider) == PROVIDER_KEYS
    assert (provider["type"], set(provider["options"])) == ("file", {"path"})


def test_grafana_finds_its_data_sources() -> None:
    """One Prometheus, the default, so that the dashboards' variable chooses it; exemplars lead to Jaeger."""
    sources = _sources()
    (prometheus,) = (each for each in sources.values() if each["type"] == "prometheus")
    assert prometheus["isDefault"] is True
    (exemplars,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert exemplars["name"] == "trace_id"
    assert sources[exemplars["datasourceUid"]]["type"] == "jaeger"
    scraped = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert prometheus["jsonData"]["timeInterval"] == scraped


@pytest.mark.real
def test_grafana_finds_the_dashboards(services: dict[str, Any]) -> None:
    """They are mounted where the provider looks, and each takes its data source from a variable."""
    text = (PROVISIONING / "dashboards" / "joulescope.yaml").read_text()
    (provider,) = yaml.safe_load(text)["providers"]
    grafana = services["grafana"]
    targets = {Path(volume["target"]): volume for volume in grafana["volumes"]}
    folder = Path(targets[Path(provider["options"]["path"])]["source"])
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (folder / home.name).is_file()
    assert home.parent == Path(provider["options"]["path"])
    boards = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert len(boards) == 5
    for board in boards:
        (variable,) = (each for each in board["templating"]["list"] if each["type"] == "datasource")
        assert variable["query"] == _sources()["prometheus"]["type"]


@pytest.mark.real
def test_promtool_takes_the_configuration_and_its_rules(tmp_path: Path) -> None:
    """With the rules where Prometheus will find them."""
    text = (COMPOSE / "prometheus.yml").read_text()
    rules = "/etc/prometheus/rules"
    assert rules in text
    (tmp_path / "prometheus.yml").write_text(text.replace(rules, str(ROOT / "deploy" / "prometheus")))
    command = [need_program("promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 rule files found" in result.stdout


def _amtool(*arguments: str) -> str:
    result = subprocess.run([need_program("amtool"), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.real
def test_amtool_routes_alerts_by_severity() -> None:
    """The file is good, and each severity has the receiver that it says."""
    file = str(COMPOSE / "alertmanager.yml")
    assert "SUCCESS" in _amtool("check-config", file)
    for severity, receiver in (
        ("critical", "at-once"),
        ("warning", "working-hours"),
        ("info", "nobody-is-woken"),
    ):
        said = _amtool("config", "routes", "test", f"--config.file={file}", f"severity={severity}")
        assert said.strip() == receiver


@pytest.mark.real
def test_the_commands_of_the_readme_are_those_that_work() -> None:
    """Each ``docker compose`` line of the README names this file, and what can run without an engine does."""
    readme = (COMPOSE / "README.md").read_text()
    lines = re.findall(r"^(?:\w+=\S+ )?docker compose (.+)$", readme, flags=re.MULTILINE)
    assert lines
    for line in lines:
        assert line.startswith("-f deploy/compose/compose.yaml "), line
    help_of = [need_program("docker-compose")]
    for line in lines:
        _, _, subcommand, *flags = line.split()
        text = subprocess.run(
            [*help_of, subcommand, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for flag in (each for each in flags if each.startswith("--")):
            assert flag in text, line
    assert "config --quiet" in "\n".join(lines)
