"""The doctor on what a sampler could do in vLLM's container: a driver, none, and the switch."""

from __future__ import annotations

from pathlib import Path

import pytest

from joulescope.config import Settings
from joulescope.doctor.findings import Finding, Severity
from joulescope.doctor.gpus import check_gpus
from joulescope.doctor.place import Place
from joulescope.doctor.sampler import check_sampler
from tests.fake_nvml import FakeGpu
from tests.sensors.conftest import MakeDriver


@pytest.fixture
def vllm_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata of an installed vLLM, as the doctor looks for it."""
    folder = tmp_path / "vllm-0.32.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def only(environ: dict[str, str] | None = None) -> Finding:
    (finding,) = check_sampler(Place(environ=environ or {}))
    return finding


@pytest.mark.usefixtures("vllm_here")
def test_a_driver_that_answers_is_told(make_driver: MakeDriver) -> None:
    """Both GPUs could be read from here, and it says by which binding."""
    make_driver(FakeGpu(uuid="GPU-a"), FakeGpu(uuid="GPU-b"))
    finding = only()
    assert finding.severity is Severity.OK
    assert "the 2 GPUs" in finding.said
    assert "pynvml.py" in finding.said


@pytest.mark.usefixtures("vllm_here")
def test_a_driver_that_is_not_here_is_told_with_its_reason() -> None:
    """No fault by itself: the sidecar may see the GPUs."""
    finding = only()
    assert finding.severity is Severity.NOTE
    assert "libnvidia-ml.so.1 is not here" in finding.said


@pytest.mark.usefixtures("vllm_here")
def test_the_switch_is_told() -> None:
    """Off is a choice, a word that means nothing a mistake."""
    assert only({"JOULESCOPE_SAMPLER": "off"}).severity is Severity.NOTE
    mistaken = only({"JOULESCOPE_SAMPLER": "always"})
    assert mistaken.severity is Severity.WARNING
    assert "auto" in mistaken.mend


def test_beside_the_sidecar_there_is_nothing_to_say() -> None:
    """Samplers run beside engines only; a sidecar that is to have none of its own sends the reader there."""
    assert list(check_sampler(Place(environ={}))) == []
    (finding,) = check_gpus(Settings(sensor="engine"), Place(environ={}), 0.0)
    assert finding.severity is Severity.NOTE
    assert "run the doctor there" in finding.said
