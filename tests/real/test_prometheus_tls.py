"""A real Prometheus scrapes through TLS with a password, and its own tool reads the same files."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulescope.errors import ConfigError
from joulescope.export.web_config_file import Sources
from joulescope.export.web_config_rules import read_rules
from tests.export.certificates import HOST, MUTUAL, PASSWORD, TLS, USER, USERS, Place, certificate, make_place
from tests.export.web_server import Running, running, until
from tests.real.prometheus import Prometheus, running_prometheus
from tests.requirements import need_program

pytestmark = pytest.mark.real

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"
UP = 'up{job="sidecar"}'


def scrape_lines(folder: Path) -> str:
    """The job of docs/serving.md, with the files of this test."""
    (job,) = re.findall(r"```yaml\nscrape_configs:\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    lines = job.split("job_name: joulescope\n")[1].split("    static_configs:")[0]
    assert "tls_config" in lines
    return lines.replace("/etc/prometheus/joulescope", str(folder))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Server and client have what the page says: certificates of one authority, a user and its password."""
    place = make_place(tmp_path, MUTUAL + "  client_allowed_sans: [prometheus.example]\n" + USERS)
    pair = certificate(place.authority, "prometheus.example")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    pair.private_key_pem.write_to_path(tmp_path / "client.key")
    (tmp_path / "password").write_text(PASSWORD, encoding="utf-8")
    return place


@pytest.fixture
def scraped(place: Place) -> Iterator[tuple[Running, Prometheus]]:
    """The server, and a Prometheus that scrapes it as the page says."""
    program = need_program("prometheus")
    folder = place.folder / "prometheus"
    folder.mkdir()
    with (
        running(place.config) as server,
        running_prometheus(
            program, f"{HOST}:{server.address[1]}", folder, scrape=scrape_lines(place.folder)
        ) as prometheus,
    ):
        prometheus.wait_for(f"{UP} == 1")
        yield server, prometheus


def test_prometheus_scrapes_through_tls(scraped: tuple[Running, Prometheus]) -> None:
    """By mutual TLS, with a listed name and a password, and without an error."""
    _, prometheus = scraped
    (target,) = prometheus.get("/api/v1/targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert target["scrapeUrl"].startswith("https://")
    assert prometheus.wait_for("joulescope_measured_energy_joules_total")


def test_a_renewal_costs_no_scrape(scraped: tuple[Running, Prometheus], place: Place) -> None:
    """A new certificate is put in place: scrapes go on, and the target was never down."""
    server, prometheus = scraped
    place.renew()
    server.look()
    answered = server.server.totals().responses["200"]
    until(lambda: server.server.totals().responses["200"] > answered + 5)
    assert prometheus.query(f"min_over_time({UP}[5s]) == 1")


def test_a_password_that_is_withdrawn_ends_it(scraped: tuple[Running, Prometheus], place: Place) -> None:
    """Prometheus says 401, and comes back once the user does."""
    server, prometheus = scraped
    text = place.config.read_text()
    place.write(text.replace(f"  {USER}:", "  other:"))
    server.look()
    prometheus.wait_for(f"{UP} == 0")
    (target,) = prometheus.get("/api/v1/targets")["activeTargets"]
    assert "401" in target["lastError"]
    place.write(text)
    server.look()
    prometheus.wait_for(f"{UP} == 1")


EVERYTHING = (  # but client_allowed_sans and rate_limit, which are younger than Debian's promtool
    MUTUAL
    + "  min_version: TLS12\n  max_version: TLS13\n"
    + "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n  prefer_server_cipher_suites: true\n"
    + "  curve_preferences: [CurveP256]\n"
    + "http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n"
    + USERS
)


@pytest.mark.parametrize(
    ("text", "does"),
    [
        ("{}", True),
        (TLS, True),
        (MUTUAL, True),
        (USERS, True),
        (EVERYTHING, True),
        (TLS.replace("server.key", "none.key"), False),
        (TLS + "  min_version: TLS9\n", False),
        (TLS + "  cipher_suites: [none]\n", False),
        (TLS + "  client_ca_file: ca.pem\n", False),
        ("tls_config: {}\n", False),
        ("basic_auth_users:\n  a: b\n", False),
        ("http_server_config:\n  headers:\n    Server: x\n", False),
    ],
)
def test_promtool_reads_the_same_files(place: Place, text: str, does: bool) -> None:
    """What Prometheus' own tool takes is taken here, and what it refuses is refused."""
    promtool = need_program("promtool")
    place.write(text)
    result = subprocess.run(
        [promtool, "check", "web-config", str(place.config)], capture_output=True, check=False
    )
    assert (result.returncode == 0) is does, result.stderr
    if does:
        read_rules(place.config, Sources())
    else:
        with pytest.raises(ConfigError):
            read_rules(place.config, Sources())
