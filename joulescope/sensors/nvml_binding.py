"""Where the Python binding of NVML comes from: ``nvidia-ml-py``, or the copy that vLLM carries."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from joulescope.errors import MissingExtra

_COPY = Path("third_party", "pynvml.py")
"""In vLLM's package; looked at in 0.14.1, 0.32.0 and 0.33.0."""


def load() -> ModuleType:
    """The module ``pynvml``.

    Raises:
        MissingExtra: if it is nowhere.
    """
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        copy = _copy_in_vllm()
        if copy is None:
            raise MissingExtra(
                "reading NVIDIA GPUs needs the package nvidia-ml-py, which is not installed here: "
                "pip install nvidia-ml-py, or for a sidecar 'joulescope-inference[sidecar]'"
            ) from error
    return copy


def _copy_in_vllm() -> ModuleType | None:
    """vLLM's copy, executed without importing vLLM, which would take seconds and a gigabyte."""
    spec = importlib.util.find_spec("vllm")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / _COPY
        made = importlib.util.spec_from_file_location("pynvml", path) if path.is_file() else None
        if made is not None and made.loader is not None:
            module = importlib.util.module_from_spec(made)
            sys.modules["pynvml"] = module
            made.loader.exec_module(module)
            return module
    return None
