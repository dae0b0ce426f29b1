"""Sessions: who is who, and what is refused."""

from __future__ import annotations

from joulescope.attribution.accountant import Accountant
from joulescope.hook import wire
from joulescope.ingest.sessions import Sessions
from tests.worlds import GPU, SECOND, hello, start, step


def sessions() -> tuple[Sessions, Accountant]:
    accountant = Accountant()
    return Sessions(accountant), accountant


def test_an_engine_gets_a_stable_label_and_its_twin_another() -> None:
    """The label survives a restart; two engines of one model at the same time are told apart."""
    taken, accountant = sessions()
    taken.take(1, [hello(instance="a")])
    taken.take(2, [hello(instance="b")])
    assert list(accountant.tallies) == ["tiny-0", "tiny-0#2"]
    taken.close(1, SECOND, "disconnected")
    taken.take(3, [hello(2 * SECOND, instance="c")])
    assert list(accountant.tallies) == ["tiny-0", "tiny-0#2"]


def test_an_engine_may_have_a_name_and_units_of_its_own() -> None:
    """The name makes the label and the model stays the model; units that are empty or absent are tokens."""
    taken, accountant = sessions()
    facts = wire.EngineFacts(name="painter", model="org/tiny", unit="image", work_unit="", software="")
    taken.take(1, [wire.Hello(time_ns=0, engine=facts)])
    info = accountant.tallies["painter-0"].info
    assert (info.served_model, info.unit, info.work_unit, info.software) == ("org/tiny", "image", "token", "")
    taken.take(2, [hello()])
    assert accountant.tallies["tiny-0"].info.unit == "token"
    assert accountant.tallies["tiny-0"].info.software == "vllm"


def test_workers_bring_the_gpus_in_any_order() -> None:
    """A worker may say hello before or after its engine; the engine ends up with all GPUs, by rank."""
    taken, accountant = sessions()
    taken.take(1, [worker("GPU-1", rank=1)])
    taken.take(2, [hello(gpus=(), instance="i")])
    taken.take(3, [worker("GPU-0", rank=0)])
    taken.take(4, [worker("GPU-9", rank=0, instance="stranger")])
    assert accountant.tallies["tiny-0"].info.gpus == ("GPU-0", "GPU-1")
    assert taken.engine_gpus() == {"GPU-0", "GPU-1", "GPU-9"}


def test_the_connections_of_an_engine_are_known() -> None:
    """An engine's own connection and its workers' are its; those of strangers and of the dead are not."""
    taken, _ = sessions()
    taken.take(1, [worker("GPU-1", rank=1)])
    taken.take(2, [hello(gpus=(), instance="i")])
    taken.take(3, [worker("GPU-9", rank=0, instance="stranger")])
    taken.take(4, [hello(instance="j")])
    assert taken.engine_sessions() == {"tiny-0": [2, 1], "tiny-0#2": [4]}
    taken.close(2, SECOND, "disconnected")
    assert taken.engine_sessions() == {"tiny-0#2": [4]}


def worker(gpu: str, rank: int, instance: str = "i") -> wire.Hello:
    facts = wire.WorkerFacts(instance_id=instance, rank=rank, gpu=gpu)
    return wire.Hello(time_ns=0, role="worker", worker=facts)


def test_records_before_a_hello_are_refused() -> None:
    """Without knowing who speaks, nothing can be attributed."""
    taken, _ = sessions()
    taken.take(1, [step(0, 0, 5, [1]), start(1), wire.Hello(time_ns=1)])
    assert taken.rejected == {"before_hello": 2, "empty_hello": 1}


def test_a_newer_protocol_is_refused_as_a_whole() -> None:
    """A stream that would be misread is not read at all, and counted."""
    taken, accountant = sessions()
    newer = hello()
    newer.protocol = 2
    taken.take(1, [newer, start(1), step(0, 0, 5, [1])])
    assert taken.rejected == {"newer_protocol": 1, "refused_session": 2}
    assert not accountant.tallies


def test_steps_that_contradict_themselves_are_refused() -> None:
    """Unequal columns, backward time, repeats, and a request twice in one step."""
    taken, accountant = sessions()
    taken.take(1, [hello(), step(0, 10, 20, [1])])
    bad = [
        step(0, 20, 30, [1]),
        step(1, 30, 20, [1]),
        step(2, 20, 30, [1, 1]),
        step(3, 20, 30, [1], context=[1, 2]),
        step(4, 20, 30, [1], context=[-1]),
        step(5, 20, 30, [1], context=[2**70]),
        step(6, 5, 15, [1]),
        step(7, 20, 30, []),
    ]
    taken.take(1, bad)
    assert taken.rejected == {"repeated_step": 1, "malformed_step": 7}
    assert accountant.tallies["tiny-0"].steps == 1


def test_samples_on_a_socket_are_not_taken_from_an_engine() -> None:
    """An engine connection cannot speak for a sensor."""
    taken, _ = sessions()
    taken.take(1, [hello(), wire.Sample(gpu=GPU, time_ns=1, energy_joules=1.0)])
    assert taken.rejected == {"unexpected_type": 1}


def test_ids_chosen_by_clients_are_bounded() -> None:
    """A client may send any X-Request-Id; what is kept of it is bounded."""
    taken, accountant = sessions()
    taken.take(1, [hello(), wire.RequestStart(request=1, request_id="x" * 10_000, time_ns=1)])
    taken.take(1, [wire.RequestEnd(request=1, time_ns=2, reason="abort")])
    accountant.close(SECOND)
    (request,) = accountant.drain_finished()
    assert len(request.request_id) == 256


def test_samplers_are_joined_to_the_engines_of_their_instance() -> None:
    """A sampler may speak of what engine and workers of its own instance name; it is neither of them, and an
    engine may say that it would start one."""
    taken, _ = sessions()
    taken.take(1, [hello(gpus=["GPU-0"], instance="i", capabilities=[wire.SAMPLER])])
    taken.take(2, [worker("GPU-1", rank=1)])
    taken.take(3, [worker("GPU-9", rank=0, instance="stranger")])
    facts = wire.SamplerFacts(instance_id="i")
    taken.take(4, [wire.Hello(time_ns=0, role=wire.SAMPLER, sampler=facts)])
    assert taken.samplers() == {4: facts}
    assert (taken.sampler(4), taken.sampler(1), taken.sampler(99)) == (facts, None, None)
    assert taken.gpus_beside(facts) == {"GPU-0", "GPU-1"}
    assert list(taken.can_start_samplers()) == [1]
    assert taken.engine_sessions() == {"tiny-0": [1, 2]}
    taken.take(4, [wire.Sample(gpu="GPU-0", time_ns=0), wire.Progress(time_ns=0)])
    assert taken.rejected == {"unexpected_type": 1}
    taken.close(4, SECOND, "disconnected")
    assert taken.samplers() == {}
