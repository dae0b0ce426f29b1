"""A relay with its link, its thread and its small pages."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from joulescope.clock import Clock, SystemClock
from joulescope.config import Settings
from joulescope.daemon.links import tls_paths
from joulescope.daemon.relay import Relay
from joulescope.daemon.sensor_choice import opener
from joulescope.errors import ConfigError
from joulescope.export.http_server import HttpServer
from joulescope.export.relay_pages import RelayFigures, create_relay_app
from joulescope.export.web_config_rules import WebRules
from joulescope.link.client import LinkClient, dial
from joulescope.link.tls import TlsFiles
from joulescope.sensors import Sensor

_logger = logging.getLogger(__name__)

CLOSE_SECONDS = 0.5


class RelayProcess:
    """All of ``joulescope relay``."""

    def __init__(self, relay: Relay, pages: HttpServer) -> None:
        self.relay = relay
        self._pages = pages
        self._errors = 0

    @classmethod
    def build(
        cls,
        settings: Settings,
        *,
        open_sensor: Callable[[], Sensor] | None = None,
        clock: Clock | None = None,
    ) -> RelayProcess:
        """A relay as the settings ask for it.

        Raises:
            ConfigError: if they do not say where the head is, or the certificates cannot be used.
        """
        if settings.link_connect is None:
            raise ConfigError(
                "a relay needs link_connect, the host and port of the head's link_listen: set "
                "JOULESCOPE_LINK_CONNECT or --link-connect"
            )
        clock = clock or SystemClock()
        host, _, port = settings.link_connect.rpartition(":")
        host = host.strip("[]")
        link = LinkClient(
            dial(host, int(port)),
            TlsFiles(tls_paths(settings), server=False),
            clock,
            server_name=settings.link_server_name or host,
            node=settings.link_node or socket.gethostname(),
        )
        relay = Relay(settings, link, clock, open_sensor=open_sensor or opener(clock, settings))

        def figures() -> RelayFigures:
            return RelayFigures(not link.error, link.connects, link.failures, relay.dropped)

        web_config = None if settings.web_config_file is None else Path(settings.web_config_file)
        pages = HttpServer(
            settings.listen_host,
            settings.listen_port,
            create_relay_app(figures, relay.ready),
            rules=WebRules(web_config, clock),
            clock=clock,
        )
        return cls(relay, pages)

    def start(self) -> None:
        """Opens socket and pages, and begins to connect. Raises ConfigError if one cannot be had."""
        self.relay.start()
        self._pages.start()
        self.relay.link.start()
        _logger.info("listening for workers on %s, process %d", self.relay.settings.socket, os.getpid())
        _logger.info("serving %s/metrics", self._pages.url)

    def turn(self, wait_seconds: float) -> None:
        """One turn; a bug in it costs the turn, and not the process."""
        try:
            self.relay.turn(wait_seconds)
        except Exception:
            self._errors += 1
            if self._errors <= 10:
                _logger.exception("internal error in the relay; please report it")

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Ends it all."""
        self.relay.close(timeout_seconds / 2)
        self.relay.link.stop(timeout_seconds / 4)
        self._pages.stop(timeout_seconds / 4)
