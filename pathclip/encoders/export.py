"""A model in another project's files: an open_clip folder, or a Hugging Face ``CLIPModel`` and tokenizer."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file

from pathclip.core.errors import UserError
from pathclip.core.files import atomic_path, atomic_write, write_json
from pathclip.encoders.architecture import Architecture
from pathclip.encoders.convert import TORCH_EPS, to_hf
from pathclip.encoders.encoder import DualEncoder
from pathclip.encoders.tokens import tokenizer_of

__all__ = ["FORMATS", "export"]

FORMATS = ("open_clip", "hf")
START, END = "<|startoftext|>", "<|endoftext|>"  # open_clip writes <start_of_text>, <end_of_text>


def export(model: DualEncoder, folder: str | Path, *, format: str = "open_clip") -> Path:
    """Write a model folder; the weights are the model's to the last bit.

    Args:
        model: Any loaded model.
        folder: Made if it does not exist; files of the same names are replaced.
        format: ``"open_clip"`` (as `DualEncoder.save`), or ``"hf"``: ``config.json``, ``model.safetensors``,
            ``preprocessor_config.json`` and the tokenizer's files, which transformers' ``CLIPModel`` and
            ``CLIPProcessor`` read.

    Raises:
        UserError: If the format is unknown, or the model has a shape that ``CLIPModel`` cannot express.
    """
    folder = Path(folder)
    if format not in FORMATS:
        raise UserError(f"format {format!r} is unknown; known: {', '.join(FORMATS)}")
    if model.architecture.layout != "open_clip":
        raise UserError(
            f"{model.name} has no form that open_clip or transformers' CLIPModel reads; `model.save(folder)` "
            "writes it in its own layout"
        )
    if format == "open_clip":
        source = model.source
        model.save(folder, prompts=source.prompts, training=source.training)
        return folder
    config, preprocessor = (
        hf_config(model.architecture),
        hf_preprocessor(model.architecture, model.image_size),
    )
    weights = {
        key: value.detach().cpu().contiguous() for key, value in to_hf(model.clip.state_dict()).items()
    }
    tokenizer = tokenizer_of(model.architecture)
    assert isinstance(tokenizer, SimpleTokenizer)  # `hf_config` has refused the others
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    write_json(folder / "preprocessor_config.json", preprocessor)
    _write_tokenizer(folder, tokenizer, model.context_length)
    write_json(folder / "config.json", config)  # last: without it nobody takes the folder for a model
    return folder


def hf_config(architecture: Architecture) -> dict[str, Any]:
    """``config.json`` of a CLIPModel.

    Raises:
        UserError: If a tower is no plain CLIP ViT or text transformer.
    """
    name, cfg = architecture.name, architecture.model_cfg
    vision, text = CLIPVisionCfg(**cfg["vision_cfg"]), CLIPTextCfg(**cfg["text_cfg"])
    plain_vision = CLIPVisionCfg(
        layers=vision.layers,
        width=vision.width,
        head_width=vision.head_width,
        mlp_ratio=vision.mlp_ratio,
        patch_size=vision.patch_size,
        image_size=vision.image_size,
        patch_dropout=vision.patch_dropout,  # training only
        norm_kwargs=vision.norm_kwargs,
    )
    plain_text = CLIPTextCfg(
        context_length=text.context_length,
        vocab_size=text.vocab_size,
        heads=text.heads,
        layers=text.layers,
        width=text.width,
        mlp_ratio=text.mlp_ratio,
        norm_kwargs=text.norm_kwargs,
    )
    odd = [f"vision_cfg.{k}" for k, v in asdict(vision).items() if v != asdict(plain_vision)[k]]
    odd += [f"text_cfg.{k}" for k, v in asdict(text).items() if v != asdict(plain_text)[k]]
    odd += [key for key in ("custom_text", "init_logit_bias", "multimodal_cfg") if cfg.get(key)]
    if isinstance(vision.layers, (list, tuple)):
        odd.append("vision_cfg.layers (a ResNet)")
    if odd:
        raise UserError(
            f"model {name} has no Hugging Face CLIPModel form because of {', '.join(odd)}; "
            "export it with --format open_clip"
        )
    act = "quick_gelu" if cfg.get("quick_gelu", False) else "gelu"

    def tower(own: CLIPVisionCfg | CLIPTextCfg, heads: int) -> dict[str, Any]:
        return {
            "hidden_size": own.width,
            "intermediate_size": int(own.width * own.mlp_ratio),
            "num_hidden_layers": own.layers,
            "num_attention_heads": heads,
            "hidden_act": act,
            "layer_norm_eps": (own.norm_kwargs or {}).get("eps", TORCH_EPS),
            "projection_dim": cfg["embed_dim"],
        }

    end = 49407
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": cfg["embed_dim"],
        "logit_scale_init_value": 2.6592,
        "vision_config": {
            "model_type": "clip_vision_model",
            **tower(vision, vision.width // vision.head_width),
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
        },
        "text_config": {
            "model_type": "clip_text_model",
            **tower(text, text.heads),
            "max_position_embeddings": text.context_length,
            "vocab_size": text.vocab_size,
            "bos_token_id": end - 1,
            "eos_token_id": end,
            "pad_token_id": end,
        },
    }


def hf_preprocessor(architecture: Architecture, image_size: int) -> dict[str, Any]:
    """``preprocessor_config.json``: resize the short side, centre crop, normalise.

    Raises:
        UserError: If the model resizes in another way.
    """
    cfg = architecture.preprocess_cfg
    if cfg.get("resize_mode", "shortest") != "shortest":
        raise UserError(
            f"model {architecture.name} resizes by {cfg['resize_mode']!r}, CLIPImageProcessor does not; "
            "export it with --format open_clip"
        )
    resample = {"nearest": 0, "bilinear": 2, "bicubic": 3}[cfg.get("interpolation", "bicubic")]
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": image_size},
        "resample": resample,
        "do_center_crop": True,
        "crop_size": {"height": image_size, "width": image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(cfg["mean"]),
        "image_std": list(cfg["std"]),
    }


def _write_tokenizer(folder: Path, tokenizer: SimpleTokenizer, context_length: int) -> None:
    names = {"<start_of_text>": START, "<end_of_text>": END}
    vocabulary = {names.get(token, token): index for token, index in tokenizer.encoder.items()}
    merges = [" ".join(pair) for pair, _ in sorted(tokenizer.bpe_ranks.items(), key=lambda item: item[1])]
    with atomic_write(folder / "vocab.json", "w") as handle:
        json.dump(vocabulary, handle, ensure_ascii=False)
    with atomic_write(folder / "merges.txt", "w") as handle:
        handle.write("\n".join(["#version: 0.2", *merges]) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "processor_class": "CLIPProcessor",
            "model_max_length": context_length,
            "do_lower_case": True,
            "errors": "replace",
            **special,
        },
    )
