"""Checkpoints: a folder that is whole or absent, and a pointer to the newest."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import atomic_write, read_json, write_json

__all__ = ["Checkpoint", "latest_checkpoint", "read_checkpoint", "write_checkpoint"]

SCHEMA = "pathclip.checkpoint/1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped.

    Attributes:
        weights: The model's tensors by name.
        optimizer: AdamW's state.
        rng: uint8 (W, n), each rank's torch random state.
        average: The running average of the weights, or None.
        meta: Schema ``pathclip.checkpoint/1``: step, sampler, fingerprints; strict JSON.
    """

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    rng: Tensor
    average: dict[str, Tensor] | None
    meta: dict[str, Any]


def write_checkpoint(run: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write ``checkpoints/step-NNNNNNNN``, point ``latest`` at it, remove all but the newest ``keep``.

    The folder is filled under another name and moved into place; ``meta.json`` is its last file. Whatever
    goes wrong, the checkpoint that ``latest`` names stays as it is.

    Raises:
        FaultError: If it cannot be written, for example because the disk is full.
    """
    folder = run / "checkpoints" / f"step-{checkpoint.meta['step']:08d}"
    temporary = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, weights in (("model", checkpoint.weights), ("average", checkpoint.average)):
            if weights is not None:
                tensors = {key: tensor.contiguous() for key, tensor in weights.items()}
                save_file(tensors, temporary / f"{name}.safetensors")
        torch.save({"optimizer": checkpoint.optimizer, "rng": checkpoint.rng}, temporary / "optimizer.pt")
        for path in temporary.iterdir():
            _sync(path)
        write_json(temporary / "meta.json", {"schema": SCHEMA, **checkpoint.meta})
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
        _sync(folder.parent)
        with atomic_write(run / "latest", "w") as handle:
            handle.write(f"checkpoints/{folder.name}\n")
    except (OSError, FaultError, SafetensorError, RuntimeError) as error:  # torch.save raises RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        newest = latest_checkpoint(run)
        raise FaultError(
            f"cannot write {folder}: {getattr(error, 'strerror', None) or error}; "
            f"the newest good checkpoint is {newest or 'none'}: make room and go on with --resume {run}"
        ) from error
    for old in sorted(folder.parent.glob("step-*"))[:-keep]:
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return folder


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
        weights = load_file(folder / "model.safetensors")
        state = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
        averaged = folder / "average.safetensors"
        average = load_file(averaged) if averaged.is_file() else None
        return Checkpoint(weights, state["optimizer"], state["rng"], average, meta)
    except Exception as error:  # zip, pickle and safetensors each have their own kinds
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
