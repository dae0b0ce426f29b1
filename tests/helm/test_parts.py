"""What single values of the charts come to."""

from __future__ import annotations

import base64
import gzip
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from joulescope.clock import ManualClock
from joulescope.config.load import load
from joulescope.daemon.ledger_keeper import LedgerKeeper
from joulescope.export.web_config_file import Sources
from joulescope.export.web_config_rules import read_rules
from joulescope.ledger.read import open_ledger
from tests.export.certificates import make_place
from tests.helm.charts import CHART, VALUE_SETS, chart, documents, render, values_of
from tests.ledger.rows import ANCHOR, finished_request

Object = dict[str, Any]


def _one(kind: str, values: Object) -> Object:
    (found,) = (each for each in documents(render(values)) if each["kind"] == kind)
    return found


def _pod(sidecar: Object) -> Object:
    """The pod spec of the example with these values of the sidecar's."""
    spec: Object = _one("Deployment", {"vllm": {"enabled": True}, "joulescope": sidecar})["spec"]["template"]
    return spec


def _sidecar(values: Object) -> tuple[dict[str, Any], dict[str, str]]:
    """Variables and mounts of the sidecar: by name, and folders by volume."""
    (container,) = (each for each in _pod(values)["spec"]["initContainers"] if each["name"] == "joulescope")
    variables = {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
    return variables, {each["name"]: each["mountPath"] for each in container["volumeMounts"]}


def _files(values: Object) -> dict[str, str]:
    """The chart's ConfigMap for the sidecar."""
    (found,) = (
        each
        for each in documents(render({"vllm": {"enabled": True}, "joulescope": values}))
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "demo-joulescope"
    )
    return dict(found["data"])


# ---------------------------------------------------------------------------------- the sidecar's files


def test_the_configuration_is_one_that_joulescope_reads(tmp_path: Path) -> None:
    """Its own reader takes the file, from where the variable says that it is."""
    values = {"config": {"sample_hz": 10, "otlp_phases": "events"}}
    variables, mounts = _sidecar(values)
    assert variables["JOULESCOPE_CONFIG"] == f"{mounts['joulescope-config']}/joulescope.yaml"
    path = tmp_path / "joulescope.yaml"
    path.write_text(_files(values)["joulescope.yaml"])
    settings, _ = load({}, {"JOULESCOPE_CONFIG": str(path)})
    assert (settings.sample_hz, settings.otlp_phases) == (10.0, "events")


def test_another_configuration_makes_the_pods_anew() -> None:
    """By an annotation; without a configuration there is none."""

    def annotation(config: Object) -> str | None:
        found: str | None = _pod({"config": config})["metadata"]["annotations"].get("joulescope/config")
        return found

    assert annotation({}) is None
    assert len({annotation({"sample_hz": hz}) for hz in (5, 10, 20)}) == 3


@pytest.mark.parametrize("client_auth", [False, True])
def test_tls_of_a_secret(client_auth: bool, tmp_path: Path) -> None:
    """The web configuration names files of the secret, which are where it says."""
    values = {"web": {"tlsSecret": "tls", "clientAuth": client_auth}}
    variables, mounts = _sidecar(values)
    assert variables["JOULESCOPE_WEB_CONFIG_FILE"] == f"{mounts['joulescope-config']}/web.yml"
    tls = yaml.safe_load(_files(values)["web.yml"])["tls_server_config"]
    assert {Path(tls[key]).parent for key in tls if key.endswith("_file")} == {Path(mounts["joulescope-web"])}
    assert ("client_ca_file" in tls) is client_auth
    volumes = {each["name"]: each for each in _pod(values)["spec"]["volumes"]}
    assert volumes["joulescope-web"]["secret"] == {"secretName": "tls", "optional": True}
    # Its own reader takes it, with the names that cert-manager gives its files.
    place = make_place(tmp_path)
    for ours, theirs in (("server.pem", "tls.crt"), ("server.key", "tls.key"), ("ca.pem", "ca.crt")):
        (tmp_path / ours).rename(tmp_path / theirs)
    place.write(_files(values)["web.yml"].replace(mounts["joulescope-web"], str(tmp_path)))
    config = read_rules(place.config, Sources()).config
    assert config.tls is not None
    assert config.asks_who is client_auth


def test_passwords_of_a_secret() -> None:
    """The whole web configuration is the secret's; the chart sees none of it."""
    variables, mounts = _sidecar({"web": {"configSecret": "web"}})
    assert variables["JOULESCOPE_WEB_CONFIG_FILE"] == f"{mounts['joulescope-web']}/web.yml"
    assert "joulescope-config" not in mounts


@pytest.mark.parametrize(("claim", "volume"), [("", {"emptyDir": {}}), ("kept", None)])
def test_baselines_on_a_volume(claim: str, volume: Object | None) -> None:
    """Of the pod, or of a claim."""
    values = {"baselines": {"enabled": True, "existingClaim": claim}}
    variables, mounts = _sidecar(values)
    assert variables["JOULESCOPE_BASELINE_DIR"] == mounts["joulescope-baselines"]
    volumes = {each.pop("name"): each for each in _pod(values)["spec"]["volumes"]}
    wanted = volume or {"persistentVolumeClaim": {"claimName": claim}}
    assert volumes["joulescope-baselines"] == wanted


@pytest.mark.parametrize(
    ("values", "volume", "settings"),
    [
        ({}, {"emptyDir": {"sizeLimit": "2Gi"}}, {"ledger": None, "ledger_max_mebibytes": 1536}),
        (
            {"existingClaim": "kept", "size": "500Mi"},
            {"persistentVolumeClaim": {"claimName": "kept"}},
            {"ledger": None, "ledger_max_mebibytes": 375},
        ),
        (
            {"url": "s3://joules/ledger"},
            {"emptyDir": {"sizeLimit": "2Gi"}},
            {"ledger": "s3://joules/ledger", "ledger_spool": None, "ledger_rotate_seconds": 300.0},
        ),
        (
            {"url": "s3://joules/ledger", "existingClaim": "kept"},
            {"persistentVolumeClaim": {"claimName": "kept"}},
            {"ledger_spool": None, "ledger_rotate_seconds": 3600.0},
        ),
    ],
)
def test_a_ledger_on_a_volume(values: Object, volume: Object, settings: Object) -> None:
    """Of the pod, with a limit that it keeps well within, or of a claim; also before a store. It takes
    what the chart says; ``None`` stands for the volume's folder."""
    sidecar = {"ledger": {"enabled": True, **values}}
    variables, mounts = _sidecar(sidecar)
    volumes = {each.pop("name"): each for each in _pod(sidecar)["spec"]["volumes"]}
    assert volumes["joulescope-ledger"] == volume
    told = {name: text for name, text in variables.items() if name.startswith("JOULESCOPE_LEDGER")}
    found = load({}, told)[0]
    for name, value in settings.items():
        assert getattr(found, name) == (mounts["joulescope-ledger"] if value is None else value)


def test_a_ledger_as_the_chart_has_it_works(tmp_path: Path) -> None:
    """A sidecar with the variables of the chart keeps its ledger in the one folder that it may write."""
    variables, mounts = _sidecar({"ledger": {"enabled": True}})
    folder = tmp_path / "ledger"
    told = {
        name: str(text).replace(mounts["joulescope-ledger"], str(folder))
        for name, text in variables.items()
        if name.startswith("JOULESCOPE_LEDGER")
    }
    keeper = LedgerKeeper.build(load({}, told)[0], ManualClock(), ANCHOR)
    keeper.export([finished_request(1)])
    keeper.step()
    keeper.close(1.0)
    assert keeper.totals().rows["requests"] == 1
    with open_ledger(folder) as ledger:
        assert len(ledger.files("requests")) == 1


def test_settings_of_a_ledger_that_a_user_gives_win() -> None:
    """As a variable or in the file."""
    for values in (
        {"env": {"JOULESCOPE_LEDGER_MAX_MEBIBYTES": 99}},
        {"config": {"ledger_max_mebibytes": 99}},
    ):
        variables, _ = _sidecar({"ledger": {"enabled": True}, **values})
        assert variables.get("JOULESCOPE_LEDGER_MAX_MEBIBYTES") in ("99", None)


@pytest.mark.parametrize(
    "ledger",
    [{"size": "2G"}, {"size": "100Mi"}, {"url": "bucket/x"}, {"url": "s3://k:s@bucket/x"}, {"on": 1}],
)
def test_a_ledger_that_cannot_be_is_refused(ledger: Object) -> None:
    """By the schema, before anything is sent; a URL takes no credentials."""
    with pytest.raises(Exception, match="ledger"):
        _pod({"ledger": {"enabled": True, **ledger}})


def test_otlp_with_headers_of_a_secret() -> None:
    """The header, a token as a rule, is in no manifest."""
    variables, _ = _sidecar({"otlp": {"endpoint": "http://a:4318", "headersSecret": "token"}})
    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://a:4318"
    headers = {"secretKeyRef": {"name": "token", "key": "headers", "optional": True}}
    assert variables["OTEL_EXPORTER_OTLP_HEADERS"] == headers


def test_variables_that_vllm_had_stay() -> None:
    """Behind the hook's folder, and before its plugin."""
    pod = _pod({"engine": {"pythonPath": "/a:/b", "plugins": "x,y"}})["spec"]
    (vllm,) = pod["containers"]
    variables = {each["name"]: each.get("value") for each in vllm["env"]}
    assert variables["PYTHONPATH"] == "/opt/joulescope/hook:/a:/b"
    assert variables["VLLM_PLUGINS"] == "x,y,joulescope"


def test_a_variable_of_the_users_is_there_once() -> None:
    """A sensor of the user's takes the place of the chart's."""
    (sidecar,) = (
        each
        for each in _pod({"env": {"JOULESCOPE_SENSOR": "none"}})["spec"]["initContainers"]
        if each["name"] == "joulescope"
    )
    assert [each["value"] for each in sidecar["env"] if each["name"] == "JOULESCOPE_SENSOR"] == ["none"]


def test_large_numbers_are_written_out() -> None:
    """Helm has them as floats: a user of OpenShift's range must not become 1.00074e+09."""
    values = {
        "vllm": {"enabled": True, "runAsUser": 1000740000, "args": ["--max-num-batched-tokens", 1000000]},
        "joulescope": {"env": {"OTEL_BSP_MAX_QUEUE_SIZE": 1000000, "OTEL_SDK_DISABLED": False}},
    }
    text = render(values)["templates/vllm.yaml"]
    assert "e+" not in text
    spec = _one("Deployment", values)["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsUser"] == 1000740000
    assert spec["containers"][0]["args"][-1] == "1000000"
    variables = {each["name"]: each.get("value") for each in spec["initContainers"][1]["env"]}
    assert (variables["OTEL_BSP_MAX_QUEUE_SIZE"], variables["OTEL_SDK_DISABLED"]) == ("1000000", "false")


# ---------------------------------------------------------------------------------- around the sidecar


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ({}, "http"),
        ({"joulescope": {"web": {"tlsSecret": "a"}}}, "https"),
        ({"joulescope": {"web": {"configSecret": "a"}}}, "https"),
        ({"joulescope": {"web": {"configSecret": "a"}}, "podMonitor": {"scheme": "http"}}, "http"),
    ],
)
def test_scrapes_go_the_way_the_pages_are_served(values: Object, scheme: str) -> None:
    """A password without TLS is possible, and has to be said."""
    assert _one("PodMonitor", values)["spec"]["podMetricsEndpoints"][0]["scheme"] == scheme


def test_a_network_policy_leaves_vllm_its_port() -> None:
    """Both ports are open, ours to the namespace of Prometheus; what goes out is left alone."""
    spec = _one("NetworkPolicy", {"networkPolicy": {"enabled": True}})["spec"]
    ports = {port["port"]: "from" in rule for rule in spec["ingress"] for port in rule["ports"]}
    assert ports == {5685: True, 8000: False}
    assert spec["policyTypes"] == ["Ingress"]
    assert "egress" not in spec


def test_a_network_policy_for_what_goes_out_lets_names_be_looked_up() -> None:
    """DNS by both protocols, and the user's rules."""
    rule = {"ports": [{"port": 4318, "protocol": "TCP"}]}
    spec = _one("NetworkPolicy", {"networkPolicy": {"enabled": True, "egress": [rule]}})["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"][1:] == [rule]
    assert {(each["port"], each["protocol"]) for each in spec["egress"][0]["ports"]} == {
        (53, "UDP"),
        (53, "TCP"),
    }


def test_a_certificate_is_for_the_secret_that_is_mounted() -> None:
    """cert-manager makes what the sidecar reads."""
    found = _one(
        "Certificate",
        {
            "joulescope": {"web": {"tlsSecret": "served"}},
            "certificate": {"enabled": True, "issuerRef": {"name": "ca"}},
        },
    )
    assert found["spec"]["secretName"] == "served"
    assert found["spec"]["issuerRef"] == {"kind": "Issuer", "name": "ca"}


def test_models_outlast_the_release() -> None:
    """A claim that the chart makes is not taken away by it."""
    values = {"vllm": {"enabled": True, "models": {"size": "10Gi"}}}
    claim = _one("PersistentVolumeClaim", values)
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    volumes = {
        each["name"]: each for each in _one("Deployment", values)["spec"]["template"]["spec"]["volumes"]
    }
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}


class _Pages(BaseHTTPRequestHandler):
    """A sidecar's two pages, if it is one."""

    metrics: ClassVar[bytes] = b"joulescope_build_info 1"

    def do_GET(self) -> None:
        known = {"/-/healthy": b"ok", "/metrics": self.metrics}
        self.send_response(200 if self.path in known else 404)
        self.end_headers()
        self.wfile.write(known.get(self.path, b""))

    def log_message(self, format: str, *args: object) -> None:
        """Keeps quiet."""


class _Others(_Pages):
    metrics = b"up 1"


@pytest.mark.parametrize(("pages", "well"), [(_Pages, True), (_Others, False), (None, False)])
def test_what_helm_test_runs_tells_a_sidecar_from_others(pages: type[_Pages] | None, well: bool) -> None:
    """Its program, as the pod has it, on a sidecar, on something else, and on a port that nobody serves."""
    (pod,) = (each for each in documents(render({"vllm": {"enabled": True}})) if each["kind"] == "Pod")
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    script, scheme, host, port, closed = container["args"]
    assert (scheme, host, port, closed) == ("http", "demo-vllm", "5685", "false")
    with HTTPServer(("127.0.0.1", 0), pages or _Pages) as server:
        if pages is None:
            server.socket.close()
        else:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        command = [sys.executable, "-c", script, scheme, "127.0.0.1", str(server.server_port), closed]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if pages is not None:
            server.shutdown()
    assert (said.returncode == 0) is well, said.stderr


# ------------------------------------------------------------------------------- what is nowhere in it


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}")
    elif isinstance(node, list) and node:
        for value in node:
            yield from _leaves(value, path)
    else:
        yield path, node


@pytest.mark.parametrize("value_set", VALUE_SETS, ids=lambda path: path.stem)
def test_no_field_is_empty(value_set: Path) -> None:
    """Nothing is written that says nothing, but for volumes without options."""
    for document in documents(render(values_of(value_set))):
        empty = [path for path, value in _leaves(document) if value in (None, "", {}, [])]
        assert [path for path in empty if not path.endswith(".emptyDir")] == []


@pytest.mark.parametrize("value_set", VALUE_SETS, ids=lambda path: path.stem)
def test_no_secret_is_in_plain_text(value_set: Path) -> None:
    """No object of kind Secret, and every variable that smells of one is read from elsewhere."""
    for document in documents(render(values_of(value_set))):
        assert document["kind"] != "Secret"
        if document["kind"] == "Deployment":
            spec = document["spec"]["template"]["spec"]
            for container in (*spec["initContainers"], *spec["containers"]):
                for each in container.get("env", ()):
                    if re.search("TOKEN|HEADERS|PASSWORD|SECRET|KEY", each["name"]):
                        assert "secretKeyRef" in each["valueFrom"], each["name"]


def test_a_release_fits_into_the_secret_that_helm_keeps_it_in() -> None:
    """1 MiB, of chart and manifests together, as JSON, compressed and in base64 twice."""
    loaded = chart(CHART)
    parts = [
        *loaded.files,
        *loaded.templates,
        *render(values_of(CHART / "ci/everything-values.yaml")).items(),
    ]
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(parts).encode())))
    assert len(packed) < 2**20
