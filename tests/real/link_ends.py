"""Both ends of a link without a daemon around them, so that the far node's clock can be made to drift.

``head`` is the pipeline with a socket for engines and one for relays, ``relay`` a socket for workers and
samplers and the link to the head: the same parts of which ``joulescope serve`` and ``joulescope relay`` are
made, with a clock that is handed in.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from joulescope.attribution.policy import Policy
from joulescope.clock import Clock, SystemClock, WallAnchor
from joulescope.export.records import finished_line
from joulescope.hook import wire
from joulescope.ingest.listener import Listener
from joulescope.link.client import LinkClient, dial
from joulescope.link.server import LinkServer
from joulescope.link.tls import TlsFiles, TlsPaths
from joulescope.pipeline import Pipeline, Scope
from joulescope.simulation.nodes import FarClock
from joulescope.units import NANOSECONDS_PER_SECOND

TURN_SECONDS = 0.05
_FIRST_FAR_SESSION, _SESSIONS_OF_A_LINK = 1_000_000, 1000
_stopping: list[int] = []


class Head:
    """Engines on the own socket, relays on the other, one pipeline for both."""

    def __init__(self, socket: Path, server: LinkServer, log: Path, clock: Clock) -> None:
        self._listener, self._server, self._log, self._clock = Listener(socket), server, log, clock
        self.pipeline = Pipeline(Policy(), Scope(), wall=WallAnchor.now())
        self._far: dict[int, set[int]] = {}
        self._asked: set[int] = set()

    def turn(self) -> None:
        """Takes in what has come, and writes down who has finished."""
        now_ns = self._clock.now_ns()
        for arrival in self._listener.poll(TURN_SECONDS):
            self.pipeline.take(arrival.session, arrival.records, now_ns)
            if arrival.closed:
                self.pipeline.close_session(arrival.session, now_ns, arrival.closed)
        for brought in self._server.drain():
            sessions = self._far.setdefault(brought.link, set())
            for record in brought.records:
                number = _FIRST_FAR_SESSION + brought.link * _SESSIONS_OF_A_LINK + record.session
                sessions.add(number)
                self.pipeline.take(number, [record], now_ns)
            if brought.closed:
                for number in self._far.pop(brought.link):
                    self.pipeline.close_session(number, now_ns, brought.closed)
        _ask(self._listener, self.pipeline.sessions.samplers(), self._asked)
        self.pipeline.settle(now_ns)
        self.write()

    def write(self) -> None:
        """What has finished, one line a request."""
        with self._log.open("ab") as file:
            for request in self.pipeline.drain_finished():
                file.write(finished_line(request, self.pipeline.wall))


def _ask(listener: Listener, samplers: Iterable[int], asked: set[int]) -> None:
    """Tells each sampler once to read all that it has."""
    encoder = msgspec.msgpack.Encoder()
    for number in set(samplers) - asked:
        if listener.say(number, wire.encode_frame([wire.Wanted(gpus=["all"])], encoder)):
            asked.add(number)


class Relay:
    """Workers and samplers on the node's socket; what they say goes to the head, anew after each break."""

    def __init__(self, socket: Path, client: LinkClient) -> None:
        self._listener, self._client = Listener(socket), client
        self._told: dict[int, list[wire.AnyRecord]] = {}
        """By session what a new link must hear first."""
        self._epoch = 0
        self._asked: set[int] = set()
        self._samplers: set[int] = set()

    def turn(self) -> None:
        for arrival in self._listener.poll(TURN_SECONDS):
            for record in arrival.records:
                record.session = arrival.session
                if isinstance(record, wire.Hello):
                    self._told[arrival.session] = [record]
                    if record.sampler is not None:
                        self._samplers.add(arrival.session)
                elif isinstance(record, wire.Gpu):
                    self._told[arrival.session].append(record)
            if arrival.closed:
                self._told.pop(arrival.session, None)
                self._samplers.discard(arrival.session)
            kinds = (wire.Hello, wire.Gpu, wire.GpuStatus, wire.Sample, wire.Bye)
            passed = [record for record in arrival.records if isinstance(record, kinds)]
            if passed and self._epoch == self._client.epoch:
                self._client.send(self._epoch, passed)
        if self._client.epoch != self._epoch:
            self._epoch = self._client.epoch
            for told in self._told.values():
                self._client.send(self._epoch, told)
        _ask(self._listener, self._samplers, self._asked)


def head(options: argparse.Namespace) -> None:
    clock = SystemClock()
    server = LinkServer(*options.address, TlsFiles(_paths(options), server=True), clock)
    server.start()
    made = Head(options.socket, server, options.request_log, clock)
    print("ready", flush=True)
    _until_told(made.turn)
    made.pipeline.finish(clock.now_ns())
    made.write()
    for state in server.totals().links:
        for name, value in (
            ("up", float(state.up)),
            ("clock_offset_seconds", state.offset_seconds),
            ("clock_error_seconds", state.error_seconds),
            ("round_trip_seconds", state.round_trip_seconds),
        ):
            if value is not None:
                print(f'joulescope_link_{name}{{node="{state.node}"}} {value!r}')
    sidecar = made.pipeline.snapshot(clock.now_ns()).sidecar
    print(f"taken {sidecar.records}, rejected {sidecar.rejected_records}")
    for gpu in made.pipeline.snapshot(clock.now_ns()).gpus:
        print(f'joulescope_gpu_energy_joules_total{{gpu="{gpu.info.gpu}"}} {gpu.measured_joules!r}')
        print(f"residual {gpu.residual_joules:.6f}", flush=True)


def relay(options: argparse.Namespace) -> None:
    begin_ns = options.start_ns + options.ahead * NANOSECONDS_PER_SECOND
    clock = FarClock(SystemClock(), begin_ns, options.drift)
    host, port = options.address
    files = TlsFiles(_paths(options), server=False)
    client = LinkClient(dial(host, port), files, clock, server_name=host, node="far")
    client.start()
    made = Relay(options.socket, client)
    print("ready", flush=True)
    _until_told(made.turn)


def _until_told(turn: Callable[[], None]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: _stopping.append(1))
    while not _stopping:
        turn()


def _paths(options: argparse.Namespace) -> TlsPaths:
    return TlsPaths(options.link_cert_file, options.link_key_file, options.link_ca_file)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("end", choices=("head", "relay"))
    parser.add_argument("address", type=_address, help="where the head listens for relays")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--request-log", type=Path)
    parser.add_argument("--start-ns", type=int, default=0, help="since when the relay's clock drifts")
    parser.add_argument("--ahead", type=int, default=0)
    parser.add_argument("--drift", type=float, default=0.0)
    for name in ("cert", "key", "ca"):
        parser.add_argument(f"--link-{name}-file", required=True)
    options = parser.parse_args()
    {"head": head, "relay": relay}[options.end](options)


if __name__ == "__main__":
    main()
