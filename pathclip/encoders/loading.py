"""`load`: one call for a hub name, a model folder, a run folder or a weights file; the format is sniffed."""

from __future__ import annotations

import logging
import tomllib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pathclip.core.errors import UserError
from pathclip.core.files import read_json
from pathclip.encoders.architecture import Architecture, build_clip, checked, find_architecture
from pathclip.encoders.convert import architecture_from_hf, architecture_from_weights, from_hf, to_custom_text
from pathclip.encoders.encoder import DualEncoder, Source
from pathclip.encoders.folder import CONFIG_NAME, RECORD_NAME
from pathclip.encoders.hub import hub_folder, looks_like_hub_name
from pathclip.encoders.layouts import from_layout
from pathclip.encoders.slices import read_slices
from pathclip.encoders.tokens import check_tokenizer
from pathclip.encoders.weights import WEIGHTS_SUFFIXES, find_weights, load_strictly, read_weights

__all__ = ["load"]

CHECKPOINT_NAME, CHECKPOINT_WEIGHTS = "meta.json", "model.safetensors"
UNUSED_POOLER = "text.transformer.pooler."  # of a BERT whose last layer is pooled; old open_clip saved it
log = logging.getLogger("pathclip")


def load(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    quick_gelu: bool | None = None,
) -> DualEncoder:
    """Load a model, ready for inference (evaluation mode).

    Reads open_clip folders (pathclip's own and BiomedCLIP among them), Hugging Face CLIPModel folders (PLIP;
    converted exactly, without transformers), KEEP, CONCH and MUSK from their own files, run folders of
    ``pathclip train``, and single weights files. No code that a file may hold is run.

    Args:
        name_or_path: A folder, a file, or a hub name such as ``"vinid/plip"`` (its cached files, if any).
        device: Where the model goes; ``"auto"`` takes a CUDA device if there is one.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``; the latter two run the towers under autocast.
        quick_gelu: The activation, for files that do not state it; a wrong one gives wrong features silently.

    Raises:
        UserError: If the place does not exist, is incomplete, or is in no known format; one line says which.
    """
    name = str(name_or_path).removeprefix("local-dir:").removeprefix("hf-hub:")
    path = Path(name).expanduser()
    if path.is_dir():
        model = _from_folder(path, str(name_or_path), quick_gelu)
    elif path.is_file():
        model = _from_file(path, str(path), quick_gelu)
    elif looks_like_hub_name(name):
        model = _from_folder(hub_folder(name), name, quick_gelu)
    else:
        raise UserError(_nothing_there(name))
    model.precision = DualEncoder.checked_precision(precision)
    return model.to(_device(device)).eval()


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch's build without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise UserError(f"device {str(device)!r} cannot be used: {reason}; try 'cpu' or 'auto'") from None


def _from_folder(folder: Path, name: str, quick_gelu: bool | None) -> DualEncoder:
    exported = folder / "model"
    if not (folder / CONFIG_NAME).is_file() and _is_model(exported):
        folder = exported
    if (folder / CONFIG_NAME).is_file():
        return _open_clip_folder(folder, name, quick_gelu)
    if (folder / "config.json").is_file():
        return _hf_folder(folder, name, quick_gelu)
    if (folder / CHECKPOINT_NAME).is_file():
        return _checkpoint_folder(folder, name)
    if _has_weights(folder):
        return _from_file(find_weights(folder), name, quick_gelu)
    if (folder / "checkpoints").is_dir():
        raise UserError(
            f"{folder} is a run without a model folder; finish it (`pathclip train … --resume {folder}`), "
            "or load one of its checkpoints"
        )
    raise UserError(f"{folder} holds no model; expected {CONFIG_NAME} or Hugging Face's config.json")


def _is_model(folder: Path) -> bool:
    """Whether pathclip wrote this model folder, in open_clip's layout or another."""
    return (folder / CONFIG_NAME).is_file() or (folder / RECORD_NAME).is_file()


def _checkpoint_folder(folder: Path, name: str) -> DualEncoder:
    """A step of a run, ``RUN/checkpoints/step-N``; built as the exported model is, or by its name."""
    exported, path = folder.parent.parent / "model", folder / CHECKPOINT_WEIGHTS
    whole, title = path.is_file(), str(_record(folder / CHECKPOINT_NAME).get("model"))
    weights = read_weights(path) if whole else read_slices(folder, "model")
    if (exported / CONFIG_NAME).is_file():
        config = exported / CONFIG_NAME
        architecture = checked(title, read_json(config), place=str(config), folder=exported)
    elif _is_model(exported):
        architecture = _from_folder(exported, name, None).architecture
    else:
        architecture = _started_from(folder.parent.parent) or find_architecture(title)
    model = _filled(architecture, weights, path)
    model.source = Source(name, path if whole else None)
    return model


def _started_from(run: Path) -> Architecture | None:
    """The architecture of the model that a run took its weights from; None for a run from scratch."""
    path = run / "config.toml"
    config = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    init = config.get("model", {}).get("init")
    return None if init is None else load(init).architecture


def _record(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _title(folder: Path, name: str) -> str:
    """What to call a model whose files do not say: the last part of the hub name or of the folder."""
    return Path(name).name if Path(name).name not in ("", "..") else folder.resolve().name


def _open_clip_folder(
    folder: Path, name: str, quick_gelu: bool | None, path: Path | None = None
) -> DualEncoder:
    config, record = read_json(folder / CONFIG_NAME), _record(folder / RECORD_NAME)
    architecture = checked(
        record.get("name") or _title(folder, name), config, place=str(folder / CONFIG_NAME), folder=folder
    )
    if quick_gelu is not None:
        architecture = architecture.overridden(quick_gelu=quick_gelu)
    elif "quick_gelu" not in architecture.model_cfg and not _has_its_own_activations(architecture):
        log.warning(
            "%s does not state quick_gelu; plain GELU is assumed, as open_clip does; if the model was tuned "
            "from OpenAI's weights, load it with quick_gelu=True",
            folder / CONFIG_NAME,
        )
    path = path or find_weights(folder)
    model = _filled(architecture, read_weights(path), path)
    model.source = Source(name, path, prompts=record.get("prompts"), training=record.get("training"))
    return model


def _has_its_own_activations(architecture: Architecture) -> bool:
    """Whether neither tower is open_clip's own, so that quick_gelu has no effect."""
    cfg = architecture.model_cfg
    return "timm_model_name" in cfg["vision_cfg"] and "hf_model_name" in cfg["text_cfg"]


def _hf_folder(folder: Path, name: str, quick_gelu: bool | None) -> DualEncoder:
    config = _record(folder / "config.json")
    kind = config.get("model_type")
    if kind != "clip":
        path = find_weights(folder) if kind == "keep" or _has_weights(folder) else None
        if path is not None and (model := from_layout(path, read_weights(path), quick_gelu)):
            return _described(model, folder, name, path)
        raise UserError(
            f"{folder / 'config.json'} is of model_type {kind!r}; expected 'clip' (HF's CLIPModel), "
            f"'keep', or {CONFIG_NAME} beside it"
        )
    architecture = architecture_from_hf(
        config, _record(folder / "preprocessor_config.json"), name=_title(folder, name)
    )
    if quick_gelu is not None:
        architecture = architecture.overridden(quick_gelu=quick_gelu)
    path = find_weights(folder)
    model = _filled(architecture, from_hf(read_weights(path), place=str(path)), path)
    model.source = Source(name, path)
    return model


def _has_weights(folder: Path) -> bool:
    return any(path.suffix in WEIGHTS_SUFFIXES for path in folder.iterdir())


def _described(model: DualEncoder, folder: Path, name: str, path: Path) -> DualEncoder:
    """Add what ``pathclip.json`` says, if the folder is one that pathclip wrote."""
    record = _record(folder / RECORD_NAME)
    model.name = record.get("name") or model.name
    model.source = Source(name, path, prompts=record.get("prompts"), training=record.get("training"))
    return model


def _from_file(path: Path, name: str, quick_gelu: bool | None) -> DualEncoder:
    if path.suffix == ".json":
        raise UserError(f"{path} is a config, not weights; load its folder, or use pathclip.encoders.create")
    if path.name == CHECKPOINT_WEIGHTS and (path.parent / CHECKPOINT_NAME).is_file():
        return _checkpoint_folder(path.parent, name)
    if (path.parent / CONFIG_NAME).is_file():
        return _open_clip_folder(path.parent, name, quick_gelu, path)
    weights = read_weights(path)
    if model := from_layout(path, weights, quick_gelu):
        return _described(model, path.parent, name, path)
    if any(key.startswith("vision_model.") for key in weights):
        raise UserError(f"{path} holds a Hugging Face CLIPModel; load a folder with it and its config.json")
    architecture = architecture_from_weights(weights, name=str(path))
    architecture = architecture.overridden(quick_gelu=_activation(path, weights, quick_gelu))
    model = _filled(architecture, weights, path)
    model.source = Source(name, path)
    return model


def _activation(path: Path, weights: dict[str, Tensor], quick_gelu: bool | None) -> bool:
    if quick_gelu is not None:
        return quick_gelu
    openai = any(value.dtype == torch.float16 for value in weights.values())  # OpenAI's own files are fp16
    log.warning(
        "%s does not state its activation; %s is assumed from its dtype (or load it with quick_gelu=%s)",
        path,
        "QuickGELU" if openai else "plain GELU",
        not openai,
    )
    return openai


def _filled(architecture: Architecture, weights: dict[str, Tensor], path: Path) -> DualEncoder:
    clip = build_clip(architecture, draw=False)
    own = clip.state_dict()
    if "text_projection" in weights and "text_projection" not in own:
        weights = to_custom_text(weights)
    weights = {
        key: value
        for key, value in weights.items()
        if key in own or not (key.endswith(("position_ids", "attn_mask")) or key.startswith(UNUSED_POOLER))
    }
    for key in ("logit_scale", "logit_bias"):  # () in most files, (1,) in some
        if key in weights and key in own and weights[key].numel() == 1:
            weights[key] = weights[key].reshape(own[key].shape)
    load_strictly(clip, weights, place=str(path), name=architecture.name)
    check_tokenizer(architecture)
    return DualEncoder(clip, architecture)


def _nothing_there(name: str) -> str:
    try:
        find_architecture(name)
    except UserError:
        return f"{name} does not exist; expected a model folder, a weights file or a hub name (owner/model)"
    return (
        f"{name} is an architecture without weights; load a folder, a file or a hub name, "
        "or build it from scratch with pathclip.encoders.create"
    )
