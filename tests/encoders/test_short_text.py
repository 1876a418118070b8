from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pathclip.encoders import DualEncoder, create

SMALL = Path(__file__).with_name("small.json")
TEXTS = ["a gland", "", "signet ring cells, haematoxylin and eosin", "tumour"]


def with_text_tower(**changes: Any) -> DualEncoder:
    custom = changes.pop("custom_text", False)
    return create(SMALL, seed=1, custom_text=custom, text_cfg=changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"custom_text": True},
        {"custom_text": True, "proj_bias": True},
        {"pool_type": "eos", "eos_id": 49407},
    ],
    ids=str,
)
def test_trimmed_tokens_give_the_features_and_gradients_of_all_tokens(changes: dict[str, Any]) -> None:
    model = with_text_tower(**changes)
    tokens = model.tokenize(TEXTS)
    trimmed = model.trim_tokens(tokens)
    assert trimmed.shape[1] == (tokens != 0).sum(dim=1).max() < tokens.shape[1]
    whole, short = (model.encode_tokens(t, normalize=False) for t in (tokens, trimmed))
    torch.testing.assert_close(short, whole, atol=1e-5, rtol=1e-5)
    weights = [p for name, p in model.clip.named_parameters() if "visual" not in name and p.ndim]
    target = torch.randn(whole.shape, generator=torch.Generator().manual_seed(0))
    slow, fast = (torch.autograd.grad((f * target).sum(), weights) for f in (whole, short))
    for one, other in zip(slow, fast, strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"custom_text": True, "no_causal_mask": True},
        {"pool_type": "last"},
        {"embed_cls": True, "custom_text": True},
    ],
    ids=str,
)
def test_towers_that_read_behind_the_end_mark_keep_all_tokens(changes: dict[str, Any]) -> None:
    model = with_text_tower(**changes)
    tokens = model.tokenize(TEXTS)
    assert model.trim_tokens(tokens).shape == tokens.shape


def test_a_text_that_fills_the_context_and_no_text_at_all_are_trimmed_to_what_they_are() -> None:
    model = with_text_tower()
    full = model.tokenize(["x " * 200, "short"])
    assert model.trim_tokens(full).shape == full.shape
    assert model.trim_tokens(full[:0]).shape == (0, model.context_length)
