"""CONCH: timm's ViT-B/16 pooled by one learned query, and a causal text tower whose last token is learned.

Lu et al. 2024, doi:10.1038/s41591-024-02856-4; layout as in github.com/mahmoodlab/CONCH. Put together from
timm's and open_clip's parts. The published file also holds what captions are made with; that is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import AttentionalPooler, TextTransformer
from torch import Tensor, nn

from pathclip.core.errors import UserError
from pathclip.encoders.formats.layout import (
    HEAD_WIDTH,
    ImageTower,
    Layout,
    TwoTowers,
    build_vit,
    count_blocks,
    shape_of,
    vit_sizes,
)
from pathclip.encoders.text_files import FileTokenizer, find_text_file, fitting, read_byte_pairs

__all__ = ["CONCH"]

CAPTIONING = ("text_decoder.", "visual.attn_pool_caption.", "visual.ln_caption.")
TEXT_FILES = ("conch_byte_level_bpe_uncased.json", "tokenizer.json")
ORIGIN = "conch/open_clip_custom/tokenizers of github.com/mahmoodlab/CONCH"
PAD, MARKS = 0, {"<pad>": 0, "<start_of_text>": 1, "<end_of_text>": 2}


class ConchVisual(ImageTower):
    """All tokens of a ViT, pooled by one query; the pooled vector is CONCH's feature for probes."""

    def __init__(self, sizes: Mapping[str, Any], embed_dim: int) -> None:
        super().__init__()
        self.image_size = sizes["image_size"]
        self.trunk = build_vit(sizes)
        self.attn_pool_contrast = AttentionalPooler(
            embed_dim, sizes["width"], n_head=max(1, embed_dim // HEAD_WIDTH), n_queries=1
        )
        self.ln_contrast = nn.LayerNorm(embed_dim)
        self.proj_contrast = nn.Parameter(torch.randn(embed_dim, embed_dim) * sizes["width"] ** -0.5)

    def pooled(self, pixels: Tensor) -> Tensor:
        """Tokens, pooled and normalised."""
        tokens = self.trunk.forward_features(pixels)
        return self.ln_contrast(self.attn_pool_contrast(tokens)[:, 0])

    def project(self, pooled: Tensor) -> Tensor:
        """One matrix."""
        return pooled @ self.proj_contrast

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `TwoTowers`."""
        self.trunk.set_grad_checkpointing(enable)


def _sizes(weights: Mapping[str, Tensor], config: Mapping[str, Any], place: str) -> dict[str, Any]:
    positions, width = shape_of(weights, "text.positional_embedding", place)
    return {
        "embed_dim": shape_of(weights, "visual.proj_contrast", place)[0],
        "vision_cfg": vit_sizes(weights, "visual.trunk.", place),
        "text_cfg": {
            "context_length": positions - 1,  # the last one is the learned token's
            "vocab_size": shape_of(weights, "text.token_embedding.weight", place)[0],
            "width": width,
            "layers": count_blocks(weights, "text.transformer.resblocks."),
        },
    }


def _build(model_cfg: Mapping[str, Any]) -> TwoTowers:
    text_cfg, embed_dim = model_cfg["text_cfg"], model_cfg["embed_dim"]
    text = TextTransformer(
        **text_cfg,
        heads=max(1, text_cfg["width"] // HEAD_WIDTH),
        output_dim=embed_dim,
        embed_cls=True,
        pad_id=PAD,
    )
    visual = ConchVisual(model_cfg["vision_cfg"], embed_dim)
    return TwoTowers(visual, text, context_length=text_cfg["context_length"])


def _tokenizer(model_cfg: Mapping[str, Any], folder: Path | None, model: str) -> FileTokenizer:
    path = find_text_file(folder, TEXT_FILES, model=model, origin=ORIGIN)
    pieces = read_byte_pairs(path, model=model)
    fitting(model, pieces.get_vocab_size(), model_cfg["text_cfg"]["vocab_size"])
    ids = pieces.encode("a a").ids
    found = {mark: pieces.token_to_id(mark) for mark in MARKS}
    if found != MARKS or ids[:1] + ids[-1:] != list(MARKS.values())[1:]:
        raise UserError(f"{path} is not the tokenizer of {model}: its marks are {found}; expected {MARKS}")
    return FileTokenizer(lambda text: pieces.encode(text).ids, pad_id=PAD)


CONCH = Layout(
    name="CONCH",
    mark="visual.attn_pool_contrast.query",
    published={
        "embed_dim": 512,
        "vision_cfg": {"image_size": 448, "patch_size": 16, "width": 768, "layers": 12, "mlp_width": 3072},
        "text_cfg": {"context_length": 127, "vocab_size": 32007, "width": 768, "layers": 12},
    },
    preprocess_cfg={},
    sizes=_sizes,
    build=_build,
    from_file=lambda weights: {k: v for k, v in weights.items() if not k.startswith(CAPTIONING)},
    to_file=dict,
    tokenizer=_tokenizer,
    text_files=TEXT_FILES,
)
