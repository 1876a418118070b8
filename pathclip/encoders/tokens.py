"""The tokenizer of a model: CLIP's byte pairs, which come with open_clip, or one from its own files."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

from pathclip.core.errors import UserError
from pathclip.encoders.architecture import Architecture
from pathclip.encoders.formats import LAYOUTS
from pathclip.encoders.formats.bert import bert_config, bert_tokenizer
from pathclip.encoders.text_files import TEXT_FILES, TOKENIZERS, FileTokenizer, stamps_of

__all__ = ["check_tokenizer", "tokenizer_of"]

CLEANERS = ("whitespace", "lower", "canonicalize")  # open_clip's


def tokenizer_of(architecture: Architecture) -> SimpleTokenizer | FileTokenizer:
    """The tokenizer that a config asks for; models with equal options share one.

    Raises:
        UserError: If its files are missing, or it makes ids that the model has no embedding for.
    """
    text_cfg = architecture.model_cfg["text_cfg"]
    layout = LAYOUTS.get(architecture.layout)
    if layout is not None or text_cfg.get("hf_tokenizer_name"):
        names = (*TEXT_FILES, *(layout.text_files if layout else ()), "config.json")
        stamps = stamps_of(architecture.folder, names)
        config = json.dumps(architecture.model_cfg)
        return _from_files(architecture.name, config, architecture.folder, architecture.layout, stamps)
    tokenizer = _byte_pairs(json.dumps(text_cfg.get("tokenizer_kwargs") or {}, sort_keys=True))
    vocab_size = text_cfg.get("vocab_size", 49408)
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"model {architecture.name}: text_cfg.vocab_size is {vocab_size}, but its tokenizer makes ids to "
            f"{tokenizer.vocab_size - 1}; set text_cfg.vocab_size to {tokenizer.vocab_size}"
        )
    return tokenizer


def check_tokenizer(architecture: Architecture) -> None:
    """Read the tokenizer of a model's own files, if there are any, so that foreign ones are told at once.

    Raises:
        UserError: As `tokenizer_of`.
    """
    layout = LAYOUTS.get(architecture.layout)
    if stamps_of(architecture.folder, layout.text_files if layout else TOKENIZERS):
        tokenizer_of(architecture)


@functools.cache
def _byte_pairs(options: str) -> SimpleTokenizer:
    kwargs: dict[str, Any] = json.loads(options)
    return SimpleTokenizer(**kwargs)  # reads 48,894 merges, a third of a second


@functools.lru_cache(maxsize=8)
def _from_files(
    name: str, config: str, folder: Path | None, layout: str, stamps: tuple[tuple[str, int], ...]
) -> FileTokenizer:
    """Made once per model and state of its files, which ``stamps`` tells: batches come text by text."""
    architecture = Architecture(name, json.loads(config), {}, folder, layout)
    if layout == "open_clip":
        return _of_bert(architecture)
    return LAYOUTS[layout].tokenizer(architecture.model_cfg, folder, name)


def _of_bert(architecture: Architecture) -> FileTokenizer:
    """Word pieces as open_clip's ``HFTokenizer`` makes them: cleaned, then split."""
    name, text_cfg = architecture.name, architecture.model_cfg["text_cfg"]
    if not text_cfg.get("hf_model_name"):
        raise UserError(
            f"model {name} wants the tokenizer {text_cfg['hf_tokenizer_name']} for a text tower that is no "
            "BERT, which pathclip does not read"
        )
    options = dict(text_cfg.get("tokenizer_kwargs") or {})
    clean, blank_end = options.pop("clean", "whitespace"), options.pop("strip_sep_token", False)
    odd = [*options, *(["tokenizer_mode"] if text_cfg.get("tokenizer_mode") else [])]
    if odd or clean not in CLEANERS:
        what = f"option {odd[0]}" if odd else f"clean = {clean!r}"
        raise UserError(
            f"model {name}: {what} of its tokenizer is unknown; known: strip_sep_token, "
            f"clean = {', '.join(CLEANERS)}"
        )
    bert = bert_config(text_cfg["hf_model_name"], architecture.folder)
    return bert_tokenizer(
        bert, architecture.folder, model=name, clean=get_clean_fn(clean), blank_end=blank_end
    )
