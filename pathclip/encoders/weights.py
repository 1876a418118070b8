"""Weights files, read safely: safetensors, or ``torch.load`` that refuses to run code."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pathclip.core.errors import UserError

__all__ = ["WEIGHTS_ORDER", "find_weights", "load_strictly", "read_weights", "refuse_misfit"]

# open_clip's order of preference, then what trainers leave behind
WEIGHTS_ORDER = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # scalars in OpenAI's files
WRAPPERS = ("module.", "_orig_mod.", "clip.", "model.")  # DDP, torch.compile, DualEncoder, Lightning
Weights = dict[str, Tensor]


def find_weights(folder: Path) -> Path:
    """The weights file of a model folder.

    Raises:
        UserError: If there is none, or several of which none has a usual name.
    """
    for name in WEIGHTS_ORDER:
        if (folder / name).is_file():
            return folder / name
    found = sorted(p for p in folder.iterdir() if p.suffix in WEIGHTS_SUFFIXES and p.is_file())
    if len(found) == 1:
        return found[0]
    what = f"several ({', '.join(p.name for p in found)}); give one of them" if found else "none"
    raise UserError(f"{folder}: expected one weights file such as {WEIGHTS_ORDER[0]}, found {what}")


def read_weights(path: Path) -> Weights:
    """Read a state dict and strip the wrappers of training code (``state_dict``, ``module.``).

    Raises:
        UserError: If the file is missing, cut off, holds code, or holds no tensors.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    _refuse_pointer(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    return _unwrap(content, path)


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], *, place: str, name: str) -> None:
    """Load weights whose names and shapes must be exactly the module's.

    Args:
        module: Gets the weights.
        weights: By the module's names.
        place: File they came from, for the message.
        name: Architecture, for the message.

    Raises:
        UserError: As `refuse_misfit`.
    """
    refuse_misfit(module.state_dict(), weights, place=place, name=name)
    module.load_state_dict(dict(weights))


def refuse_misfit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, place: str, name: str) -> None:
    """Compare a model's names and shapes with a file's.

    Raises:
        UserError: Naming what is missing, extra, or of another shape.
    """
    missing = [key for key in own if key not in weights]
    extra = [key for key in weights if key not in own]
    shapes = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(value.shape)}"
        for key, value in own.items()
        if key in weights and weights[key].shape != value.shape
    ]
    parts = (("missing", missing), ("unexpected", extra), ("of another shape", shapes))
    differences = [f"{len(keys)} {word} ({_some(keys)})" for word, keys in parts if keys]
    if differences:
        raise UserError(
            f"{place} does not fit {name}: {'; '.join(differences)}; "
            "expected the weights of exactly this model (half a download? another architecture?)"
        )


def _some(keys: list[str], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")


def _refuse_pointer(path: Path) -> None:
    with open(path, "rb") as handle:
        start = handle.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a git-lfs pointer, not the weights; run `git lfs pull` in its folder")


def _read_safetensors(path: Path) -> Weights:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is no whole safetensors file ({error}); copy or download it again") from None


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        AttributeError,
    ) as e:
        raise UserError(_why_unread(path, e)) from None


def _why_unread(path: Path, error: Exception) -> str:
    """One line in place of torch's paragraph, which advises to load the file unsafely."""
    text = str(error)
    if refused := re.search(r"GLOBAL ([\w.]+)", text):
        return f"{path} holds more than tensors ({refused[1]}) and may run code, so it is not opened"
    if "TorchScript" in text:
        return (
            f"{path} is a TorchScript archive, which holds code; save its tensors alone first: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')"
        )
    detail = re.search(r"WeightsUnpickler error: *([^\n]+)", text)
    reason = detail[1].strip() if detail else text.partition("\n")[0]
    return f"{path} is no whole PyTorch weights file ({reason}); copy or download it again"


def _unwrap(content: Any, path: Path) -> Weights:
    for key in ("state_dict", "model_state_dict", "model", "module"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}; expected a state dict of tensors")
    weights = {k: v for k, v in content.items() if isinstance(v, Tensor) and k not in NO_WEIGHTS}
    if not weights:
        raise UserError(f"{path} holds no tensors; expected a state dict")
    while prefix := next((p for p in WRAPPERS if all(key.startswith(p) for key in weights)), None):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights
