"""The model folder: ``open_clip_config.json``, ``open_clip_model.safetensors``, ``pathclip.json``.

A model in a layout that open_clip cannot express is written in that layout, as ``model.safetensors``.
"""

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
from pathclip.encoders.formats import LAYOUTS
from pathclip.encoders.formats.bert import bert_config
from pathclip.encoders.formats.layout import Layout
from pathclip.encoders.text_files import copy_text_files

if TYPE_CHECKING:
    from pathclip.encoders.encoder import DualEncoder

__all__ = ["CONFIG_NAME", "RECORD_NAME", "WEIGHTS_NAME", "save_folder", "versions"]

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
LAYOUT_WEIGHTS_NAME = "model.safetensors"
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
    path = folder / WEIGHTS_NAME
    if layout := LAYOUTS.get(model.architecture.layout):
        tensors, path = layout.to_file(tensors), folder / LAYOUT_WEIGHTS_NAME
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    _write_configs(model.architecture, layout, folder)
    digest = sha256_file(path)
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
    model.source.pretrained, model.source.path, model.source.sha256 = str(folder), path, digest
    model.source.prompts, model.source.training = prompts, record["training"]


def _write_configs(architecture: Architecture, layout: Layout | None, folder: Path) -> None:
    """The config, and the tokenizer and the sizes of a text tower that has files of its own."""
    if layout is not None:
        (folder / CONFIG_NAME).unlink(missing_ok=True)  # of another model that was saved here
        copy_text_files(architecture.folder, folder, *layout.text_files)
        if layout.config is not None:
            write_json(folder / "config.json", layout.config(architecture.model_cfg))
        return
    write_json(folder / CONFIG_NAME, open_clip_config(architecture))
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
