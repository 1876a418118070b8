"""MUSK: two transformers of one shape, which its file holds as the A (image) and B (text) halves of a BEiT-3.

Xiang et al. 2025, doi:10.1038/s41586-024-08378-w; layout as in github.com/lilab-stanford/MUSK. Features are
those for zero-shot; the two-scale features that its authors use for probes are not made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pathclip.encoders.formats.layout import (
    HEAD_WIDTH,
    ImageTower,
    Layout,
    TwoTowers,
    count_blocks,
    shape_of,
)
from pathclip.encoders.text_files import FileTokenizer, find_text_file, fitting, read_sentence_pieces

__all__ = ["MUSK"]

TEXT_FILES = ("tokenizer.spm",)
CONTEXT_LENGTH = 100  # as in its demo; the file has 1,024 positions
START, PAD, END, UNKNOWN = 0, 1, 2, 3  # ids of fairseq's; a piece's id is one more than sentencepiece's
FIRST_POSITION = 2  # fairseq again
SPARE = 8  # rows of the published embedding that no id of its tokenizer uses
HALVES = {"A": "visual", "B": "text"}
SINGLE = {
    "beit3.text_embed.weight": "text.token_embedding.weight",
    "beit3.vision_embed.cls_token": "visual.cls_token",
    "beit3.vision_embed.mask_token": "visual.mask_token",
    "beit3.vision_embed.proj.weight": "visual.patch_embed.weight",
    "beit3.vision_embed.proj.bias": "visual.patch_embed.bias",
    "beit3.encoder.embed_positions.A.weight": "visual.positional_embedding",
    "beit3.encoder.embed_positions.B.weight": "text.positional_embedding",
    "vision_head.weight": "visual.head.weight",
    "language_head.weight": "text.head.weight",
}


class Attention(nn.Module):
    """Self-attention with a norm before the output projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD_WIDTH)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.inner_attn_ln = nn.LayerNorm(width)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """(B, T, width); ``keep`` (B, 1, 1, T) is False where a token is padding."""
        q, k, v = (
            project(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        return self.out_proj(self.inner_attn_ln(mixed.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    """Two linear layers with a norm between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.ffn_layernorm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> the same."""
        return self.fc2(self.ffn_layernorm(F.gelu(self.fc1(x))))


class Layer(nn.Module):
    """Attention, then feed-forward, each on normalised input and added to it."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.self_attn, self.ffn = Attention(width), FeedForward(width, hidden)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """(B, T, width) -> the same."""
        x = x + self.self_attn(self.self_attn_layer_norm(x), keep)
        return x + self.ffn(self.final_layer_norm(x))


class Encoder(nn.Module):
    """One half of the BEiT-3."""

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(sizes["width"], sizes["mlp_width"]) for _ in range(sizes["layers"]))
        self.layer_norm = nn.LayerNorm(sizes["width"])
        self.grad_checkpointing = False

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, T, width) -> (B, width) of the first token."""
        for layer in self.layers:
            if self.grad_checkpointing and self.training:
                x = checkpoint(layer, x, keep, use_reentrant=False)
            else:
                x = layer(x, keep)
        return self.layer_norm(x[:, 0])


class MuskVisual(ImageTower):
    """Patches and a class token."""

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        width, patch = sizes["width"], sizes["patch_size"]
        self.image_size = sizes["image_size"]
        positions = (self.image_size // patch) ** 2 + 1 + FIRST_POSITION
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("mask_token", torch.zeros(1, 1, width))  # of its pretraining; kept for saving
        self.positional_embedding = nn.Parameter(torch.randn(positions, width) * 0.02)
        self.encoder = Encoder(sizes)
        self.head = nn.Linear(width, width, bias=False)

    def pooled(self, pixels: Tensor) -> Tensor:
        """The class token."""
        patches = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1).to(patches.dtype), patches], dim=1)
        return self.encoder(tokens + self.positional_embedding[FIRST_POSITION:])

    def project(self, pooled: Tensor) -> Tensor:
        """One matrix."""
        return self.head(pooled)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `TwoTowers`."""
        self.encoder.grad_checkpointing = enable


class MuskText(nn.Module):
    """Sentence pieces; the start mark's output is the feature."""

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        width = sizes["width"]
        self.token_embedding = nn.Embedding(sizes["vocab_size"], width)
        self.positional_embedding = nn.Parameter(torch.randn(sizes["positions"], width) * 0.02)
        self.encoder = Encoder(sizes)
        self.head = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 (B, T) -> (B, D)."""
        positions = self.positional_embedding[FIRST_POSITION : FIRST_POSITION + tokens.shape[1]]
        keep = (tokens != PAD)[:, None, None]
        return self.head(self.encoder(self.token_embedding(tokens) + positions, keep))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `TwoTowers`."""
        self.encoder.grad_checkpointing = enable


def from_file(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``beit3.encoder.layers.0.ffn.A.fc1.weight`` -> ``visual.encoder.layers.0.ffn.fc1.weight``."""

    def own(key: str) -> str:
        match = re.fullmatch(r"beit3\.(encoder\..+?)\.([AB])(\..+)", key)
        return SINGLE.get(key) or (f"{HALVES[match[2]]}.{match[1]}{match[3]}" if match else key)

    return {own(key): value for key, value in weights.items()}


def to_file(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_file`."""
    single = {own: theirs for theirs, own in SINGLE.items()}
    halves = {own: half for half, own in HALVES.items()}
    parts = r"(\w+)\.(encoder\.(?:layers\.\d+\.(?:self_attn\.\w+|ffn|\w+_layer_norm)|layer_norm))(\..+)"

    def theirs(key: str) -> str:
        match = re.fullmatch(parts, key)
        return single.get(key) or (f"beit3.{match[2]}.{halves[match[1]]}{match[3]}" if match else key)

    return {theirs(key): value for key, value in weights.items()}


def _sizes(weights: Mapping[str, Tensor], config: Mapping[str, Any], place: str) -> dict[str, Any]:
    width, _, patch, _ = shape_of(weights, "beit3.vision_embed.proj.weight", place, rank=4)
    pictures = shape_of(weights, "beit3.encoder.embed_positions.A.weight", place)[0]
    positions = shape_of(weights, "beit3.encoder.embed_positions.B.weight", place)[0]
    both = {
        "width": width,
        "layers": count_blocks(weights, "beit3.encoder.layers."),
        "mlp_width": shape_of(weights, "beit3.encoder.layers.0.ffn.A.fc1.weight", place)[0],
    }
    return {
        "embed_dim": shape_of(weights, "vision_head.weight", place)[0],
        "vision_cfg": {
            "image_size": patch * round((pictures - 1 - FIRST_POSITION) ** 0.5),
            "patch_size": patch,
            **both,
        },
        "text_cfg": {
            "context_length": min(CONTEXT_LENGTH, positions - FIRST_POSITION),
            "vocab_size": shape_of(weights, "beit3.text_embed.weight", place)[0],
            "positions": positions,
            **both,
        },
    }


def _build(model_cfg: Mapping[str, Any]) -> TwoTowers:
    visual, text = MuskVisual(model_cfg["vision_cfg"]), MuskText(model_cfg["text_cfg"])
    return TwoTowers(visual, text, context_length=model_cfg["text_cfg"]["context_length"])


def _tokenizer(model_cfg: Mapping[str, Any], folder: Path | None, model: str) -> FileTokenizer:
    path = find_text_file(
        folder, TEXT_FILES, model=model, origin="musk/models of github.com/lilab-stanford/MUSK"
    )
    pieces = read_sentence_pieces(path, model=model)
    fitting(model, pieces.get_piece_size() + 2, model_cfg["text_cfg"]["vocab_size"], spare=SPARE)

    def ids_of(text: str) -> list[int]:
        return [START, *(index + 1 if index else UNKNOWN for index in pieces.encode(text)), END]

    return FileTokenizer(ids_of, pad_id=PAD)


MUSK = Layout(
    name="MUSK",
    mark="beit3.text_embed.weight",
    published={
        "embed_dim": 1024,
        "vision_cfg": {"image_size": 384, "patch_size": 16, "width": 1024, "layers": 24, "mlp_width": 4096},
        "text_cfg": {"vocab_size": 64010, "positions": 1024},
    },
    preprocess_cfg={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    sizes=_sizes,
    build=_build,
    from_file=from_file,
    to_file=to_file,
    tokenizer=_tokenizer,
    text_files=TEXT_FILES,
)
