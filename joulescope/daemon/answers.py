"""Figures of single requests for whoever may ask: what is kept, and where it is served."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from joulescope.clock import Clock, SystemClock, WallAnchor
from joulescope.config import Settings
from joulescope.daemon.secrets import Token, token_of
from joulescope.export import RequestSink
from joulescope.export.estimate import Estimator
from joulescope.export.request_lookup import Lookup, OpenBy
from joulescope.export.request_store import RequestStore, Retention
from joulescope.export.requests_http import AnswerCounts, RequestsApi, Routes
from joulescope.export.unix_server import UnixServer
from joulescope.ingest.listener import BoundSocket
from joulescope.model import FinishedRequest, Snapshot

_logger = logging.getLogger(__name__)


class Answers:
    """Keeps finished requests for a while, and serves them and the open ones by id.

    A :class:`joulescope.export.RequestSink`. Where neither a socket nor a token is given, nothing is kept and
    everybody is refused.

    Args:
        path: the Unix socket; whoever may open it is answered.
        mode: permissions of the socket.
        token: opens the path at the sidecar's own address.
    """

    name = "requests_api"

    def __init__(
        self,
        clock: Clock | None = None,
        anchor: WallAnchor | None = None,
        *,
        retention: Retention | None = None,
        path: Path | None = None,
        mode: int = 0o660,
        token: Token | None = None,
    ) -> None:
        self._anchor = anchor or WallAnchor.now()
        self._path, self._mode, self._token = path, mode, token
        self._store = RequestStore(clock or SystemClock(), self._anchor, retention)
        self._estimator = Estimator()
        self._told = AnswerCounts()
        self._server: UnixServer | None = None
        self._bound: BoundSocket | None = None

    @classmethod
    def build(
        cls, settings: Settings, clock: Clock, anchor: WallAnchor, environ: Mapping[str, str] = os.environ
    ) -> Answers:
        """As the settings ask.

        Raises:
            ConfigError: if a variable that should hold the token does not.
        """
        path = settings.answer_socket
        return cls(
            clock,
            anchor,
            retention=Retention(
                settings.request_api_seconds,
                settings.request_api_count,
                settings.request_api_mebibytes << 20,
            ),
            path=None if path is None else Path(path),
            mode=settings.socket_mode,
            token=token_of("request_api_token", settings.request_api_token, environ),
        )

    @property
    def wanted(self) -> bool:
        """Whether anybody can be answered."""
        return self._path is not None or self._token is not None

    # ---------------------------------------------------------------------------------- what is known

    @property
    def sinks(self) -> Sequence[RequestSink]:
        """What takes finished requests, and what tells how answers fared."""
        return (self, self._told) if self.wanted else ()

    def observe(self, snapshot: Snapshot) -> None:
        """Takes in a new snapshot: what work costs now."""
        if self.wanted:
            self._estimator.observe(snapshot)

    def export(self, requests: Sequence[FinishedRequest]) -> None:
        self._estimator.finished(requests)
        self._store.export(requests)

    def counts(self) -> Mapping[str, int]:
        return self._store.counts()

    def close(self, timeout_seconds: float) -> None:
        self._store.close(timeout_seconds)

    # ----------------------------------------------------------------------------------------- serving

    def routes(self, open_by: OpenBy) -> Routes:
        """What is served at the sidecar's own address: to those who have the token."""
        return (self._api(open_by).route,)

    def _api(self, open_by: OpenBy, trusted: bool = False) -> RequestsApi:
        return RequestsApi(
            Lookup(self._store, open_by),
            self._estimator,
            self._anchor,
            token=self._token,
            trusted=trusted,
            counts=self._told if trusted else None,
        )

    def start(self, open_by: OpenBy) -> None:
        """Listens on the Unix socket, if there is to be one.

        Raises:
            ConfigError: if the socket cannot be there, and why.
        """
        if self._path is None:
            return
        self._bound = BoundSocket(self._path, self._mode, "--answer-socket")
        self._server = UnixServer(self._bound.server, self._api(open_by, trusted=True).app())
        self._server.start()
        _logger.info("serving single requests on %s", self._path)

    def stop(self, timeout_seconds: float) -> None:
        """Stops listening, and removes the socket if it is still this one."""
        server, self._server = self._server, None
        bound, self._bound = self._bound, None
        if server is None or bound is None:
            return
        server.stop(timeout_seconds)
        bound.remove()
