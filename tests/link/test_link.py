"""Two ends of a link on loopback: clocks, reconnects, certificates, and peers that mean no good."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import trustme

from joulescope.errors import ConfigError
from joulescope.hook import wire
from joulescope.link.peer import HELLO_NS, SILENT_NS
from joulescope.link.records import LinkHello, LinkPong
from joulescope.link.server import MAX_SHAKING, LinkServer
from joulescope.link.tls import TlsFiles
from tests.link.bench import HEAD, RELAY, Bench, Certificates, OffsetClock

ENCODER = msgspec.msgpack.Encoder()
SECOND = 10**9


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "tls", OffsetClock())
    yield made
    made.close()


@dataclass
class Skip:
    """Moves the head's clock on."""

    bench: Bench

    def seconds(self, seconds: float) -> None:
        clock = self.bench.server._clock
        assert isinstance(clock, OffsetClock)
        clock.offset_ns += round(seconds * SECOND)


def sample(time_ns: int, gpu: str = "GPU-1") -> wire.Sample:
    return wire.Sample(session=5, gpu=gpu, time_ns=time_ns, energy_joules=1.0)


def samples_at(bench: Bench) -> list[wire.Sample]:
    return [each for arrival in bench.arrivals for each in arrival.records if isinstance(each, wire.Sample)]


def test_readings_arrive_in_the_head_s_time(bench: Bench) -> None:
    """A relay whose clock is a thousand seconds ahead: its instants come as ours, with an error that
    holds."""
    theirs = OffsetClock(1000.0)
    client = bench.client(clock=theirs)
    bench.until(lambda: client.epoch, "a welcome")
    taken_ns = theirs.now_ns()
    assert client.send(client.epoch, [sample(taken_ns)])
    bench.until(lambda: samples_at(bench), "the sample")
    (got,) = samples_at(bench)
    truth_ns = taken_ns - theirs.offset_ns
    assert 0 < got.clock_error_seconds < 1.0
    assert abs(got.time_ns - truth_ns) <= got.clock_error_seconds * SECOND
    assert got.session == 5
    (state,) = bench.server.totals().links
    assert (state.node, state.up) == ("worker-1", True)
    assert state.offset_seconds == pytest.approx(-1000.0, abs=1.0)
    assert state.round_trip_seconds is not None
    assert state.error_seconds is not None


def test_instants_of_a_gpu_never_run_backwards(bench: Bench) -> None:
    """What is out of order by less than the clocks' error is put in order; what is older is left out,
    counted."""
    theirs = OffsetClock(-50.0)
    client = bench.client(clock=theirs)
    bench.until(lambda: client.epoch, "a welcome")
    now_ns = theirs.now_ns()
    client.send(
        client.epoch, [sample(now_ns), sample(now_ns - 1), sample(now_ns - 20 * SECOND), sample(now_ns)]
    )
    bench.until(lambda: len(samples_at(bench)) >= 3, "the samples")
    times = [each.time_ns for each in samples_at(bench)]
    assert times == sorted(set(times))
    assert len(times) == 3
    assert bench.server.totals().rejected == {"backward_time": 1}


def test_nothing_counts_before_the_clock_is_known(bench: Bench) -> None:
    """A peer with a good certificate that sends readings before the first exchange is not heeded."""
    with bench.secure_stranger() as peer:
        peer.send(wire.encode_frame([LinkHello(node="n"), sample(1)], ENCODER))
        bench.until(lambda: bench.server.totals().rejected, "a refusal")
    assert bench.server.totals().rejected == {"before_welcome": 1}
    assert not samples_at(bench)


@pytest.mark.parametrize(
    ("heard_ns", "answered_ns", "reason"),
    [(9, 5, "malformed_pong"), (2**63 - 1, 2**63 - 1, "before_welcome")],
)
def test_a_clock_that_lies_is_no_clock(bench: Bench, heard_ns: int, answered_ns: int, reason: str) -> None:
    """Time that runs backwards is counted; whatever else it claims, no instant of its becomes a future
    one."""
    with bench.secure_stranger() as peer:
        peer.send(wire.encode_frame([LinkHello(node="n")], ENCODER))
        bench.until(lambda: _can_read(peer), "a ping")
        pong = LinkPong(number=1, heard_ns=heard_ns, answered_ns=answered_ns)
        peer.send(wire.encode_frame([sample(1), pong, sample(2**62)], ENCODER))
        bench.until(lambda: bench.server.totals().rejected.get(reason), reason)
        now_ns = bench.server._clock.now_ns()
        assert all(each.time_ns <= now_ns for each in samples_at(bench))


def _can_read(peer: ssl.SSLSocket) -> bool:
    try:
        return bool(peer.recv(4096))
    except ssl.SSLWantReadError:
        return False


def test_whoever_speaks_no_tls_is_refused(bench: Bench) -> None:
    """Plaintext, of HTTP or of our own protocol, is never answered, and counted as what it is."""
    with bench.stranger() as one, bench.stranger() as two:
        one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        two.sendall(wire.encode_frame([LinkHello(node="n")], ENCODER))
        bench.until(lambda: sum(bench.refused().values()) == 2, "two refusals")
    assert bench.refused().keys() <= {"plaintext", "handshake"}
    assert bench.refused()["plaintext"] >= 1


def test_a_certificate_of_another_authority_is_refused(bench: Bench, tmp_path: Path) -> None:
    """One that the head's authority has not signed, and none at all; the relay says what it was told."""
    other = Certificates(tmp_path / "other", trustme.CA())
    paths = other.issue(RELAY)
    bench.certificates.authority.cert_pem.write_to_path(tmp_path / "other" / "ca.crt")
    client = bench.client(paths=paths)
    bench.until(lambda: bench.refused().get("certificate"), "a refusal")
    bench.until(lambda: client.failures, "the relay to know")
    bare = ssl.create_default_context(cafile=str(bench.certificates.folder / "ca.crt"))
    with bare.wrap_socket(bench.stranger(), server_hostname=HEAD, do_handshake_on_connect=False) as peer:
        peer.setblocking(False)
        bench.until(lambda: _shakes(peer) or bench.refused()["certificate"] > 1, "the handshake")
        bench.until(lambda: bench.refused()["certificate"] > 1, "a second refusal")
    assert client.epoch == 0


def _shakes(peer: ssl.SSLSocket) -> bool:
    try:
        peer.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def test_a_head_with_another_name_is_not_believed(bench: Bench) -> None:
    """The relay looks at who the head is: a certificate for another name ends the handshake."""
    client = bench.client(server_name="elsewhere.test")
    bench.until(lambda: client.failures, "the relay to refuse")
    assert "elsewhere.test" in client.error
    assert bench.refused() == {} or "certificate" in bench.refused()


def test_those_who_dawdle_make_room(bench: Bench) -> None:
    """Connections that say nothing hold no place for long: the oldest go when there are too many, the rest in
    time, and a relay comes through between them."""
    crowd = [bench.stranger() for _ in range(MAX_SHAKING + 3)]
    bench.until(lambda: bench.refused().get("crowded") == 3, "the crowd to be thinned")
    client = bench.client()
    bench.until(lambda: client.epoch, "a welcome in the crowd")
    Skip(bench).seconds(HELLO_NS / SECOND + 0.5)
    bench.until(lambda: bench.refused().get("slow") == MAX_SHAKING - 1, "the slow to go")
    for each in crowd:
        each.close()


def test_garbage_after_the_handshake_is_counted(bench: Bench) -> None:
    """What cannot be a frame ends the link; records of other kinds, such as steps, are left out one by
    one."""
    with bench.secure_stranger() as peer:
        peer.send(b"\xff" * 64)
        bench.until(lambda: bench.refused().get("not_this_protocol"), "the end")
    step = wire.Step(
        step=1,
        schedule_start_ns=1,
        schedule_end_ns=2,
        output_start_ns=3,
        output_end_ns=4,
        request=[],
        context=[],
    )
    with bench.secure_stranger() as peer:
        peer.send(wire.encode_frame([LinkHello(node="n"), step], ENCODER))
        bench.until(lambda: bench.server.totals().rejected, "a refusal")
    assert bench.server.totals().rejected == {"unknown_type": 1}


def test_a_newer_protocol_is_refused(bench: Bench) -> None:
    """A relay that speaks what this head would misread is told to go, not misread."""
    with bench.secure_stranger() as peer:
        peer.send(wire.encode_frame([LinkHello(node="n", protocol=99)], ENCODER))
        bench.until(lambda: bench.refused().get("newer_protocol"), "the end")


def test_a_silent_link_is_given_up_and_comes_back(bench: Bench) -> None:
    """The head notices that nobody answers, says that the node is down, and takes it again."""
    client = bench.client()
    bench.until(lambda: client.epoch == 1, "a welcome")
    bench.clients.clear()
    bench.turn()
    Skip(bench).seconds(SILENT_NS / SECOND + 1)
    bench.until(lambda: bench.refused().get("silent"), "the end")
    (state,) = bench.server.totals().links
    assert (state.node, state.up, state.offset_seconds) == ("worker-1", False, None)
    assert [each.closed for each in bench.arrivals if each.closed] == ["silent"]
    client._clock.offset_ns = 10 * SECOND  # type: ignore[attr-defined]
    client._pause_seconds = 0.0
    bench.clients.append(client)
    bench.until(lambda: client.epoch == 2 or _hurry(client), "another welcome")
    assert [each.up for each in bench.server.totals().links] == [True]


def _hurry(client: object) -> bool:
    client._next_ns = 0  # type: ignore[attr-defined]
    return False


def test_the_newer_of_two_links_of_a_node_stays(bench: Bench) -> None:
    """A relay that was restarted takes the place of its own connection that nobody has missed yet."""
    first = bench.client()
    bench.until(lambda: first.epoch, "a welcome")
    bench.clients.clear()
    second = bench.client()
    bench.until(lambda: second.epoch, "a second welcome")
    assert bench.refused() == {"replaced": 1}


def test_an_accounting_that_is_late_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody empties the queue the relay is not read, and nothing is lost afterwards."""
    monkeypatch.setattr("joulescope.link.server.MAX_QUEUED", 50)
    client = bench.client(clock=OffsetClock())
    bench.until(lambda: client.epoch, "a welcome")
    now_ns = client._clock.now_ns()
    for at in range(40):
        client.send(client.epoch, [sample(now_ns - 10**6 + 10 * at + each) for each in range(10)])
    for _ in range(100):
        bench.server.turn(0.0)
        client.turn(0.0)
    held = sum(len(each.records) for each in bench.server._arrivals)
    assert held < 400
    bench.until(lambda: len(samples_at(bench)) == 400, "all samples")


def test_new_certificates_hold_at_once(bench: Bench) -> None:
    """When the files change the links are made anew with them; files that are spoilt change nothing, and the
    totals say what is wrong with them."""
    client = bench.client()
    bench.until(lambda: client.epoch == 1, "a welcome")
    bench.certificates.issue(HEAD)
    Skip(bench).seconds(3)
    bench.until(lambda: client.failures, "the link to end")
    bench.until(lambda: client.epoch == 2 or _hurry(client), "a welcome")
    good = bench.server._files.context
    Path(bench.certificates.paths(HEAD).cert_file).write_text("nonsense")
    Skip(bench).seconds(3)
    bench.until(lambda: bench.server.totals().files_error, "a complaint")
    assert "link_cert_file" in bench.server.totals().files_error
    assert bench.server._files.context is good
    assert client.epoch == 2


@pytest.mark.parametrize("spoilt", ["crt", "key", "ca"])
@pytest.mark.parametrize("text", [None, "nonsense"])
def test_files_that_are_no_use_are_named(tmp_path: Path, spoilt: str, text: str | None) -> None:
    """Missing or broken, certificate, key or authority: the error says which and how to mend it."""
    certificates = Certificates(tmp_path)
    paths = certificates.issue(HEAD)
    path = Path({"crt": paths.cert_file, "key": paths.key_file, "ca": paths.ca_file}[spoilt])
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ConfigError, match=r"link_(cert|key|ca)_file") as raised:
        TlsFiles(paths, server=True)
    assert str(path) in str(raised.value)


def test_a_port_in_use_is_said(bench: Bench) -> None:
    """The head says what to change."""
    files = TlsFiles(bench.certificates.paths(HEAD), server=True)
    with pytest.raises(ConfigError, match="link_listen"):
        LinkServer("127.0.0.1", bench.port, files, OffsetClock()).open()
