"""The doctor and ``config check-web`` on web configuration files, good, doubtful and bad."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from joulescope.cli.config import command
from joulescope.config import Settings
from joulescope.doctor.engine import check_sidecar
from joulescope.doctor.findings import Finding, Severity
from joulescope.doctor.serving import check_serving
from joulescope.errors import ConfigError
from tests.export.certificates import MUTUAL, TLS, USERS, Place, make_place
from tests.export.web_server import running


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path, MUTUAL + "  client_allowed_sans: [a, b]\n" + USERS)


def findings(place: Place | None) -> list[Finding]:
    settings = Settings(web_config_file=None if place is None else str(place.config))
    return list(check_serving(settings, time.time()))


def check(place: Place) -> Result:
    return CliRunner().invoke(command, ["check-web", str(place.config)], catch_exceptions=True)


def test_without_a_file_there_is_nothing_to_say() -> None:
    """Pages in the clear are the default and no fault."""
    assert findings(None) == []


def test_a_good_file_is_told_in_a_sentence(place: Place) -> None:
    """Versions, clients, names of the certificate and number of users: what was meant can be compared."""
    (found,) = findings(place)
    assert found.severity is Severity.OK
    assert "TLS: 1.2 to 1.3, a client certificate is required and has one of 2 names" in found.said
    assert "certificate of localhost, 127.0.0.1, until" in found.said
    assert "basic auth: 1 user" in found.said
    result = check(place)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == found.said.replace("; ", "\n") + "\n"


@pytest.mark.parametrize(
    ("text", "days", "words"),
    [
        (USERS, 365, "passwords are asked for without TLS"),
        (TLS, -1, "the certificate expired on"),
        (TLS, 3, "the certificate expires on"),
        (TLS + "http_server_config:\n  http2: true\n", 365, "clients agree on HTTP/1.1"),
        (
            MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven"),
            365,
            "who shows no certificate sees everything too",
        ),
    ],
)
def test_what_is_hardly_meant_is_a_warning(place: Place, text: str, days: float, words: str) -> None:
    """It can be used, and somebody should look."""
    place.renew(days=days)
    place.write(text)
    (warning,) = [found for found in findings(place) if found.severity is Severity.WARNING]
    assert words in warning.said
    result = check(place)
    assert result.exit_code == 0
    assert result.stderr == f"warning: {warning.said}\n"


def test_a_file_that_is_no_use_is_an_error(place: Place) -> None:
    """With its line; the command ends with the code of a configuration error."""
    place.write("tls_server_config:\n  cert_file: none.pem\n  key_file: server.key\n")
    (error,) = findings(place)
    assert error.severity is Severity.ERROR
    assert f"{place.config}:2: tls_server_config.cert_file: " in error.said
    assert "docs/serving.md" in error.mend
    result = check(place)
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_code == 2


@pytest.mark.parametrize(
    ("text", "severity", "words"),
    [
        ("{}", Severity.OK, "http://127.0.0.1"),
        (TLS + USERS, Severity.OK, "https://127.0.0.1"),
        (MUTUAL, Severity.NOTE, "or not without a client certificate"),
    ],
)
def test_a_sidecar_behind_tls_is_asked_too(place: Place, text: str, severity: Severity, words: str) -> None:
    """The doctor asks by the scheme of the file; where it needs a certificate it says so."""
    place.write(text)
    with running(place.config) as server:
        settings = Settings(listen=f"127.0.0.1:{server.address[1]}", web_config_file=str(place.config))
        (found,) = check_sidecar(settings)
    assert (found.severity, words in found.said) == (severity, True)
