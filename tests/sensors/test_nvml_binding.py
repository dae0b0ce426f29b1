"""Where the binding of NVML is found: installed, in vLLM's package, or nowhere. In fresh interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from tests.fake_nvml import FakeDriver, FakeGpu, environment

ROOT = Path(__file__).parents[2]
GPU = "GPU-a"
READ = (
    "import sys\n"
    "from joulescope.clock import SystemClock\n"
    "from joulescope.errors import MissingExtra\n"
    "from joulescope.sensors.nvml import NvmlSensor\n"
    "try:\n"
    "    sensor = NvmlSensor.open(SystemClock())\n"
    "    gpus = (each.gpu for each in sensor.read())\n"
    "    print(sys.modules['pynvml'].__file__, *gpus, 'vllm' in sys.modules)\n"
    "except MissingExtra as error:\n"
    "    print(error)\n"
)


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    return FakeDriver(tmp_path / "state", [FakeGpu(uuid=GPU)])


@pytest.fixture
def hiding(tmp_path: Path) -> Path:
    """A folder that, first on the path, makes the installed binding invisible."""
    folder = tmp_path / "hiding"
    folder.mkdir()
    (folder / "pynvml.py").write_text("raise ImportError('not installed')\n")
    return folder


def run(library: Path, driver: FakeDriver, *folders: Path) -> str:
    variables = environment(library, driver)
    variables["PYTHONPATH"] = os.pathsep.join(map(str, [*folders, ROOT]))
    done = subprocess.run(
        [sys.executable, "-c", READ], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_installed_one_is_taken(library: Path, driver: FakeDriver) -> None:
    """nvidia-ml-py wins where it is."""
    assert run(library, driver) == f"{pynvml.__file__} {GPU} False"


def test_vllm_s_copy_serves_as_well(library: Path, driver: FakeDriver, hiding: Path, tmp_path: Path) -> None:
    """Where only vLLM brings one it is used, without importing vLLM."""
    copy = tmp_path / "packages" / "vllm" / "third_party" / "pynvml.py"
    copy.parent.mkdir(parents=True)
    (copy.parents[1] / "__init__.py").write_text("raise AssertionError('vLLM must not be imported')\n")
    copy.write_text(Path(pynvml.__file__).read_text())
    assert run(library, driver, hiding, tmp_path / "packages") == f"{copy} {GPU} False"


def test_without_any_the_error_says_what_to_install(
    library: Path, driver: FakeDriver, hiding: Path, tmp_path: Path
) -> None:
    """A folder that happens to be called vllm is not taken for vLLM's package."""
    (tmp_path / "other" / "vllm").mkdir(parents=True)
    assert "pip install nvidia-ml-py" in run(library, driver, hiding, tmp_path / "other")
