"""KEEP: timm's ViT-L/16 with a two-layer head, and a BERT whose pooler's output is the feature.

Sun et al., arXiv:2412.13126; layout as in the quick start of github.com/MAGIC-AI4Med/KEEP (MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pathclip.core import extras
from pathclip.core.files import read_json
from pathclip.encoders.formats.bert import BUNDLED, bert_tokenizer
from pathclip.encoders.formats.layout import (
    IMAGENET_MEAN_STD,
    ImageTower,
    Layout,
    TwoTowers,
    build_vit,
    renamed,
    shape_of,
    vit_sizes,
)
from pathclip.encoders.text_files import TOKENIZERS, FileTokenizer

__all__ = ["KEEP", "BertText"]

CONTEXT_LENGTH = 256
TO_OWN = {"visual_head.": "visual.head.", "visual.": "visual.trunk.", "text.": "text.bert."}
TO_FILE = {own: theirs for theirs, own in TO_OWN.items()}


class KeepVisual(ImageTower):
    """The class token of a ViT, then two linear layers."""

    def __init__(self, sizes: Mapping[str, Any], embed_dim: int) -> None:
        super().__init__()
        self.image_size = sizes["image_size"]
        self.trunk = build_vit(sizes, init_values=1e-5)
        self.head = nn.Sequential(
            nn.Linear(sizes["width"], embed_dim), nn.GELU(), nn.Linear(embed_dim, embed_dim)
        )

    def pooled(self, pixels: Tensor) -> Tensor:
        """The class token."""
        return self.trunk(pixels)

    def project(self, pooled: Tensor) -> Tensor:
        """The two linear layers."""
        return self.head(pooled)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `TwoTowers`."""
        self.trunk.set_grad_checkpointing(enable)


class BertText(nn.Module):
    """transformers' ``BertModel``; padding is masked, the pooler's output is the feature."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        transformers = extras.require("transformers", extra="hf", why="the BERT text tower of KEEP")
        self.bert = transformers.BertModel(transformers.BertConfig(**{**config, "use_cache": False}))
        self.pad_id = int(self.bert.config.pad_token_id or 0)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 (B, T) -> (B, D)."""
        return self.bert(input_ids=tokens, attention_mask=(tokens != self.pad_id).long()).pooler_output

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `TwoTowers`."""
        current = hasattr(self.bert, "activation_checkpointing_enable")  # the old name warns since 5.24
        name = f"{'activation' if current else 'gradient'}_checkpointing_{'enable' if enable else 'disable'}"
        getattr(self.bert, name)()


def _sizes(weights: Mapping[str, Tensor], config: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The text tower's sizes from ``config.json``, the image tower's from the weights."""
    bert = config.get("text_config") or read_json(BUNDLED / "config.json")
    return {
        "embed_dim": shape_of(weights, "visual_head.2.weight", place)[0],
        "vision_cfg": vit_sizes(weights, "visual.", place),
        "text_cfg": {
            "context_length": min(CONTEXT_LENGTH, int(bert.get("max_position_embeddings", 512))),
            **bert,
        },
    }


def _bert(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model_cfg["text_cfg"].items() if key != "context_length"}


def _build(model_cfg: Mapping[str, Any]) -> TwoTowers:
    visual = KeepVisual(model_cfg["vision_cfg"], model_cfg["embed_dim"])
    return TwoTowers(
        visual, BertText(_bert(model_cfg)), context_length=model_cfg["text_cfg"]["context_length"]
    )


def _tokenizer(model_cfg: Mapping[str, Any], folder: Path | None, model: str) -> FileTokenizer:
    return bert_tokenizer(_bert(model_cfg), folder, model=model)


def _config(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "keep",
        "projection_dim": model_cfg["embed_dim"],
        "vision_config": dict(model_cfg["vision_cfg"]),
        "text_config": _bert(model_cfg),
    }


KEEP = Layout(
    name="KEEP",
    mark="visual_head.0.weight",
    published={
        "embed_dim": 768,
        "vision_cfg": {"image_size": 224, "patch_size": 16, "width": 1024, "layers": 24, "mlp_width": 4096},
        "text_cfg": {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12},
    },
    preprocess_cfg=IMAGENET_MEAN_STD,
    sizes=_sizes,
    build=_build,
    from_file=lambda weights: renamed(weights, TO_OWN),
    to_file=lambda weights: renamed(weights, TO_FILE),
    tokenizer=_tokenizer,
    text_files=TOKENIZERS,
    config=_config,
)
