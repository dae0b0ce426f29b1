"""The doctor on AMD GPUs: the real amdsmi on the stand-in library."""

from __future__ import annotations

from pathlib import Path

from joulescope.config import Settings
from joulescope.doctor.findings import Finding, Severity
from joulescope.doctor.gpus import check_gpus
from joulescope.doctor.place import Place
from tests.fake_amdsmi import FakeGpu
from tests.sensors.amd.conftest import Bench, MakeBench


def examine(bench: Bench, root: Path) -> list[Finding]:
    return list(check_gpus(Settings(sensor="amd"), Place(root, {}, bench.clock), 3.0))


def test_a_healthy_gpu_gets_no_more_than_oks(make_bench: MakeBench, tmp_path: Path) -> None:
    """Counter and power agree, and nothing is missed that only NVIDIA has."""
    findings = examine(make_bench(FakeGpu()), tmp_path)
    assert {finding.severity for finding in findings} == {Severity.OK}
    said = " ".join(finding.said for finding in findings)
    assert "AMD Instinct MI300X" in said
    assert "measured by its energy counter" in said


def test_a_counter_that_is_not_believed_is_told_with_what_mends_it(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    """One that failed its trial is not used: a warning, with the release that may mend it."""
    findings = examine(make_bench(FakeGpu(counter_gain=3.0)), tmp_path)
    (warning,) = [finding for finding in findings if finding.severity is Severity.WARNING]
    assert "its energy counter is not believed" in warning.said
    assert "ROCm 7" in warning.mend
