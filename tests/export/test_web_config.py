"""The web configuration file: what is taken, and what is refused with its place and its remedy."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

import bcrypt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulescope.errors import ConfigError
from joulescope.export.web_config import RateLimit, WebConfig, load
from joulescope.export.web_config_file import MAX_BYTES, Sources
from tests.examples import examples
from tests.export.certificates import HASH, MUTUAL, TLS, USER, USERS, Place, make_place

DEAR = "$2y$31$" + HASH[7:]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def read(place: Place, text: str) -> WebConfig:
    return load(place.write(text), Sources())


def refused(place: Place, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(place, text)
    return str(caught.value)


def test_a_file_of_everything_that_the_format_has(place: Place) -> None:
    """Every key that can be honoured arrives where it belongs; names are relative to the file."""
    config = read(
        place,
        MUTUAL
        + "  client_allowed_sans: [prometheus.example, 10.0.0.7]\n"
        + "  min_version: TLS13\n  max_version: TLS13\n"
        + "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n"
        + "  prefer_server_cipher_suites: false\n  curve_preferences: [CurveP384]\n"
        + "http_server_config:\n  http2: true\n  headers:\n    Strict-Transport-Security: max-age=31536000\n"
        + USERS
        + "rate_limit:\n  interval: 1m30.5s\n  burst: 3\n",
    )
    tls = config.tls
    assert tls is not None
    assert tls.certificate == (place.folder / "server.pem").read_bytes()
    assert tls.key == (place.folder / "server.key").read_bytes()
    assert tls.client_ca == (place.folder / "ca.pem").read_bytes()
    assert tls.client_auth is ssl.CERT_REQUIRED
    assert tls.allowed_sans == {"prometheus.example", "10.0.0.7"}
    assert tls.min_version == tls.max_version == ssl.TLSVersion.TLSv1_3
    assert tls.cipher_suites == ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",)
    assert not tls.prefer_server_cipher_suites
    assert tls.curves == ("CurveP384",)
    assert config.http2
    assert config.headers == {"Strict-Transport-Security": "max-age=31536000"}
    assert config.users == {USER: HASH.encode()}
    assert config.rate_limit == RateLimit(90.5, 3)


def test_what_is_left_out_is_as_prometheus_has_it(place: Place) -> None:
    """TLS 1.2 to 1.3, no client certificate, no password, no limit."""
    config = read(place, TLS)
    assert config.tls is not None
    assert (config.tls.min_version, config.tls.max_version) == (
        ssl.TLSVersion.TLSv1_2,
        ssl.TLSVersion.TLSv1_3,
    )
    assert config.tls.client_auth is ssl.CERT_NONE
    assert config.tls.prefer_server_cipher_suites
    assert (config.users, config.headers, config.rate_limit) == ({}, {}, None)
    assert read(place, "{}") == read(place, "tls_server_config:\nbasic_auth_users: {}\n") == WebConfig()


def test_certificates_may_stand_in_the_file_itself(place: Place) -> None:
    """``cert``, ``key`` and ``client_ca`` hold the same as the files would."""
    names = {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
    text = "tls_server_config:\n  client_auth_type: RequireAndVerifyClientCert\n"
    for key, name in names.items():
        lines = (place.folder / name).read_text().splitlines()
        text += f"  {key}: |\n" + "".join(f"    {line}\n" for line in lines)
    assert read(place, text) == read(place, MUTUAL)


def test_numbers_are_names_too(place: Place) -> None:
    """A user called 0660 is not the number 432, and one called ``yes`` is not true."""
    assert set(read(place, f"basic_auth_users:\n  0660: {HASH}\n  yes: {HASH}\n").users) == {"0660", "yes"}


def test_secrets_are_not_in_what_is_printed(place: Place) -> None:
    """Neither key nor hash is in the text of a configuration that ends up in a log."""
    shown = repr(read(place, TLS + USERS))
    assert HASH not in shown
    assert "PRIVATE" not in shown


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "is empty and would protect nothing; write {}"),
        ("# nothing\n", None, "is empty and would protect nothing"),
        ("- a\n", 1, "the file holds 'key: value' lines"),
        ("tls_server_config: yes\n", 1, "tls_server_config holds 'key: value' lines"),
        ("a: [\n", 2, "is not YAML"),
        ("tls_config: {}\n", 1, "the file has no 'tls_config'; did you mean tls_server_config?"),
        (TLS + "  min_versoin: TLS13\n", 4, "did you mean min_version?"),
        (USERS + f"  {USER}: {HASH}\n", 3, f"{USER} stands already on line 2"),
        ("tls_server_config:\n  min_version: TLS13\n", 1, "needs cert or cert_file"),
        ("tls_server_config:\n  cert_file: server.pem\n", 1, "needs key or key_file"),
        (TLS + "  cert: x\n", 4, "tls_server_config.cert is given, and cert_file too"),
        (TLS.replace("server.key", "none.key"), 3, "none.key cannot be read: No such file"),
        (TLS + "  min_version: TLS10\n", 4, "broken (RFC 8996)"),
        (TLS + "  max_version: TLS11\n", 4, "broken (RFC 8996)"),
        (TLS + "  min_version: '1.2'\n", 4, "is TLS12 or TLS13"),
        (TLS + "  min_version: TLS13\n  max_version: TLS12\n", 4, "is above max_version"),
        (TLS + "  client_auth_type: RequestClientCert\n", 4, "takes any certificate"),
        (TLS + "  client_auth_type: RequireAnyClientCert\n", 4, "takes any certificate"),
        (TLS + "  client_auth_type: RequireClientCert\n", 4, "takes any certificate"),
        (TLS + "  client_auth_type: Always\n", 4, "is one of NoClientCert, VerifyClientCertIfGiven"),
        (TLS + "  client_auth_type: VerifyClientCertIfGiven\n", 4, "needs client_ca_file"),
        (TLS + "  client_ca_file: ca.pem\n", 4, "client_auth_type asks for no certificate"),
        (TLS + "  client_allowed_sans: [a]\n", 4, "needs client_auth_type RequireAndVerifyClientCert"),
        (MUTUAL + "  client_allowed_sans: []\n", 6, "nobody could connect"),
        (MUTUAL + "  client_allowed_sans: a\n", 6, "is a list"),
        (MUTUAL + "  client_allowed_sans: [[a]]\n", 6, "is a single value"),
        (TLS + "  prefer_server_cipher_suites: maybe\n", 4, "is true or false"),
        ("http_server_config:\n  headers:\n    Server: x\n", 3, "headers has no 'Server'"),
        ("http_server_config:\n  headers:\n    X-Frame-Options: no\n", 3, "is deny or sameorigin"),
        (
            'http_server_config:\n  headers:\n    Content-Security-Policy: "a\\nb: c"\n',
            3,
            "no header can carry",
        ),
        ("basic_auth_users:\n  a: hunter2\n", 2, "basic_auth_users.a has no bcrypt hash"),
        (f"basic_auth_users:\n  a: {DEAR}\n", 2, "cost 31"),
        (f"basic_auth_users:\n  a: {HASH[:28] + 'z' + HASH[29:]}\n", 2, "damaged"),
        (f"basic_auth_users:\n  a:b: {HASH}\n", 2, "no colon"),
        (f'basic_auth_users:\n  "": {HASH}\n', 2, "is no user name"),
        ("rate_limit:\n  interval: 1\n  burst: 1\n", 2, "is a duration with its unit"),
        ("rate_limit:\n  interval: 1s\n", 1, "is a number of requests from 1"),
        ("rate_limit:\n  interval: 1s\n  burst: 0\n", 3, "is a number of requests from 1"),
    ],
)
def test_what_cannot_be_honoured_is_refused(place: Place, text: str, line: int | None, words: str) -> None:
    """File, line and key are named, and what would do; a password written in place of its hash is not."""
    said = refused(place, text)
    assert said.startswith(f"{place.config}:{line}: " if line else f"{place.config}: ")
    assert words in said
    assert "hunter2" not in said


def test_a_file_that_cannot_be_read(place: Place) -> None:
    """None, a folder, other bytes than UTF-8, and one without end."""
    place.config.unlink()
    with pytest.raises(ConfigError, match=r"web\.yml cannot be read: No such file"):
        load(place.config, Sources())
    with pytest.raises(ConfigError, match="Is a directory"):
        load(place.folder, Sources())
    place.config.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 3"):
        load(place.config, Sources())
    place.config.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        load(place.config, Sources())


def test_an_interval_of_nothing_is_no_limit(place: Place) -> None:
    """Go's format has 0 for none."""
    assert read(place, "rate_limit:\n  interval: 0\n  burst: 0\n").rate_limit is None


def test_hashes_of_other_programs_do(place: Place) -> None:
    """``htpasswd`` writes $2y$, Go $2a$, Python $2b$: all the same."""
    for prefix in ("$2a$", "$2b$", "$2y$"):
        hashed = read(place, f"basic_auth_users:\n  a: {prefix}{HASH[4:]}\n").users["a"]
        assert bcrypt.checkpw("open: sésame".encode(), hashed)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(200), deadline=None
)
@given(text=st.text(st.sampled_from("abtls_server_config: \n-[]{}&*!|>'\"#\t%é0"), max_size=80))
def test_any_text_is_taken_or_refused(place: Place, text: str) -> None:
    """Whatever stands in the file, it is a configuration or a ConfigError, never another exception."""
    with suppress(ConfigError):
        assert isinstance(read(place, text), WebConfig)
