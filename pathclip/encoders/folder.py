"""The model folder: ``open_clip_config.json``, ``open_clip_model.safetensors``, ``pathclip.json``."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from pathclip._version import __version__
from pathclip.core.errors import UserError
from pathclip.core.files import atomic_path, sha256_file, write_json
from pathclip.encoders.architecture import Architecture
from pathclip.encoders.formats.bert import bert_config
from pathclip.encoders.text_files import copy_text_files

if TYPE_CHECKING:
    from pathclip.encoders.encoder import DualEncoder

__all__ = ["CONFIG_NAME", "RECORD_NAME", "WEIGHTS_NAME", "save_folder", "versions"]

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
RECORD_NAME = "pathclip.json"


def save_folder(
    model: DualEncoder, folder: Path, *, prompts: Any = None, training: Mapping[str, Any] | None = None
) -> None:
    """Write the folder; ``pathclip.json`` comes last and holds the hash of the weights."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder} is a file; give a folder to save the model in") from None
    (folder / RECORD_NAME).unlink(missing_ok=True)  # it would vouch for weights that are being replaced
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.clip.state_dict().items()}
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_json(folder / CONFIG_NAME, open_clip_config(model.architecture))
    _write_text_tower(model.architecture, folder)
    digest = sha256_file(folder / WEIGHTS_NAME)
    record = {
        "schema": "pathclip.model/1",
        "name": model.name,
        "weights_sha256": digest,
        "parameters": sum(p.numel() for p in model.clip.parameters()),
        "prompts": prompts,
        "training": None if training is None else dict(training),
        "versions": versions(),
    }
    write_json(folder / RECORD_NAME, record)
    model.source.pretrained, model.source.path, model.source.sha256 = (
        str(folder),
        folder / WEIGHTS_NAME,
        digest,
    )
    model.source.prompts, model.source.training = prompts, record["training"]


def _write_text_tower(architecture: Architecture, folder: Path) -> None:
    """The tokenizer and the sizes of a text tower that has files of its own."""
    if bert := architecture.model_cfg["text_cfg"].get("hf_model_name"):
        copy_text_files(architecture.folder, folder)
        write_json(folder / "config.json", bert_config(bert, architecture.folder))


def open_clip_config(architecture: Architecture) -> dict[str, Any]:
    """The content of ``open_clip_config.json``; the activation is always stated."""
    return {
        "model_cfg": {"quick_gelu": False, **architecture.model_cfg},
        "preprocess_cfg": architecture.preprocess_cfg,
    }


def versions() -> dict[str, str]:
    """Versions of what makes the features."""
    names = ("torch", "torchvision", "open_clip_torch", "timm", "pillow")
    return {"pathclip": __version__, **{name: importlib.metadata.version(name) for name in names}}
