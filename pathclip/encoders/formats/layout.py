"""What every layout of this folder has in common: how it is read, built and written, and its two towers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pathclip.core.errors import UserError
from pathclip.encoders.text_files import FileTokenizer

__all__ = [
    "CLIP_MEAN_STD",
    "HEAD_WIDTH",
    "IMAGENET_MEAN_STD",
    "ImageTower",
    "Layout",
    "TwoTowers",
    "build_vit",
    "count_blocks",
    "renamed",
    "shape_of",
    "vit_sizes",
]

Weights = Mapping[str, Tensor]
HEAD_WIDTH = 64  # of every attention head in these models; shapes of weights do not tell it
IMAGENET_MEAN_STD = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLIP_MEAN_STD = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """A project's own files.

    Attributes:
        name: What the models are called.
        mark: A key that only this layout has.
        published: Sizes of the published model, to tell a file that is another one.
        preprocess_cfg: open_clip's words for its evaluation transform.
        sizes: ``(weights, config.json or {}, place)`` -> ``model_cfg``.
        build: ``model_cfg`` -> module with random weights.
        from_file: Weights by the file's names -> by the module's.
        to_file: The inverse.
        tokenizer: ``(model_cfg, folder, model's name)`` -> tokenizer.
        text_files: Names that the tokenizer's file may have; the first found is taken.
        config: ``model_cfg`` -> ``config.json`` of a saved folder, for layouts that have one.
    """

    name: str
    mark: str
    published: Mapping[str, Any]
    preprocess_cfg: Mapping[str, Any]
    sizes: Callable[[Weights, Mapping[str, Any], str], dict[str, Any]]
    build: Callable[[Mapping[str, Any]], TwoTowers]
    from_file: Callable[[Weights], dict[str, Tensor]]
    to_file: Callable[[Weights], dict[str, Tensor]]
    tokenizer: Callable[[Mapping[str, Any], Path | None, str], FileTokenizer]
    text_files: tuple[str, ...]
    config: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


class ImageTower(nn.Module):
    """An image tower that tells pooling from projection.

    Attributes:
        image_size: Side of the input in pixels.
    """

    image_size: int

    def pooled(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, width), before the projection into the shared space."""
        raise NotImplementedError

    def project(self, pooled: Tensor) -> Tensor:
        """(B, width) -> (B, D)."""
        raise NotImplementedError

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D)."""
        return self.project(self.pooled(pixels))


class TwoTowers(nn.Module):
    """What `DualEncoder` asks of a model, under the names that open_clip gives to it.

    Args:
        visual: Pixels to (B, D).
        text: int64 (B, T) to (B, D).
        context_length: T.
    """

    logit_bias = None

    def __init__(self, visual: ImageTower, text: nn.Module, *, context_length: int) -> None:
        super().__init__()
        self.visual, self.text, self.context_length = visual, text, context_length
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """int64 (B, T) -> (B, D)."""
        return self.text(tokens)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations again in the backward pass instead of keeping them."""
        for tower in (self.visual, self.text):
            tower.set_grad_checkpointing(enable)  # type: ignore[operator]


def renamed(weights: Weights, prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """Replace the first prefix that fits each name; a name that none fits stays."""

    def rename(key: str) -> str:
        found = next((prefix for prefix in prefixes if key.startswith(prefix)), "")
        return prefixes.get(found, "") + key.removeprefix(found)

    return {rename(key): value for key, value in weights.items()}


def shape_of(weights: Weights, key: str, place: str, *, rank: int = 2) -> tuple[int, ...]:
    """The shape of one weight.

    Raises:
        UserError: If it is not there, or has not ``rank`` dimensions.
    """
    if key not in weights:
        raise UserError(f"{place} lacks {key}; copy or download it again")
    if weights[key].ndim != rank:
        raise UserError(f"{place}: {key} is {tuple(weights[key].shape)}; expected {rank} dimensions")
    return tuple(weights[key].shape)


def count_blocks(weights: Weights, prefix: str) -> int:
    """Number of numbered parts under a prefix such as ``"visual.blocks."``."""
    return 1 + max((int(k[len(prefix) :].split(".")[0]) for k in weights if k.startswith(prefix)), default=-1)


def vit_sizes(weights: Weights, prefix: str, place: str) -> dict[str, Any]:
    """Sizes of timm's ViT, read from its weights.

    Raises:
        UserError: If one that tells a size is missing.
    """
    width, _, patch, _ = shape_of(weights, f"{prefix}patch_embed.proj.weight", place, rank=4)
    positions = shape_of(weights, f"{prefix}pos_embed", place, rank=3)[1]
    return {
        "image_size": patch * round((positions - 1) ** 0.5),
        "patch_size": patch,
        "width": width,
        "layers": count_blocks(weights, f"{prefix}blocks."),
        "mlp_width": shape_of(weights, f"{prefix}blocks.0.mlp.fc1.weight", place)[0],
    }


def build_vit(sizes: Mapping[str, Any], *, init_values: float | None = None) -> VisionTransformer:
    """Timm's ViT with a class token and no classifier.

    Args:
        sizes: From `vit_sizes`.
        init_values: Start of the layer scale; None for a model without one.
    """
    return VisionTransformer(
        img_size=sizes["image_size"],
        patch_size=sizes["patch_size"],
        embed_dim=sizes["width"],
        depth=sizes["layers"],
        num_heads=max(1, sizes["width"] // HEAD_WIDTH),
        mlp_ratio=(sizes["mlp_width"] + 0.5) / sizes["width"],  # timm rounds down
        num_classes=0,
        init_values=init_values,
    )
