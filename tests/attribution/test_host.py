"""Who gets the joules of CPU packages and DRAM, and that none is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.attribution.host import QUIET_RATIO, SPELL_NS, SPELLS, HostAccount, IdlePower
from joulescope.errors import ConservationError
from joulescope.host_model import CpuShare, HostInterval

SECOND = 1_000_000_000
CPUS = 10.0


def spell(
    start_second: float,
    watts: float,
    *,
    busy: float = 0.0,
    seconds: float = 10.0,
    unseen: bool = False,
    **engines: float,
) -> HostInterval:
    """A stretch at one power; ``busy`` and the engines' figures are CPU seconds."""
    start_ns, length_ns = round(start_second * SECOND), round(seconds * SECOND)
    share = CpuShare(busy, CPUS * seconds, engines, unseen)
    return HostInterval("package-0", start_ns, start_ns + length_ns, round(1e6 * watts * seconds), share)


def quiet_account(watts: float = 100.0) -> HostAccount:
    """An account that has seen ten quiet seconds."""
    account = HostAccount()
    account.add(spell(0, watts, busy=1.0))
    return account


def test_engines_pay_above_idle_by_their_cpu_time() -> None:
    """An engine with a quarter of the busy time pays a quarter of what is drawn above idle."""
    account = quiet_account()
    account.add(spell(10, 300.0, busy=40.0, llama=10.0, qwen=20.0))
    assert account.attributed_uj == {"llama": 500_000_000, "qwen": 1_000_000_000}
    assert account.other_uj == 500_000_000
    assert account.idle_uj == 2_000_000_000
    assert account.unattributed_uj.total() == 0
    assert account.residual_uj == 0


def test_before_the_host_was_quiet_idle_is_not_known() -> None:
    """On a host that was always busy the least power is nobody's; engines pay above it only."""
    account = HostAccount()
    account.add(spell(0, 300.0, busy=50.0, llama=50.0))
    account.add(spell(10, 350.0, busy=50.0, llama=50.0))
    assert account.idle_uj == 0
    assert account.unattributed_uj == {"idle_unknown": 6_000_000_000}
    assert account.attributed_uj == {"llama": 500_000_000}
    assert account.idle.least_watts == 300.0
    assert not account.idle.quiet


def test_in_the_first_ten_seconds_nothing_is_attributed() -> None:
    """A single second is no measure of idle power."""
    account = HostAccount()
    account.add(spell(0, 300.0, busy=5.0, seconds=1.0, llama=5.0))
    assert account.unattributed_uj == {"idle_unknown": 300_000_000}
    assert account.attributed_uj["llama"] == 0


def test_time_of_processes_out_of_sight_is_not_called_other() -> None:
    """If an engine is not visible the remainder may be its own, and is unattributed with that reason."""
    account = quiet_account()
    account.add(spell(10, 300.0, busy=40.0, unseen=True, llama=10.0))
    assert account.other_uj == 0
    assert account.unattributed_uj["processes_unseen"] == 1_500_000_000


def test_without_cpu_time_only_idle_is_known() -> None:
    """If CPU time could not be read what is above idle is nobody's, with that reason."""
    account = quiet_account()
    account.add(HostInterval("package-0", 10 * SECOND, 20 * SECOND, 3_000_000_000))
    assert account.idle_uj == 2_000_000_000
    assert account.unattributed_uj["cpu_time_unknown"] == 2_000_000_000


def test_energy_without_a_process_is_idle() -> None:
    """Power above the least while nothing ran at all was drawn for nobody."""
    account = quiet_account()
    account.add(spell(10, 120.0, busy=0.0))
    assert account.idle_uj == 2_200_000_000


def test_engines_cannot_have_more_than_all() -> None:
    """The kernel counts the host by ticks and processes exactly: engines above the sum share it all."""
    account = quiet_account()
    account.add(spell(10, 300.0, busy=3.0, llama=3.0, qwen=1.0))
    assert account.attributed_uj == {"llama": 1_500_000_000, "qwen": 500_000_000}
    assert account.other_uj == 0


def test_a_quieter_moment_corrects_the_idle_power() -> None:
    """The least of any ten seconds counts, quiet if the CPUs were busy for a tenth of them at most."""
    idle = IdlePower()
    idle.add(spell(0, 300.0, busy=50.0))
    assert (idle.least_watts, idle.quiet) == (300.0, False)
    idle.add(spell(10, 120.0, busy=QUIET_RATIO * CPUS * 10.0))
    assert (idle.least_watts, idle.quiet) == (120.0, True)
    idle.add(spell(20, 200.0, busy=50.0))
    assert (idle.least_watts, idle.quiet) == (120.0, True)


def test_what_was_least_a_day_ago_is_forgotten() -> None:
    """A host whose idle power rose is not held to yesterday's for ever, and an hour keeps one figure."""
    idle = IdlePower()
    idle.add(spell(0, 50.0))
    hour = SPELL_NS / SECOND
    for hours in range(1, SPELLS):
        idle.add(spell(hours * hour, 90.0))
        assert idle.least_watts == 50.0
    idle.add(spell(SPELLS * hour + 10, 90.0))
    assert idle.least_watts == 90.0


def test_an_interval_that_does_not_add_up_is_refused() -> None:
    """Negative joules, which only a bug could bring, raise and change nothing."""
    account = quiet_account()
    with pytest.raises(ConservationError, match="please report"):
        account.add(HostInterval("package-0", 0, SECOND, -5))
    assert account.measured_uj == 1_000_000_000


shares = st.one_of(
    st.none(),
    st.builds(
        CpuShare,
        busy_seconds=st.floats(0.0, 1e4),
        total_seconds=st.floats(0.0, 1e5),
        engine_seconds=st.dictionaries(st.sampled_from("abc"), st.floats(0.0, 1e4)),
        engines_unseen=st.booleans(),
    ),
)


@given(
    st.lists(
        st.tuples(st.integers(1, 30 * SECOND), st.integers(0, 60_000_000_000), shares),
        min_size=1,
        max_size=40,
    )
)
def test_every_joule_once(stretches: list[tuple[int, int, CpuShare | None]]) -> None:
    """Whatever was drawn and whoever ran: attributed, other, idle and unattributed sum to the measured."""
    account, now_ns, measured_uj = HostAccount(), 0, 0
    for length_ns, energy_uj, share in stretches:
        account.add(HostInterval("dram-0", now_ns, now_ns + length_ns, energy_uj, share))
        now_ns, measured_uj = now_ns + length_ns, measured_uj + energy_uj
    assert account.measured_uj == measured_uj
    assert account.residual_uj == 0
    parts = [account.other_uj, account.idle_uj, *account.attributed_uj.values()]
    assert min([*parts, *account.unattributed_uj.values()]) >= 0
