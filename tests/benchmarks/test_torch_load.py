"""The load that the benchmark of the meter makes itself, with a stand-in for torch."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.gpu.torch_load import NoTorchError, torch_bursts

TORCH = """
class Matrix:
    def __matmul__(self, other): return self
    def sum(self): return self
    def item(self): return 0.0
class cuda:
    @staticmethod
    def synchronize(): pass
bfloat16 = None
def randn(*size, device, dtype):
    assert device == "cuda"
    return Matrix()
"""


def test_bursts_begin_and_end_when_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bursts of 20 ms with pauses between them lie within the time that they were asked for."""
    (tmp_path / "torch.py").write_text(TORCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with torch_bursts() as load:
        before_ns = time.monotonic_ns()
        load.go(3, 0.02, 0.01)
        stamps = load.stamps()
        edges = [before_ns, *(edge for burst in stamps for edge in burst), time.monotonic_ns()]
        assert edges == sorted(edges)
        assert all(end - begin >= 20_000_000 for begin, end in stamps)
        assert all(
            stamps[number][0] - stamps[number - 1][1] >= 10_000_000 for number in range(1, len(stamps))
        )
        load.go(1, 0.0, 0.0)
        assert len(load.stamps()) == 1


def test_a_torch_that_reaches_no_gpu_is_an_error_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch says of the missing GPU is what the operator reads."""
    (tmp_path / "torch.py").write_text("raise RuntimeError('no NVIDIA driver on your system')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(NoTorchError, match="no NVIDIA driver on your system"), torch_bursts():
        pass
