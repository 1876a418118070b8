from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

WORDS = ("tumor", "lymph", "##ocyte", "##s", "an", "image", "of", "mucin", "e", "a", ".", ",", "&", "T")
TINY_BERT = {
    "model_type": "bert",
    "vocab_size": 5 + len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}


@pytest.fixture
def write_bert() -> Callable[[Path], Path]:
    """Writes the sizes and the vocabulary of a BERT with 19 word pieces into a folder."""

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(TINY_BERT))
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
        return folder

    return write


@pytest.fixture
def drawn() -> Callable[[nn.Module, int], nn.Module]:
    """Gives every weight of a module a random value, those too that start as zeros or ones."""

    def draw(module: nn.Module, seed: int) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in module.named_parameters():
                noise = torch.randn(weight.shape, generator=generator)
                if weight.ndim > 1:
                    weight.copy_(noise * 1.5 * weight[0].numel() ** -0.5)
                else:  # gains around one
                    weight.copy_(0.2 * noise + float(weight.ndim == 1 and name.endswith(("weight", "gamma"))))
        return module.eval()

    return draw


def _hashed(shape: tuple[int, ...], start: int) -> Tensor:
    """Numbers of mean 0 and variance 1 that are the same on every machine: hashed counts."""
    x = torch.arange(torch.Size(shape).numel(), dtype=torch.int64) + start * 1_000_003
    for factor in (2246822519, 3266489917):
        x = (x ^ (x >> 15)) * factor & 0xFFFFFFFF
    return (((x ^ (x >> 13)).double() / 2**31 - 1) * 3**0.5).reshape(shape).float()


@pytest.fixture
def hashed() -> Callable[[tuple[int, ...], int], Tensor]:
    """Numbers for golden values; see `_hashed`."""
    return _hashed


@pytest.fixture
def hashed_weights() -> Callable[[Mapping[str, tuple[int, ...]]], dict[str, Tensor]]:
    """Weights of given names and shapes, by the rule under which the golden features were made."""

    def fill(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        out = {}
        for index, (key, shape) in enumerate(sorted(shapes.items())):
            values = _hashed(shape, index)
            if len(shape) > 1:
                out[key] = values * 1.5 * torch.Size(shape[1:]).numel() ** -0.5
            else:
                out[key] = 0.2 * values + float(len(shape) == 1 and key.endswith("weight"))
        return out

    return fill
