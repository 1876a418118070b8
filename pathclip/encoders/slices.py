"""Tensors by name in one safetensors file, or in one per rank that holds its rows of each tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pathclip.core.errors import UserError

__all__ = ["read_slices", "slice_name", "write_slices"]


def slice_name(stem: str, rank: int = 0, ranks: int = 1) -> str:
    """``stem.safetensors``, or ``stem-00001-of-00002.safetensors`` for rank 0 of 2.

    Example:
        >>> slice_name("model", 1, 2)
        'model-00002-of-00002.safetensors'
    """
    return f"{stem}.safetensors" if ranks == 1 else f"{stem}-{rank + 1:05d}-of-{ranks:05d}.safetensors"


def write_slices(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one file."""
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)


def read_slices(folder: Path, stem: str) -> dict[str, Tensor]:
    """Whole tensors: rows of the same name are joined in the order of ranks. Empty if there is no such file.

    Raises:
        UserError: If a rank's file is missing.
    """
    one = folder / slice_name(stem)
    if one.is_file():
        return load_file(one)
    files = sorted(folder.glob(f"{stem}-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9].safetensors"))
    wanted = {
        slice_name(stem, rank, int(f.name[-17:-12])) for f in files for rank in range(int(f.name[-17:-12]))
    }
    missing = wanted - {f.name for f in files}
    if missing:
        raise UserError(f"{folder}: {min(missing)} is missing")
    rows: dict[str, list[Tensor]] = {}
    for file in files:
        for name, tensor in load_file(file).items():
            rows.setdefault(name, []).append(tensor)
    return {name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in rows.items()}
