"""Checkpoints: a folder that is whole or absent, and a pointer to the newest."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import atomic_write, read_json, write_json
from pathclip.encoders.slices import read_slices, slice_name, write_slices
from pathclip.training.sharding import local
from pathclip.training.world import World

__all__ = ["Checkpoint", "latest_checkpoint", "read_checkpoint", "write_checkpoint"]

SCHEMA = "pathclip.checkpoint/1"
WRITING = (OSError, FaultError, SafetensorError, RuntimeError)  # what a full disk shows itself as


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped.

    Attributes:
        weights: The model's tensors by name; where they are sliced over ranks, this rank's.
        optimizer: AdamW's tensors by weight and name.
        rng: uint8 (W, n), each rank's torch random state.
        average: The running average of the weights, or None.
        meta: Schema ``pathclip.checkpoint/1``: step, sampler, fingerprints; strict JSON.
    """

    weights: dict[str, Tensor]
    optimizer: dict[str, dict[str, Tensor]]
    rng: Tensor
    average: dict[str, Tensor] | None
    meta: dict[str, Any]


def write_checkpoint(run: Path, checkpoint: Checkpoint, *, keep: int, world: World | None = None) -> Path:
    """Write ``checkpoints/step-NNNNNNNN``, point ``latest`` at it, remove all but the newest ``keep``.

    The folder is filled under another name and moved into place; ``meta.json`` is its last file. Whatever
    goes wrong, the checkpoint that ``latest`` names stays as it is.

    Args:
        run: The run folder.
        checkpoint: What to write.
        keep: Checkpoints that stay.
        world: Given if the tensors are sliced: then every rank calls this and writes its own.

    Raises:
        FaultError: If it cannot be written, for example because the disk is full.
    """
    rank, ranks = (world.rank, world.size) if world else (0, 1)
    folder = run / "checkpoints" / f"step-{checkpoint.meta['step']:08d}"
    temporary = folder.with_name(f".{folder.name}.part")
    error: Exception | None = None
    try:
        if rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
    except OSError as failed:
        error = failed
    if world:
        world.wait()
    try:
        if error is None:
            _fill(temporary, checkpoint, rank, ranks)
    except WRITING as failed:
        error = failed
    if world and world.any(error is not None):
        error = error or FaultError("another rank could not write its part")
    try:
        if error is not None:
            raise error
        if rank == 0:
            write_json(temporary / "meta.json", {"schema": SCHEMA, **checkpoint.meta})
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
            _sync(folder.parent)
            with atomic_write(run / "latest", "w") as handle:
                handle.write(f"checkpoints/{folder.name}\n")
    except WRITING as failed:
        shutil.rmtree(temporary, ignore_errors=True)
        newest = latest_checkpoint(run)
        raise FaultError(
            f"cannot write {folder}: {getattr(failed, 'strerror', None) or failed}; "
            f"the newest good checkpoint is {newest or 'none'}: make room and go on with --resume {run}"
        ) from failed
    if rank == 0:
        for old in sorted(folder.parent.glob("step-*"))[:-keep]:
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
    return folder


def _fill(folder: Path, checkpoint: Checkpoint, rank: int, ranks: int) -> None:
    state = {f"{name}/{key}": t for name, values in checkpoint.optimizer.items() for key, t in values.items()}
    parts = {"model": checkpoint.weights, "optimizer": state, "average": checkpoint.average}
    if rank == 0:
        write_slices(folder / slice_name("rng"), {"rng": checkpoint.rng})
    for stem, tensors in parts.items():
        if tensors is not None:
            mine = {n: local(t) for n, t in tensors.items() if rank == 0 or isinstance(t, DTensor)}
            write_slices(folder / slice_name(stem, rank, ranks), mine)
            _sync(folder / slice_name(stem, rank, ranks))


def latest_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint of a run: what ``latest`` names, else the last with a ``meta.json``."""
    try:
        named = run / (run / "latest").read_text().strip()
        if (named / "meta.json").is_file():
            return named
    except OSError:
        pass
    whole = sorted(p.parent for p in (run / "checkpoints").glob("step-*/meta.json"))
    return whole[-1] if whole else None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint without executing anything in it.

    Raises:
        UserError: If a file is missing or damaged.
    """
    meta = read_json(folder / "meta.json")
    if meta.get("schema") != SCHEMA:
        raise UserError(f"{folder / 'meta.json'}: schema is {meta.get('schema')!r}, expected {SCHEMA!r}")
    try:
        weights, average = read_slices(folder, "model"), read_slices(folder, "average")
        optimizer: dict[str, dict[str, Tensor]] = {}
        for name, tensor in read_slices(folder, "optimizer").items():
            weight, _, key = name.rpartition("/")
            optimizer.setdefault(weight, {})[key] = tensor
        rng = load_file(folder / slice_name("rng"))["rng"]
        return Checkpoint(weights, optimizer, rng, average or None, meta)
    except (OSError, SafetensorError, KeyError, UserError, RuntimeError) as error:
        raise UserError(
            f"checkpoint {folder} cannot be read: {str(error).splitlines()[0]}; "
            "remove it, and --resume goes on from the one before"
        ) from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
