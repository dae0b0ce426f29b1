"""The web configuration file in force: read anew when it changes, and never weaker by accident.

A file that has become unusable is logged once and counted. What was in force stays so for a minute, in
which a certificate and its key may be replaced one after the other. After that nobody is let in until the
file is mended: otherwise a user whose removal came with a slip of the pen would stay for ever.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from joulescope.clock import Clock
from joulescope.errors import ConfigError
from joulescope.export.web_config import WebConfig, load
from joulescope.export.web_config_file import Sources
from joulescope.export.web_config_tls import Certificate, build_context
from joulescope.units import ns_from_seconds

LOOK_SECONDS = 1.0
"""How often the files are looked at, while there are requests."""

GRACE_SECONDS = 60.0
"""How long what was in force outlives a file that has become unusable."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for one request or handshake."""

    config: WebConfig = field(default_factory=WebConfig)
    context: ssl.SSLContext | None = None
    certificate: Certificate | None = None

    @property
    def client_rule(self) -> tuple[object, ...]:
        """Equal for rules that let the same clients connect."""
        return () if self.config.tls is None else self.config.tls.client_rule


def read_rules(path: Path, sources: Sources) -> Rules:
    """The rules that a file states.

    Raises:
        ConfigError: if it cannot be used.
    """
    config = load(path, sources)
    if config.tls is None:
        return Rules(config)
    try:
        context, certificate = build_context(config.tls)
    except ConfigError as problem:
        raise ConfigError(f"{path}: tls_server_config: {problem}") from None
    return Rules(config, context, certificate)


class WebRules:
    """Hands out the rules in force. One thread uses it, the server's; others may read the properties."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        """Reads the file; without one everybody may ask, in the clear.

        Raises:
            ConfigError: if it cannot be used.
        """
        self._path = path
        self._clock = clock
        self._sources = Sources()
        self._rules = Rules() if path is None else read_rules(path, self._sources)
        self._looked_ns = clock.now_ns()
        self._failed_ns = 0
        self._error = ""
        self.failures = 0

    @property
    def usable(self) -> bool | None:
        """Whether the file could be used when it was last looked at; ``None`` without a file."""
        return None if self._path is None else not self._error

    @property
    def last(self) -> Rules:
        """The last rules that could be used, whether or not they still hold."""
        return self._rules

    def current(self) -> Rules:
        """The rules that hold now.

        Raises:
            ConfigError: if none do, because the file has been unusable for too long.
        """
        if self._path is None:
            return self._rules
        now_ns = self._clock.now_ns()
        if now_ns - self._looked_ns >= ns_from_seconds(LOOK_SECONDS):
            self._looked_ns = now_ns
            self._look(self._path, now_ns)
        if self._error and now_ns - self._failed_ns >= ns_from_seconds(GRACE_SECONDS):
            raise ConfigError(self._error)
        return self._rules

    def _look(self, path: Path, now_ns: int) -> None:
        if not self._error and self._sources.unchanged():
            return
        sources = Sources()
        try:
            rules = read_rules(path, sources)
            _check_not_weaker(path, self._rules.config, rules.config)
        except ConfigError as problem:
            self._fail(str(problem), now_ns)
            return
        if self._error or rules.config != self._rules.config:
            _logger.info("%s was read anew and is in force", path)
        self._rules, self._sources, self._error = rules, sources, ""

    def _fail(self, error: str, now_ns: int) -> None:
        if not self._error:
            self._failed_ns = now_ns
        if error == self._error:
            return
        self._error = error
        self.failures += 1
        _logger.error(
            "%s; what held before does so for %g s, then nobody is let in until it is mended",
            error,
            GRACE_SECONDS,
        )


def _check_not_weaker(path: Path, old: WebConfig, new: WebConfig) -> None:
    """Raises ConfigError if a kind of protection is gone: half a file looks like this too."""
    gone = [what for what, has in _PROTECTIONS if has(old) and not has(new)]
    if old.tls is not None and new.tls is not None and new.tls.client_auth < old.tls.client_auth:
        gone.append("client_auth_type as strict")
    if gone:
        raise ConfigError(
            f"{path}: has no more {' and no '.join(gone)}: a running sidecar gives no protection up; restart "
            "it if that is meant"
        )


_PROTECTIONS: tuple[tuple[str, Callable[[WebConfig], bool]], ...] = (
    ("tls_server_config", lambda config: config.tls is not None),
    ("basic_auth_users", lambda config: bool(config.users)),
    ("client_allowed_sans", lambda config: bool(config.tls and config.tls.allowed_sans)),
)
