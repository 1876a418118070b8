"""The tokenizer of a model: CLIP's byte-pair encoding, whose vocabulary comes with open_clip."""

from __future__ import annotations

import functools
import json
from typing import Any

from open_clip.tokenizer import SimpleTokenizer

from pathclip.core.errors import UserError
from pathclip.encoders.architecture import Architecture

__all__ = ["tokenizer_of"]


def tokenizer_of(architecture: Architecture) -> SimpleTokenizer:
    """The tokenizer that a config asks for; models with equal options share one.

    Raises:
        UserError: If it is a Hugging Face tokenizer, or makes ids that the model has no embedding for.
    """
    text_cfg = architecture.model_cfg["text_cfg"]
    if text_cfg.get("hf_tokenizer_name"):
        raise UserError(
            f"model {architecture.name} wants the Hugging Face tokenizer {text_cfg['hf_tokenizer_name']}, "
            "which is not supported yet"
        )
    tokenizer = _byte_pairs(json.dumps(text_cfg.get("tokenizer_kwargs") or {}, sort_keys=True))
    vocab_size = text_cfg.get("vocab_size", 49408)
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"model {architecture.name}: text_cfg.vocab_size is {vocab_size}, but its tokenizer makes ids to "
            f"{tokenizer.vocab_size - 1}; set text_cfg.vocab_size to {tokenizer.vocab_size}"
        )
    return tokenizer


@functools.cache
def _byte_pairs(options: str) -> SimpleTokenizer:
    kwargs: dict[str, Any] = json.loads(options)
    return SimpleTokenizer(**kwargs)  # reads 48,894 merges, a third of a second
