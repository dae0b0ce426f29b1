"""The rules in force while the files behind them change."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from joulescope.clock import ManualClock
from joulescope.errors import ConfigError
from joulescope.export.web_config_rules import GRACE_SECONDS, LOOK_SECONDS, Rules, WebRules
from tests.export.certificates import HASH, MUTUAL, TLS, USERS, Place, make_place


class Changing:
    """A file, the rules made from it, and a clock that moves on by a look at each question."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.clock = ManualClock(time_ns=5_000_000_000)
        self.rules = WebRules(place.config, self.clock)

    def current(self) -> Rules:
        self.clock.advance(LOOK_SECONDS)
        return self.rules.current()


@pytest.fixture
def changing(tmp_path: Path) -> Changing:
    return Changing(make_place(tmp_path, MUTUAL + "  client_allowed_sans: [a.example]\n" + USERS))


def test_without_a_file_everybody_may_ask() -> None:
    """No TLS, no password, and nothing to be unusable."""
    rules = WebRules(None, ManualClock())
    assert rules.current() == Rules()
    assert rules.usable is None


def test_a_file_that_is_no_use_stops_the_start(tmp_path: Path) -> None:
    """At the start nothing was in force before: the sidecar does not begin half protected."""
    place = make_place(tmp_path, "tls_server_config:\n  cert_file: none.pem\n  key_file: server.key\n")
    with pytest.raises(ConfigError, match=r"none\.pem cannot be read"):
        WebRules(place.config, ManualClock())
    place.write(TLS + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n")
    with pytest.raises(ConfigError, match=r"web\.yml: tls_server_config: cipher_suites: TLS_RSA"):
        WebRules(place.config, ManualClock())


def test_nothing_is_read_between_two_looks(changing: Changing) -> None:
    """Within a second the rules are the very same, whatever the file holds."""
    before = changing.rules.current()
    changing.place.write("}")
    changing.clock.advance(LOOK_SECONDS / 2)
    assert changing.rules.current() is before


def test_an_unchanged_file_keeps_its_context(changing: Changing) -> None:
    """Looking is not reading anew: the context of TLS stays."""
    assert changing.current() is changing.current()


def test_a_new_certificate_is_in_force_with_the_next_look(
    changing: Changing, caplog: pytest.LogCaptureFixture
) -> None:
    """Certificate and key are replaced, the configuration file is not touched."""
    before = changing.current()
    changing.place.renew(days=90)
    with caplog.at_level(logging.INFO):
        after = changing.current()
    assert after.context is not before.context
    assert after.certificate is not None
    assert before.certificate is not None
    assert after.certificate.not_after_seconds < before.certificate.not_after_seconds
    assert "was read anew and is in force" in caplog.text
    assert after.client_rule == before.client_rule


def test_a_user_is_added_and_another_removed(changing: Changing) -> None:
    """Users are those of the file as it stands."""
    changing.place.write(changing.place.config.read_text().replace("prometheus:", "grafana:"))
    assert set(changing.current().config.users) == {"grafana"}


def test_a_file_that_is_spoilt_is_logged_once_and_ends_in_refusal(
    changing: Changing, caplog: pytest.LogCaptureFixture
) -> None:
    """What held before holds for a minute; then nobody is let in, until the file is mended."""
    before = changing.current()
    good = changing.place.config.read_text()
    changing.place.write("basic_auth_users: [")
    for _ in range(round(GRACE_SECONDS / LOOK_SECONDS)):
        assert changing.current() is before
    assert changing.rules.usable is False
    with pytest.raises(ConfigError, match="is not YAML"):
        changing.current()
    assert changing.rules.failures == 1
    assert caplog.text.count("is not YAML") == 1
    changing.place.write(good)
    assert changing.current().config == before.config
    assert (changing.rules.usable, changing.rules.failures) == (True, 1)


def test_another_fault_does_not_start_the_minute_anew(changing: Changing) -> None:
    """Each fault is counted; the time is that since the file could last be used."""
    changing.place.write("basic_auth_users: [")
    changing.current()
    changing.clock.advance(GRACE_SECONDS / 2)
    changing.place.write("basic_auth_users: {a: b}")
    changing.current()
    assert changing.rules.failures == 2
    changing.clock.advance(GRACE_SECONDS / 2)
    with pytest.raises(ConfigError, match="no bcrypt hash"):
        changing.current()


def test_a_renewal_in_two_steps_costs_nothing(changing: Changing) -> None:
    """Between the new certificate and the new key the old pair is shown."""
    before = changing.current()
    key = changing.place.folder / "server.key"
    old, _ = key.read_bytes(), changing.place.renew()
    new = key.read_bytes()
    key.write_bytes(old)
    assert changing.current() is before
    assert changing.rules.failures == 1
    key.write_bytes(new)
    assert changing.current().context is not before.context


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("{}", "no more tls_server_config and no basic_auth_users"),
        (MUTUAL + USERS, "no more client_allowed_sans"),
        (MUTUAL + "  client_allowed_sans: [a.example]\n", "no more basic_auth_users"),
        (USERS, "no more tls_server_config"),
        (TLS + USERS, "no more client_allowed_sans and no client_auth_type as strict"),
        (
            MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven") + USERS,
            "no client_auth_type as strict",
        ),
    ],
)
def test_protection_is_not_given_up_while_running(changing: Changing, text: str, words: str) -> None:
    """Half a file, or a section lost in an edit, opens nothing; the message says what is gone."""
    before = changing.current()
    changing.place.write(text)
    assert changing.current() is before
    changing.clock.advance(GRACE_SECONDS)
    with pytest.raises(ConfigError, match=words):
        changing.current()


def test_protection_may_grow_while_running(tmp_path: Path) -> None:
    """TLS, client certificates and users are put in force without a restart."""
    changing = Changing(make_place(tmp_path, "{}"))
    assert changing.current().context is None
    for text in (USERS, TLS + USERS, MUTUAL + USERS, MUTUAL + "  client_allowed_sans: [a]\n" + USERS):
        changing.place.write(text)
        assert changing.current().config.users["prometheus"] == HASH.encode()
        assert changing.rules.usable
    assert changing.current().client_rule != ()


def test_a_file_that_is_gone_and_back(changing: Changing) -> None:
    """A secret that is mounted anew is missing for a moment."""
    before = changing.current()
    text = changing.place.config.read_text()
    changing.place.config.unlink()
    assert changing.current() is before
    changing.place.write(text)
    assert changing.current().config == before.config
    assert changing.rules.failures == 1
