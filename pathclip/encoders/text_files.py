"""Tokenizers read from a model's own files: word pieces, byte pairs, sentence pieces; never from the hub."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pathclip.core import extras
from pathclip.core.errors import UserError
from pathclip.core.files import read_json

__all__ = [
    "TEXT_FILES",
    "TOKENIZERS",
    "FileTokenizer",
    "copy_text_files",
    "find_text_file",
    "fitting",
    "read_byte_pairs",
    "read_sentence_pieces",
    "read_word_pieces",
    "stamps_of",
]

log = logging.getLogger("pathclip")

TOKENIZERS = ("tokenizer.json", "vocab.txt")
# what belongs to a text tower in a model folder
TEXT_FILES = (*TOKENIZERS, "tokenizer_config.json", "special_tokens_map.json")
NORMALIZER_OPTIONS = {  # of tokenizer_config.json -> of the tokenizer's normalizer
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


class FileTokenizer:
    """Texts to ids of one width: cut with the end mark kept, and padded.

    Args:
        ids_of: One text to its ids, marks of start and end included.
        pad_id: Fills up short texts.
        clean: Applied to each text first.
        blank_end: Put padding in place of the end mark (open_clip's ``strip_sep_token``).
    """

    def __init__(
        self,
        ids_of: Callable[[str], list[int]],
        *,
        pad_id: int,
        clean: Callable[[str], str] | None = None,
        blank_end: bool = False,
    ) -> None:
        self.ids_of, self.pad_id = ids_of, pad_id
        self.clean, self.blank_end = clean, blank_end

    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        """Texts -> int64 (B, T)."""
        rows = torch.full((len(texts), context_length), self.pad_id, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = self.ids_of(self.clean(text) if self.clean else text)
            if len(ids) > context_length:
                ids = [*ids[: context_length - 1], ids[-1]]
            if self.blank_end:
                ids = ids[:-1]
            row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return rows


def fitting(model: str, made: int, embeddings: int, *, spare: int = 0) -> None:
    """Compare the ids that a tokenizer makes with the embeddings that the model has.

    Fewer ids are warned of: a vocabulary may be padded, but it may also be another model's.

    Args:
        model: Name for the message.
        made: Number of ids of the tokenizer.
        embeddings: Rows of the token embedding.
        spare: Rows that are known to be unused.

    Raises:
        UserError: If an id would have no embedding.
    """
    if made > embeddings:
        raise UserError(
            f"the tokenizer of {model} makes {made} ids, the model has embeddings for {embeddings}; "
            "take the tokenizer files from where the weights came from"
        )
    if made < embeddings - spare:
        log.warning(
            "the tokenizer of %s makes %d ids, the model has embeddings for %d; is it this model's own?",
            model,
            made,
            embeddings,
        )


def find_text_file(folder: Path | None, names: Sequence[str], *, model: str, origin: str) -> Path:
    """The first file of these names in a model's folder.

    Raises:
        UserError: If there is none; the line says where it comes from.
    """
    for name in names:
        if folder is not None and (folder / name).is_file():
            return folder / name
    raise UserError(
        f"model {model} has no tokenizer, so it encodes pictures only: put {names[0]} (from {origin}) into "
        f"{folder if folder is not None else 'its folder'}"
    )


def read_word_pieces(folder: Path | None, *, model: str) -> Any:
    """A BERT's tokenizer from ``tokenizer.json`` or ``vocab.txt``, and ``tokenizer_config.json`` if there.

    Returns:
        A ``tokenizers.Tokenizer`` that neither cuts nor pads.

    Raises:
        UserError: If there is no such file, or it cannot be read.
    """
    path = next((folder / n for n in TOKENIZERS if folder is not None and (folder / n).is_file()), None)
    if path is None:
        raise UserError(
            f"model {model} has no tokenizer: expected tokenizer.json or vocab.txt in "
            f"{folder if folder is not None else 'its folder'}; copy it from where the weights came from"
        )
    extras.require("tokenizers", extra="hf", why=f"the tokenizer of {model}")
    return _read(path, path.with_name("tokenizer_config.json"))


def read_byte_pairs(path: Path, *, model: str) -> Any:
    """A ``tokenizers.Tokenizer`` from a file in the layout of ``tokenizer.json``; it neither cuts nor pads.

    Raises:
        UserError: If it cannot be read.
    """
    extras.require("tokenizers", extra="hf", why=f"the tokenizer of {model}")
    return _read(path)


def _read(path: Path, options: Path | None = None) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

    content = read_json(options) if options is not None and options.is_file() else {}
    config = content if isinstance(content, dict) else {}
    stated = {ours: config[key] for key, ours in NORMALIZER_OPTIONS.items() if config.get(key) is not None}
    try:
        if path.suffix == ".txt":
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            return BertWordPieceTokenizer({piece: index for index, piece in enumerate(lines)}, **stated)
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path} is no tokenizer file that can be read: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if stated:
        _restate(tokenizer, stated)
    return tokenizer


def _restate(tokenizer: Any, stated: dict[str, Any]) -> None:
    """Let ``tokenizer_config.json`` have the last word, as transformers does."""
    from tokenizers.normalizers import BertNormalizer

    state = json.loads(tokenizer.to_str())["normalizer"]
    if state is not None and state.pop("type") == "BertNormalizer":
        tokenizer.normalizer = BertNormalizer(**{**state, **stated})


def read_sentence_pieces(path: Path, *, model: str) -> Any:
    """A ``sentencepiece.SentencePieceProcessor``.

    Raises:
        UserError: If the file cannot be read.
    """
    sentencepiece = extras.require("sentencepiece", extra="hf", why=f"the tokenizer of {model}")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise UserError(f"{path} is no sentencepiece model: {str(error).partition(chr(10))[0]}") from None


def stamps_of(folder: Path | None, names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Which of these files are there and when they were written: equal stamps, equal content."""
    if folder is None:
        return ()
    return tuple((n, (folder / n).stat().st_mtime_ns) for n in names if (folder / n).is_file())


def copy_text_files(source: Path | None, folder: Path, *more: str) -> None:
    """Copy what belongs to the text tower into another model folder."""
    if source is not None and not source.is_dir():
        log.warning("%s is gone, and with it the tokenizer; put its files into %s", source, folder)
    for name in (*TEXT_FILES, *more):
        if source is not None and (source / name).is_file() and source.resolve() != folder.resolve():
            shutil.copyfile(source / name, folder / name)
