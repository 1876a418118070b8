"""Which backend runs, and in what precision it multiplies."""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Literal

import torch

from pathclip.core.errors import UserError

__all__ = ["Backend", "Precision", "choose", "obstacle", "operands"]

Backend = Literal["auto", "reference", "chunked", "triton"]
Precision = Literal["auto", "bf16", "tf32", "ieee"]
MIN_CAPABILITY = (8, 0)  # Ampere: the first with bfloat16 and TF32 tensor cores


def choose(backend: Backend, device: torch.device, dtype: torch.dtype) -> str:
    """The backend that runs; ``auto`` is triton on a GPU that can run it, else chunked.

    Raises:
        UserError: If triton was asked for and cannot run; the message says why and what would.
    """
    if backend not in ("auto", "triton"):
        return backend
    reason = obstacle(device, dtype)
    if backend == "triton" and reason:
        raise UserError(f"loss backend 'triton' cannot run here: {reason}; 'chunked' runs on any device")
    if reason or (backend == "auto" and device.type == "cpu"):
        return "chunked"
    return "triton"


def obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the triton backend cannot run on this machine with such features; None where it can."""
    if dtype == torch.float64:
        return "its kernels add up in float32, and the features are float64"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if _interpreted():
        return None
    if device.type != "cuda" or torch.version.cuda is None:
        return f"it needs an NVIDIA GPU, and the features are on {device.type}"
    return _probe(torch.cuda.current_device() if device.index is None else device.index)


def operands(dtype: torch.dtype, precision: Precision) -> tuple[torch.dtype, str]:
    """What features are rounded to before they are multiplied, and how float32 ones are multiplied.

    ``auto`` keeps the features' dtype, and multiplies float32 as `torch.get_float32_matmul_precision` says.
    """
    rounded = {"auto": dtype, "bf16": torch.bfloat16}.get(precision, torch.float32)
    if dtype == torch.float64 and precision in ("tf32", "ieee"):
        rounded = dtype
    if precision == "auto":
        precision = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return rounded, precision


def _interpreted() -> bool:
    """Whether kernels run on the CPU, in triton's interpreter (for tests)."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


@functools.cache
def _probe(index: int) -> str | None:
    """Compiles and runs one small kernel, so that ``auto`` never picks what then fails."""
    capability = torch.cuda.get_device_capability(index)
    if capability < MIN_CAPABILITY:
        have, need = (".".join(map(str, c)) for c in (capability, MIN_CAPABILITY))
        return f"{torch.cuda.get_device_name(index)} has compute capability {have}, and {need} is the least"
    try:
        from pathclip.loss.kernels import probe

        return None if probe(torch.device("cuda", index)) else "a small kernel gave a wrong result"
    except Exception as error:  # no compiler, a driver too old, a broken install: whatever it is, say it
        first = (str(error).strip().splitlines() or [""])[0]
        return f"triton failed on a small kernel ({type(error).__name__}: {first})"
