"""Short names for what sources call by many: precision of weights, generation of a GPU, layout."""

from __future__ import annotations

import re

_DTYPES = {
    "bfloat16": "BF16",
    "bf16": "BF16",
    "float16": "FP16",
    "fp16": "FP16",
    "half": "FP16",
    "float32": "FP32",
    "fp32": "FP32",
    "float": "FP32",
}
_LOW = re.compile(r"(?<![a-z0-9])(mxfp4|nvfp4|fp8|fp4|int8|int4|awq|gptq|w8a8|w4a16|w8a16)(?![a-z0-9])")
_GPU = re.compile(
    r"(?<![A-Z0-9])(GB300|GB200|GH200|B300|B200|B100|H200|H100|H20|A100|A800|A40|A30|A10G?|L40S?|L4|V100|T4|"
    r"RTX ?(?:PRO )?\d{4}|MI\d{3}[AX]?)(?![0-9])"
)


def precision_of(dtype: str, quantization: str, model: str) -> str:
    """``BF16``, ``FP8``, …; of weights. What neither setting tells, the model's name may; else empty.

    ``quantization`` beats ``dtype``: a model of 8-bit weights computes its norms and its head in 16 bits.
    """
    for text in (quantization, model):
        found = _LOW.search(_words(text))
        if found is not None:
            return found.group(1).upper()
    if quantization and quantization.lower() not in ("none", "null"):
        return quantization
    short = dtype.lower().removeprefix("torch.")
    if short in _DTYPES:
        return _DTYPES[short]
    found = re.search(r"(?<![a-z0-9])(bf16|fp16|fp32)(?![a-z0-9])", _words(model))
    return found.group(1).upper() if found else ("" if short in ("", "auto") else dtype)


def gpu_of(name: str) -> str:
    """The generation and model of a GPU, ``H100`` of ``NVIDIA H100 80GB HBM3``; a name not known as it is."""
    found = _GPU.search(name.upper())
    return found.group(1) if found else name


def is_gpu(name: str) -> bool:
    """Whether a name is, or contains, that of a known kind of GPU."""
    return _GPU.search(name.upper()) is not None


def parallel_of(tensor: int, pipeline: int, data: int) -> str:
    """``TP2 PP2 DP4``, parts that are 1 left out."""
    sizes = (("TP", tensor), ("PP", pipeline), ("DP", data))
    return " ".join(f"{name}{size}" for name, size in sizes if size > 1)


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower())
