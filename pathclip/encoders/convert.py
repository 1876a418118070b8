"""Other projects' weights under open_clip's names: exact both ways, no arithmetic on any value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from pathclip.core.errors import UserError
from pathclip.encoders.architecture import Architecture, checked

__all__ = ["architecture_from_hf", "architecture_from_weights", "from_hf", "to_custom_text", "to_hf"]

# Hugging Face CLIPModel <-> open_clip; HF's misspelt "pre_layrnorm" is the real key
PLAIN = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "logit_scale": "logit_scale",
}
TRANSPOSED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
TOWERS = {
    "text_model.encoder.layers.": "transformer.resblocks.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
}
IN_BLOCK = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
TEXT_TOWER = ("text_projection", "positional_embedding", "token_embedding.", "transformer.", "ln_final.")


def from_hf(weights: Mapping[str, Tensor], *, place: str) -> dict[str, Tensor]:
    """Hugging Face ``CLIPModel`` weights -> open_clip ``CLIP`` weights.

    Renames, transposes the two projections, and concatenates q, k, v.

    Raises:
        UserError: If a key is unknown or one of q, k, v is missing.
    """
    out: dict[str, Tensor] = {}
    attention: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.items():
        if key.endswith(".position_ids"):
            continue  # a buffer of old files
        if key in PLAIN:
            out[PLAIN[key]] = value
        elif key in TRANSPOSED:
            out[TRANSPOSED[key]] = value.T.contiguous()
        else:
            _block_from_hf(key, value, out, attention, place)
    for target, parts in attention.items():
        if parts.keys() != {"q", "k", "v"}:
            raise UserError(f"{place}: {target} needs q, k and v; the file has {', '.join(sorted(parts))}")
        out[target] = torch.cat([parts["q"], parts["k"], parts["v"]])
    return out


def _block_from_hf(
    key: str, value: Tensor, out: dict[str, Tensor], attention: dict[str, dict[str, Tensor]], place: str
) -> None:
    match = re.fullmatch(r"((?:text|vision)_model\.encoder\.layers\.)(\d+)\.(.+)\.(weight|bias)", key)
    if match is None:
        raise UserError(f"{place}: unknown key {key}; expected the keys of a Hugging Face CLIPModel")
    tower, layer, part, kind = match.groups()
    block = f"{TOWERS[tower]}{layer}."
    if part in IN_BLOCK:
        out[f"{block}{IN_BLOCK[part]}.{kind}"] = value
    elif projection := re.fullmatch(r"self_attn\.([qkv])_proj", part):
        attention.setdefault(f"{block}attn.in_proj_{kind}", {})[projection[1]] = value
    else:
        raise UserError(f"{place}: unknown key {key}; expected the keys of a Hugging Face CLIPModel")


def to_hf(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip ``CLIP`` weights -> Hugging Face ``CLIPModel`` weights; the exact inverse of `from_hf`.

    Raises:
        UserError: If the model is not of the shape that ``CLIPModel`` has.
    """
    plain = {ours: theirs for theirs, ours in PLAIN.items()}
    transposed = {ours: theirs for theirs, ours in TRANSPOSED.items()}
    out: dict[str, Tensor] = {}
    for key, value in weights.items():
        if key in plain:
            out[plain[key]] = value
        elif key in transposed:
            out[transposed[key]] = value.T.contiguous()
        else:
            out.update(_block_to_hf(key, value))
    return out


def _block_to_hf(key: str, value: Tensor) -> dict[str, Tensor]:
    towers = {ours: theirs for theirs, ours in TOWERS.items()}
    parts = {ours: theirs for theirs, ours in IN_BLOCK.items()}
    match = re.fullmatch(r"((?:visual\.)?transformer\.resblocks\.)(\d+)\.(.+?)[._](weight|bias)", key)
    if match is None or (match[3] not in parts and match[3] != "attn.in_proj"):
        raise UserError(f"{key} has no place in a Hugging Face CLIPModel; export to open_clip instead")
    tower, layer, part, kind = match.groups()
    block = f"{towers[tower]}{layer}."
    if part in parts:
        return {f"{block}{parts[part]}.{kind}": value}
    thirds = value.chunk(3)
    return {f"{block}self_attn.{n}_proj.{kind}": t.contiguous() for n, t in zip("qkv", thirds, strict=True)}


def architecture_from_hf(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any], *, name: str
) -> Architecture:
    """Hugging Face's ``config.json`` and ``preprocessor_config.json`` of a CLIPModel as an `Architecture`.

    Keys that are absent have Hugging Face's defaults, quick_gelu among them.

    Raises:
        UserError: If the two towers use different activations, which open_clip cannot express.
    """
    text = {**TEXT_DEFAULTS, **(config.get("text_config_dict") or {}), **(config.get("text_config") or {})}
    vision = {
        **VISION_DEFAULTS,
        **(config.get("vision_config_dict") or {}),
        **(config.get("vision_config") or {}),
    }
    activations = {text["hidden_act"], vision["hidden_act"]}
    if activations not in ({"quick_gelu"}, {"gelu"}):
        raise UserError(
            f"{name}: hidden_act is {', '.join(sorted(activations))}; expected quick_gelu or gelu in both"
        )
    model_cfg = {
        "embed_dim": config.get("projection_dim", 512),
        "quick_gelu": activations == {"quick_gelu"},
        "vision_cfg": {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "width": vision["hidden_size"],
            "layers": vision["num_hidden_layers"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            **_block_options(vision),
        },
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
            **_block_options(text),
        },
    }
    preprocess = {"mean": preprocessor.get("image_mean"), "std": preprocessor.get("image_std")}
    preprocess = {key: value for key, value in preprocess.items() if value}
    return checked(name, {"model_cfg": model_cfg, "preprocess_cfg": preprocess})


def _block_options(tower: Mapping[str, Any]) -> dict[str, Any]:
    """Width of the perceptron and epsilon of the norms, where they are not open_clip's defaults."""
    width, hidden = tower["hidden_size"], tower["intermediate_size"]
    options: dict[str, Any] = {}
    if hidden != 4 * width:
        options["mlp_ratio"] = (hidden + 0.5) / width  # open_clip rounds down: int(width * mlp_ratio)
    if tower["layer_norm_eps"] != TORCH_EPS:
        options["norm_kwargs"] = {"eps": tower["layer_norm_eps"]}
    return options


TORCH_EPS = 1e-5
TEXT_DEFAULTS = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
VISION_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def architecture_from_weights(weights: Mapping[str, Tensor], *, name: str) -> Architecture:
    """Find the open_clip architecture that has the shapes of a ViT CLIP's weights.

    Shapes alone do not tell the number of heads, so nothing is guessed: only an architecture that open_clip
    lists is taken, with its heads.

    Raises:
        UserError: If these are not the weights of such a model.
    """
    wanted = _shape_of_weights(weights)
    for known in open_clip.list_models():
        config = open_clip.get_model_config(known)
        if wanted is not None and _shape_of_config(config) == wanted:
            return checked(known.removesuffix("-quickgelu"), {"model_cfg": config})
    raise UserError(
        f"{name} comes without a config, and its weights are not those of a ViT that open_clip lists; "
        "put open_clip_config.json beside it and load the folder"
    )


def _shape_of_weights(weights: Mapping[str, Tensor]) -> dict[str, int] | None:
    try:
        width, _, patch, _ = weights["visual.conv1.weight"].shape
        positions = weights["visual.positional_embedding"].shape[0]
        context, text_width = weights["positional_embedding"].shape
        return {
            "embed_dim": weights["text_projection"].shape[1],
            "image_size": round((positions - 1) ** 0.5) * patch,
            "patch_size": patch,
            "width": width,
            "layers": _count_blocks(weights, "visual.transformer.resblocks."),
            "context_length": context,
            "vocab_size": weights["token_embedding.weight"].shape[0],
            "text_width": text_width,
            "text_layers": _count_blocks(weights, "transformer.resblocks."),
        }
    except (KeyError, ValueError, IndexError):
        return None


def _shape_of_config(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same facts of a config; None for towers that are not plain ViTs with CLIP's text tower."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision or "hf_model_name" in text or "multimodal_cfg" in config:
        return None
    vision, text = asdict(CLIPVisionCfg(**vision)), asdict(CLIPTextCfg(**text))
    return {
        "embed_dim": config["embed_dim"],
        **{key: vision[key] for key in ("image_size", "patch_size", "width", "layers")},
        **{key: text[key] for key in ("context_length", "vocab_size")},
        "text_width": text["width"],
        "text_layers": text["layers"],
    }


def to_custom_text(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of open_clip's ``CLIP`` -> those of ``CustomTextCLIP`` (text tower under ``text.``)."""
    return {f"text.{k}" if k.startswith(TEXT_TOWER) else k: v for k, v in weights.items()}


def _count_blocks(weights: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max((int(k[len(prefix) :].split(".")[0]) for k in weights if k.startswith(prefix)), default=-1)
