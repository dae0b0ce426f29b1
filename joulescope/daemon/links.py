"""The daemon's part for other nodes: takes what their relays send into the accounts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from joulescope.clock import Clock
from joulescope.config import Settings
from joulescope.hook import wire
from joulescope.link.server import LinkArrival, LinkServer
from joulescope.link.tls import TlsFiles, TlsPaths
from joulescope.link_model import LinkTotals
from joulescope.model import GpuReading
from joulescope.pipeline import Pipeline

_logger = logging.getLogger(__name__)

MAX_SESSIONS = 64
"""Of one link: workers of a node, and one for the GPUs of each engine that they are of."""

FIRST_SESSION = 1_000_000
"""Sessions of links are numbered from here: the listener's own would take years to come so far."""


def tls_paths(settings: Settings) -> TlsPaths:
    """The files of a link; that they are named, the settings have been checked for."""
    return TlsPaths(settings.link_cert_file or "", settings.link_key_file or "", settings.link_ca_file or "")


def _session_and_whether_it_ends(record: wire.AnyRecord) -> tuple[int, bool]:
    return record.session, isinstance(record, wire.Bye)


class Links:
    """The head's end of all links. All but :meth:`totals` is for the thread that owns the pipeline."""

    def __init__(self, server: LinkServer | None, pipeline: Pipeline) -> None:
        """Without a server there are none."""
        self._server = server
        self._pipeline = pipeline
        self._numbers: dict[int, dict[int, int]] = {}
        """By link: the sessions of its records, and what they are called here."""
        self._next = FIRST_SESSION
        self._rejected: Counter[str] = Counter()

    @classmethod
    def build(cls, settings: Settings, pipeline: Pipeline, clock: Clock) -> Links:
        """As the settings ask for it; raises ConfigError if the certificates cannot be used."""
        if settings.link_listen is None:
            return cls(None, pipeline)
        host, _, port = settings.link_listen.rpartition(":")
        files = TlsFiles(tls_paths(settings), server=True)
        return cls(LinkServer(host.strip("[]"), int(port), files, clock), pipeline)

    def start(self) -> None:
        """Listens; raises ConfigError if the address cannot be had."""
        if self._server is not None:
            self._server.start()

    def stop(self, timeout_seconds: float) -> None:
        if self._server is not None:
            self._server.stop(timeout_seconds)

    def turn(self, now_ns: int) -> Sequence[GpuReading]:
        """Takes in what has come; gives the readings that were believed."""
        believed: list[GpuReading] = []
        for arrival in () if self._server is None else self._server.drain():
            believed.extend(self._take(arrival, now_ns))
            if arrival.closed:
                for number in self._numbers.pop(arrival.link, {}).values():
                    self._pipeline.close_session(number, now_ns, "link_down")
        return believed

    def _take(self, arrival: LinkArrival, now_ns: int) -> list[GpuReading]:
        believed: list[GpuReading] = []
        numbers = self._numbers.setdefault(arrival.link, {})
        for (session, _), group in groupby(arrival.records, _session_and_whether_it_ends):
            records = list(group)
            number = numbers.get(session)
            if number is None:
                if len(numbers) >= MAX_SESSIONS:
                    self._rejected["too_many_sessions"] += len(records)
                    continue
                number = numbers[session] = self._next
                self._next += 1
            if isinstance(records[0], wire.Bye):  # its place is free: engines come and go while a link stands
                self._pipeline.close_session(number, now_ns, records[0].reason)
                del numbers[session]
            else:
                believed.extend(self._pipeline.take(number, records, now_ns, arrival.node))
        return believed

    def totals(self) -> LinkTotals:
        """How the links fare."""
        return LinkTotals() if self._server is None else self._server.totals()

    def rejected(self) -> Counter[str]:
        """Records that were not taken, by reason."""
        return self._rejected + Counter(self.totals().rejected)

    def complaint(self) -> str:
        """Which nodes are out of reach, and what is wrong with the certificates; empty if nothing is."""
        totals = self.totals()
        down = [each.node for each in totals.links if not each.up]
        words = f"no link to {', '.join(down)}" if down else ""
        return "; ".join(filter(None, (words, totals.files_error)))
