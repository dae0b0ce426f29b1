"""A GPU's joules split among its MIG instances: from the driver, by real pynvml, to requests and totals."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from joulescope.cli.replay import command as replay_command
from joulescope.config import Settings
from joulescope.daemon.daemon import Daemon
from joulescope.export.prometheus import Exposition
from joulescope.export.records import finished_line
from joulescope.export.span_attributes import attributes_of
from joulescope.model import GpuInfo, GpuReading, GpuStatus, GpuTotals, Snapshot
from joulescope.pipeline import Pipeline, Scope
from tests.fake_nvml import DriverClock, FakeInstance
from tests.mig_bench import (
    CUT,
    H100,
    IDLE_WATTS,
    LARGE,
    SMALL,
    WALL,
    WHOLE,
    Bench,
    bench,
    by_gpu,
    read,
    replayed,
)
from tests.sensors.conftest import MakeDriver, libraries, library, make_driver
from tests.worlds import SECOND

__all__ = ["libraries", "library", "make_driver"]


def microjoules(joules: float) -> int:
    return round(joules * 1e6)


def parts_uj(gpu: GpuTotals) -> int:
    parts = [gpu.attributed_joules, gpu.idle_joules]
    parts += [*gpu.overhead_joules.values(), *gpu.unattributed_joules.values()]
    return sum(map(microjoules, parts))


def assert_every_joule_once(snapshot: Snapshot, drawn_joules: float) -> None:
    """Each account adds up to the microjoule, and all together are what the card drew."""
    gpus = by_gpu(snapshot)
    assert all(gpu.residual_joules == 0 for gpu in gpus.values())
    assert all(parts_uj(gpu) == microjoules(gpu.measured_joules) for gpu in gpus.values())
    total = sum(microjoules(gpu.measured_joules) for gpu in gpus.values())
    assert total == microjoules(gpus[WHOLE].whole_joules or 0.0)
    assert total / 1e6 == pytest.approx(drawn_joules, abs=0.2 * 700)  # a tick or two at either end


def measured(snapshot: Snapshot) -> Mapping[str, float]:
    return {gpu: totals.measured_joules for gpu, totals in by_gpu(snapshot).items()}


def served(at: Bench, *, quiet_seconds: float = 20.0, busy_seconds: float = 40.0) -> tuple[Snapshot, float]:
    """Two engines that idle first, then work: 300 W above idle at 80 % of 3 slices and 30 % of 2."""
    at.engine(0, LARGE)
    at.engine(1, SMALL)
    at.load(0.0, large=0.0, small=0.0)
    at.run(quiet_seconds)
    before = at.driver.true_joules(WHOLE)
    at.load(300.0, large=80.0, small=30.0)
    at.run(busy_seconds, working=[0, 1])
    busy_joules = at.driver.true_joules(WHOLE) - before
    return at.close(), busy_joules


def test_two_engines_on_two_instances_get_their_parts(make_driver: MakeDriver) -> None:
    """Idle power by slices, the rest by slices times activity: each engine's request has its instance's
    part, what is in no instance stays with the GPU, and nothing is counted twice or lost."""
    at = bench(make_driver)
    snapshot, busy_joules = served(at)
    assert_every_joule_once(snapshot, busy_joules + 20 * IDLE_WATTS)
    above_watts = {LARGE: 300.0 * 2.4 / 3.0, SMALL: 300.0 * 0.6 / 3.0}
    for gpu, slices in ((LARGE, 3), (SMALL, 2)):
        share = measured(snapshot)[gpu]
        assert share == pytest.approx(60 * slices * 12.0 + 40 * above_watts[gpu], rel=0.03)
    rest = by_gpu(snapshot)[WHOLE].unattributed_joules
    assert rest["mig_rest"] == pytest.approx(60 * 2 * 12.0, rel=0.05)
    assert rest["mig_instance"] < 1.5 * (
        84 + 384
    )  # the first second and the last, whose activity is not known
    large, small = sorted(at.finished, key=lambda request: request.engine)
    assert large.attributed_joules == pytest.approx(40 * (above_watts[LARGE] + 36.0), rel=0.03)
    assert small.attributed_joules == pytest.approx(40 * (above_watts[SMALL] + 24.0), rel=0.03)


def test_split_joules_say_everywhere_that_they_are_an_estimate(make_driver: MakeDriver) -> None:
    """The instance, the request's log line and its span name the source; no interval of error is claimed."""
    at = bench(make_driver)
    snapshot, _ = served(at, quiet_seconds=3.0, busy_seconds=5.0)
    large = by_gpu(snapshot)[LARGE].info
    assert (large.energy_source, large.parent, large.slices, large.slices_total) == ("mig_gpm", WHOLE, 3, 7)
    assert large.name == "NVIDIA H100 80GB HBM3 MIG 3g.40gb"
    assert by_gpu(snapshot)[WHOLE].info.energy_source == "counter"
    assert len(at.finished) == 2
    for request in at.finished:
        line, span = json.loads(finished_line(request, WALL)), attributes_of(request)
        assert line["energy_source"] == span["joulescope.request.energy_source"] == "mig_gpm"
        assert line["attributed_low_joules"] is line["marginal_high_joules"] is None
        assert line["attributed_joules"] > 0


def test_refuse_is_the_default_and_splits_nothing(make_driver: MakeDriver) -> None:
    """Without the choice there is one GPU: its joules are unattributed, and requests have none."""
    at = bench(make_driver, mig="refuse")
    snapshot, _ = served(at, quiet_seconds=3.0, busy_seconds=5.0)
    (whole,) = snapshot.gpus
    assert set(whole.unattributed_joules) == {"mig_instance"}
    assert whole.whole_joules is None
    assert [request.attributed_joules for request in at.finished] == [None, None]


def test_the_sum_over_all_gpus_on_the_page_is_what_the_card_drew(make_driver: MakeDriver) -> None:
    """sum(joulescope_measured_energy_joules_total) needs no exception: the whole has a name of its own."""
    at = bench(make_driver)
    snapshot, busy_joules = served(at, quiet_seconds=5.0, busy_seconds=5.0)
    text = Exposition(lambda: snapshot, process_metrics=False).render().body.decode()
    found = dict(
        re.findall(r'^joulescope_measured_energy_joules_total{gpu="(.*)"} (.*)$', text, re.MULTILINE)
    )
    assert found.keys() == {WHOLE, LARGE, SMALL}
    total = sum(map(float, found.values()))
    assert total == pytest.approx(busy_joules + 5 * IDLE_WATTS, abs=150)
    (whole,) = re.findall(r"^joulescope_whole_gpu_energy_joules_total{(.*)} (.*)$", text, re.MULTILINE)
    assert (whole[0], float(whole[1])) == (f'gpu="{WHOLE}"', pytest.approx(total, abs=1e-6))
    label = f'{{gpu="{SMALL}",parent="{WHOLE}",slices="2",slices_total="7"}}'
    assert f"joulescope_mig_instance_info{label} 1" in text
    assert f'joulescope_gpu_sm_active_ratio{{gpu="{SMALL}"}} 0.3' in text
    assert f'joulescope_gpu_power_watts{{gpu="{SMALL}"}}' not in text


def test_replay_says_which_figures_are_a_split(make_driver: MakeDriver, tmp_path: Path) -> None:
    """`joulescope replay` remarks on the figures of instances, so that nobody takes them for measured."""
    path = tmp_path / "trace.jsonl"
    served(bench(make_driver, trace=path), quiet_seconds=3.0, busy_seconds=3.0)
    lines = CliRunner().invoke(replay_command, [str(path)]).stdout.splitlines()
    said = {line.split(":")[0]: line for line in lines if ": measured" in line}
    assert said.keys() == {WHOLE, LARGE, SMALL}
    assert said[SMALL].endswith("(an estimate: split off its GPU's by performance counters)")
    assert said[WHOLE].endswith(" J")
    assert lines.count("  residual           0.000000 J") == 3


def test_the_setting_reaches_sensor_and_page(make_driver: MakeDriver, tmp_path: Path) -> None:
    """`mig: gpm` is all that an operator sets: the daemon then publishes instances, and without it none."""
    clock = DriverClock(SECOND, driver=make_driver(replace(H100, instances=CUT)))
    for mig, found in (("gpm", {WHOLE, LARGE, SMALL}), ("refuse", {WHOLE})):
        path = str(tmp_path / f"{mig}.sock")
        settings = Settings(socket=path, listen="127.0.0.1:0", gpus="all", host="off", mig=mig)
        daemon = Daemon.build(settings, clock=clock, environ={})
        assert daemon._sampler is not None
        for _ in range(30):
            daemon._sampler.step()
            daemon.turn(0.0)
        assert by_gpu(daemon.close(0.1)).keys() == found


def test_a_replay_splits_alike(make_driver: MakeDriver, tmp_path: Path) -> None:
    """The trace holds cut and activity: the same joules on every instance and request, to the microjoule."""
    path = tmp_path / "trace.jsonl"
    at = bench(make_driver, trace=path)
    snapshot, _ = served(at, quiet_seconds=5.0, busy_seconds=10.0)
    again, finished = replayed(path)
    assert by_gpu(again).keys() == by_gpu(snapshot).keys() == {WHOLE, LARGE, SMALL}
    for gpu, totals in by_gpu(again).items():
        live = by_gpu(snapshot)[gpu]
        names = ("measured_joules", "attributed_joules", "idle_joules", "unattributed_joules", "whole_joules")
        assert [getattr(totals, name) for name in names] == [getattr(live, name) for name in names]
        assert replace(totals.info, sensor="nvml") == live.info
    assert [each.attributed_joules for each in finished] == [each.attributed_joules for each in at.finished]


def test_an_instance_made_anew_while_running(make_driver: MakeDriver, tmp_path: Path) -> None:
    """One is destroyed and a larger one with another UUID made: the first keeps what it had, the second gets
    joules by its own size, the neighbour goes on, a replay says the same, and every joule is there once."""
    path = tmp_path / "trace.jsonl"
    at = bench(make_driver, trace=path)
    at.engine(0, LARGE)
    at.load(0.0, large=0.0, small=0.0)
    at.run(10.0)
    at.load(200.0, large=50.0, small=50.0)
    at.run(10.0, working=[0])
    at.driver.destroy_instance(WHOLE, SMALL)
    at.load(150.0, large=50.0)
    at.run(10.0, working=[0])
    kept = at.pipeline.snapshot(at.clock.now_ns())
    at.driver.make_instance(WHOLE, FakeInstance("MIG-new", 4, 5))
    at.load(350.0, new=50.0)
    at.run(10.0, working=[0])
    snapshot = at.close()
    assert at.kinds() == ["SensorOpened", *["SensorDown", "SensorOpened"] * 2]
    assert_every_joule_once(snapshot, at.driver.true_joules(WHOLE) - 5000.0)
    assert measured(snapshot)[SMALL] == measured(kept)[SMALL] == pytest.approx(20 * 24 + 10 * 80, rel=0.1)
    assert measured(snapshot)["MIG-new"] == pytest.approx(10 * (48 + 200), rel=0.25)
    assert by_gpu(snapshot)["MIG-new"].info.name.endswith("MIG 4g.40gb")
    assert not by_gpu(snapshot)[SMALL].up
    assert by_gpu(snapshot)[LARGE].up
    again, _ = replayed(path)
    assert measured(again) == measured(snapshot)


def test_an_instance_made_anew_under_its_old_name(make_driver: MakeDriver, tmp_path: Path) -> None:
    """The driver may give a UUID again: its size is that of the new one from then on, in the replay too."""
    path = tmp_path / "trace.jsonl"
    at = bench(make_driver, trace=path)
    at.engine(0, SMALL)
    at.load(0.0, large=0.0, small=0.0)
    at.run(10.0)
    at.driver.destroy_instance(WHOLE, SMALL)
    at.driver.make_instance(WHOLE, FakeInstance(SMALL, 4, 2))
    at.load(0.0, small=0.0)
    at.run(20.0)
    snapshot = at.close()
    assert by_gpu(snapshot)[SMALL].info.slices == 4
    assert measured(snapshot)[SMALL] == pytest.approx(10 * 24 + 20 * 48, rel=0.1)
    assert_every_joule_once(snapshot, 30 * IDLE_WATTS)
    assert measured(replayed(path)[0]) == measured(snapshot)


def test_mig_mode_switched_off_while_running(make_driver: MakeDriver, tmp_path: Path) -> None:
    """From then on the GPU is measured as a whole: an engine on it is accounted as anywhere else."""
    path = tmp_path / "trace.jsonl"
    at = bench(make_driver, trace=path, scope=Scope(all_gpus=True))
    at.load(0.0, large=0.0, small=0.0)
    at.run(5.0)
    at.driver.set_mig_mode(WHOLE, False)
    at.run(2.0)
    at.engine(0, WHOLE)
    at.load(200.0)
    at.run(10.0, working=[0])
    snapshot = at.close()
    whole = by_gpu(snapshot)[WHOLE]
    assert whole.info.instances == ()
    assert whole.attributed_joules == pytest.approx(10 * 284.0, rel=0.1)
    assert measured(snapshot)[LARGE] == pytest.approx(5 * 36, rel=0.25)
    assert at.finished[0].energy_source == "counter"
    assert_every_joule_once(snapshot, 7 * IDLE_WATTS + 10 * 284.0)
    assert measured(replayed(path)[0]) == measured(snapshot)


def test_without_the_activity_of_one_instance_nothing_is_split(
    make_driver: MakeDriver, caplog: pytest.LogCaptureFixture
) -> None:
    """A neighbour that tells nothing, or the impossible, could have drawn anything: all stays with the GPU,
    with the reason, the log says so once, and the split goes on when it tells again."""
    at = bench(make_driver)
    at.engine(0, LARGE)
    at.load(200.0, large=50.0, small=-1.0)
    with caplog.at_level(logging.WARNING):
        at.run(10.0, working=[0])
        at.load(200.0, small=129.4)
        at.run(10.0, working=[0])
    dark = at.pipeline.snapshot(at.clock.now_ns())
    assert set(by_gpu(dark)[WHOLE].unattributed_joules) == {"mig_instance"}
    assert measured(dark)[LARGE] == 0
    assert caplog.text.count(f"MIG instance {SMALL} tells no SM activity") == 1
    at.load(200.0, small=0.0)
    at.run(10.0, working=[0])
    snapshot = at.close()
    assert measured(snapshot)[LARGE] == pytest.approx(10 * (0.43 * 84 + 200), rel=0.25)
    assert not at.finished[0].complete
    assert_every_joule_once(snapshot, 30 * 284.0)


def test_a_request_of_which_nothing_could_be_split_has_no_joules(make_driver: MakeDriver) -> None:
    """Absent is not zero: it is not said to have cost nothing."""
    at = bench(make_driver)
    at.load(0.0, small=-1.0)
    at.engine(0, LARGE)
    at.run(5.0, working=[0])
    at.close()
    assert [(each.attributed_joules, each.complete) for each in at.finished] == [(None, False)]


def test_an_instance_without_an_engine_has_its_own_joules_too(make_driver: MakeDriver) -> None:
    """What a stranger's instance draws is not the neighbour's: it stands there, unattributed."""
    at = bench(make_driver)
    at.engine(0, LARGE)
    at.load(300.0, large=0.0, small=90.0)
    at.run(20.0)
    snapshot = at.close()
    small = by_gpu(snapshot)[SMALL]
    assert small.measured_joules > 20 * 250
    assert small.unattributed_joules == {"unmapped": pytest.approx(small.measured_joules)}
    assert by_gpu(snapshot)[LARGE].idle_joules == measured(snapshot)[LARGE]


def test_only_a_gpu_with_an_engine_on_it_is_published(make_driver: MakeDriver) -> None:
    """As everywhere, GPUs that no engine names are not looked at; with one instance the whole GPU comes."""
    at = bench(make_driver)
    at.driver.add(replace(H100, uuid="GPU-other", instances=(FakeInstance("MIG-other"),)))
    at.engine(0, SMALL)
    at.run(3.0)
    assert by_gpu(at.close()).keys() == {WHOLE, LARGE, SMALL}


@pytest.mark.parametrize("named", [WHOLE, SMALL])
def test_a_gpu_may_be_chosen_by_itself_or_by_an_instance(make_driver: MakeDriver, named: str) -> None:
    """Named in the settings, by either UUID, it is measured and split without any engine."""
    at = bench(make_driver, scope=Scope(uuids=[named]))
    at.load(0.0, large=0.0, small=0.0)
    at.run(5.0)
    snapshot = at.close()
    assert by_gpu(snapshot).keys() == {WHOLE, LARGE, SMALL}
    assert measured(snapshot)[SMALL] == pytest.approx(5 * 24, rel=0.25)


def test_a_gpu_cut_anew_for_ever_does_not_fill_memory(caplog: pytest.LogCaptureFixture) -> None:
    """After 64 instances new ones get no account: the log says so, and their joules stay with the GPU."""
    pipeline = Pipeline(scope=Scope(all_gpus=True), wall=WALL)
    for second in range(70):
        uuid = f"MIG-{second}"
        part = GpuInfo(uuid, energy_source="mig_gpm", parent=WHOLE, slices=7, slices_total=7)
        pipeline.gpus_found([GpuInfo(WHOLE, instances=(uuid,), energy_split="gpm"), part])
        for tenth in range(10):
            now_ns = second * SECOND + tenth * SECOND // 10
            pipeline.read([GpuReading(WHOLE, now_ns, energy_joules=100.0 * now_ns / SECOND)])
            pipeline.read([GpuReading(uuid, now_ns, status=GpuStatus(uuid, now_ns, sm_active_ratio=0.5))])
        pipeline.settle(now_ns)
    pipeline.finish(now_ns)
    snapshot = pipeline.snapshot(now_ns)
    assert len(snapshot.gpus) == 1 + 64
    assert caplog.text.count(f"GPU {WHOLE} was cut into more than 64 MIG instances") == 1
    assert by_gpu(snapshot)[WHOLE].whole_joules == pytest.approx(70 * 100.0, rel=0.01)
    assert min(measured(snapshot).values()) > 0


def test_calibration_is_that_of_the_whole_gpu(make_driver: MakeDriver, tmp_path: Path) -> None:
    """The card's factor is applied once, before the split, and shown on its instances."""
    factor = {WHOLE: 1.1}.__getitem__
    at = bench(make_driver, trace=tmp_path / "trace.jsonl", calibration=factor)
    snapshot, busy_joules = served(at, quiet_seconds=5.0, busy_seconds=10.0)
    assert_every_joule_once(snapshot, 1.1 * (busy_joules + 5 * IDLE_WATTS))
    assert {gpu.info.calibration_factor for gpu in snapshot.gpus} == {1.1}
    assert measured(replayed(tmp_path / "trace.jsonl")[0]) == measured(snapshot)


def test_the_trace_holds_what_the_split_needs(make_driver: MakeDriver, tmp_path: Path) -> None:
    """The GPU says that it is split and among whom, each instance how large it is, its status how busy."""
    path = tmp_path / "trace.jsonl"
    served(bench(make_driver, trace=path), quiet_seconds=2.0, busy_seconds=3.0)
    text = [json.loads(line) for line in path.read_text().splitlines()]
    gpus = {each["gpu"]: each for each in text if each["type"] == "gpu"}
    assert gpus[WHOLE]["energy_split"] == "gpm"
    assert gpus[WHOLE]["instances"] == [each.uuid for each in CUT]
    assert (gpus[SMALL]["parent"], gpus[SMALL]["slices"], gpus[SMALL]["slices_total"]) == (WHOLE, 2, 7)
    of_small = [each for each in text if each["type"] == "gpu_status" and each["gpu"] == SMALL]
    told = [each["sm_active_ratio"] for each in of_small if "sm_active_ratio" in each]
    assert told[-1] == pytest.approx(0.3)
    assert len(read(path)) == len(text)
