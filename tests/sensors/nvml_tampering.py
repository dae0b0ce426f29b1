"""The parts on the bench, and what can be done to them: the vocabulary of the table of faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.fake_nvml import PARTS, SUCCESS, FakeDriver
from tests.sensors.nvml_bench import WATTS, Bench

A, B = "GPU-a", "GPU-b"
H100 = replace(PARTS["h100"], uuid=A, live=True, power_watts=WATTS)
SECOND_H100 = replace(H100, uuid=B)
PASCAL = replace(PARTS["pascal"], uuid=A, power_watts=WATTS)
NOT_AVAILABLE = 2**64 - 1

Change = Callable[[Bench], object]


def code(function: str, number: int, gpu: str = A) -> Change:
    return lambda bench: bench.driver.set_code(gpu, function, number)


def raw(**fields: int) -> Change:
    return lambda bench: bench.driver.set_raw(A, **fields)


def lose(number: int, gpu: str = A) -> Change:
    return lambda bench: bench.driver.lose(gpu, number)


def each(*changes: Change) -> Change:
    def all_of_them(bench: Bench) -> None:
        for change in changes:
            change(bench)

    return all_of_them


def init(number: int) -> Change:
    return lambda bench: bench.driver.set_init_code(number)


def nothing(bench: Bench) -> None:
    pass


def unload(bench: Bench) -> None:
    bench.driver.unload()


def add_to_counter(joules: float) -> Change:
    def leap(driver: FakeDriver) -> None:
        driver.set_counter(A, driver.counter_mj(A) + round(joules * 1000))

    return lambda bench: bench.tamper(leap)


def zero(bench: Bench) -> None:
    bench.tamper(lambda driver: driver.set_counter(A, 0))


def stick(bench: Bench) -> None:
    bench.driver.freeze(A)


def catch_up(bench: Bench) -> None:
    """The counter shows what was drawn while it stood still."""
    bench.driver.set_raw(A, live=1)


def go_on(bench: Bench) -> None:
    """The counter goes on from where it stood."""
    bench.tamper(lambda driver: driver.resume(A))


def reattach(bench: Bench) -> None:
    bench.driver.lose(A, SUCCESS)
    bench.driver.reattach(A)


def plug_in(bench: Bench) -> None:
    bench.tamper(lambda driver: driver.add(SECOND_H100))


def take_out(bench: Bench) -> None:
    bench.tamper(lambda driver: driver.remove_last())


def draw(watts: float, limit_watts: float) -> Change:
    def change(bench: Bench) -> None:
        bench.driver.set_raw(A, power_limit_mw=round(limit_watts * 1000))
        bench.driver.set_power(A, watts)

    return change


def slow(duration_seconds: float) -> Change:
    return lambda bench: bench.driver.set_call_seconds(duration_seconds)


def pause(duration_seconds: float) -> Change:
    return lambda bench: bench.clock.pause(duration_seconds)
