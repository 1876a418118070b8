"""Which tiles the kernels use: a fixed choice per kernel, GPU and dtype, so that results repeat to the bit.

A tuner that measures at run time would choose differently from run to run, and with the tile the order of
the sums; and it would compile every candidate before the first step. The choices were measured once, on
Hopper GPUs (``experiments/003-gpu-tiles``); for other GPUs they are what fits, unmeasured.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import torch

__all__ = ["Kernel", "Tile", "Work", "choose_tile", "descriptor", "interpreted_tile"]

Kernel = Literal["sums", "coefficients", "strips"]
Work = Literal["plain", "compare", "count"]
"""What an objective does beside adding up exponentials: nothing, compare ids (or take two exponentials), or
add up logits and their number too. The more, the more registers a tile needs."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One shape of a kernel.

    Attributes:
        m: Rows of a tile.
        n: Columns.
        k: Features per step of the product.
        warps: Of a program.
        stages: Steps of the product that are loaded ahead.
        span: Columns that a program of the sums walks over.
        d: Features per program of the strips.
        group: Tiles down that share what lies across while it is in the L2 cache.
        tma: Whether features are read by descriptors (Hopper's copy engine).
        flat: Whether loading goes on from one tile to the next while sums are taken.
        registers: At most, of a thread; 0: as many as the compiler likes. 128 of 256 threads let two programs
            share a multiprocessor, one taking exponentials while the other multiplies.
    """

    m: int
    n: int
    k: int
    warps: int = 8
    stages: int = 3
    span: int = 1024
    d: int = 0
    group: int = 8
    tma: bool = False
    flat: bool = False
    registers: int = 0

    def options(self, kernel: Kernel) -> dict[str, Any]:
        """Keyword arguments of the kernel's launch."""
        found: dict[str, Any] = {"BLOCK_M": self.m, "BLOCK_N": self.n, "BLOCK_K": self.k}
        if kernel == "strips":
            found["BLOCK_D"] = self.d
        else:
            found |= {"GROUP": self.group, "TMA": self.tma}
        if kernel == "sums":
            found |= {"SPAN": self.span, "FLATTEN": self.flat}
        if self.registers:
            found["maxnreg"] = self.registers
        return found | {"num_warps": self.warps, "num_stages": self.stages}


HOPPER: dict[Kernel, dict[Work, Tile]] = {
    "sums": {
        "plain": Tile(128, 128, 64, warps=4, group=16, tma=True, flat=True),
        "compare": Tile(128, 128, 64, tma=True, flat=True),
        "count": Tile(128, 64, 64, warps=4, tma=True, flat=True),
    },
    "coefficients": {
        "plain": Tile(128, 128, 64, group=16, tma=True),
        "compare": Tile(128, 128, 64, group=16, tma=True, registers=128),
        "count": Tile(128, 128, 64, group=16, tma=True, registers=128),
    },
}
# Everything else, and float32: the first that fits the shared memory of a program.
LADDER: dict[Kernel, tuple[Tile, ...]] = {
    "sums": (Tile(128, 128, 64), Tile(128, 64, 32), Tile(64, 32, 32, 4, 2)),
    "coefficients": (Tile(128, 128, 64), Tile(128, 64, 32), Tile(64, 64, 32, 4, 2)),
    "strips": (Tile(64, 64, 64, d=256), Tile(64, 64, 32, 4, 3, d=128), Tile(64, 32, 32, 4, 2, d=64)),
}


def interpreted_tile(kernel: Kernel) -> Tile:
    """Small tiles for triton's interpreter, so that small matrices have many."""
    return Tile(16, 16, 16, span=32, group=2, d=16 if kernel == "strips" else 0)


def choose_tile(kernel: Kernel, features: torch.Tensor, work: Work) -> Tile:
    """The tile for a kernel.

    Args:
        kernel: Which one.
        features: (B, D), contiguous, on an NVIDIA GPU.
        work: What the objective does.
    """
    size, width = features.element_size(), features.shape[1]
    index = features.device.index or 0
    major, shared = _device(index)
    if major == 9 and size == 2 and kernel in HOPPER and _descriptors() and width * size % 16 == 0:
        return HOPPER[kernel][work]
    ladder = LADDER[kernel][kernel == "sums" and work == "count" :]
    fitting = (t for t in ladder if _shared_bytes(t, size) <= shared)
    return next(fitting, LADDER[kernel][-1])


def descriptor(matrix: torch.Tensor, rows: int, columns: int) -> Any:
    """What the copy engine needs to move blocks of a contiguous matrix; outside of it reads are 0."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor.from_tensor(matrix, [rows, columns])


def _shared_bytes(tile: Tile, size: int) -> int:
    """What the steps loaded ahead take, and for strips the second operand."""
    return (tile.stages * (tile.m + tile.n) * tile.k + tile.n * tile.d) * size


@functools.cache
def _device(index: int) -> tuple[int, int]:
    """Compute capability's first number, and the shared memory a program may have, in bytes."""
    from triton.runtime import driver

    major, _ = torch.cuda.get_device_capability(index)
    return major, driver.active.utils.get_device_properties(index)["max_shared_mem"]


@functools.cache
def _descriptors() -> bool:
    """Whether this triton takes descriptors from the host (3.4 on)."""
    return importlib.util.find_spec("triton.tools.tensor_descriptor") is not None
