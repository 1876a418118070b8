"""BERT text towers without a look at the hub: the sizes come from the model's folder or from this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pathclip.core.errors import UserError
from pathclip.core.files import read_json
from pathclip.encoders.text_files import FileTokenizer, fitting, read_word_pieces

__all__ = ["BASE_UNCASED", "bert_config", "bert_folder", "bert_tokenizer"]

BUNDLED = Path(__file__).parent / "bert-base-uncased"
# hub names of towers that have the shape of BERT base and its 30,522 word pieces
BASE_UNCASED = frozenset(
    (
        "bert-base-uncased",
        "google-bert/bert-base-uncased",
        "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
        "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext",
        "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract",
        "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract-fulltext",
    )
)


def bert_folder(name: str, folder: Path | None) -> Path:
    """The folder with the ``config.json`` of a BERT.

    Args:
        name: open_clip's ``hf_model_name``: a hub name or a local folder.
        folder: The model's own folder; a BERT's ``config.json`` in it comes first.

    Raises:
        UserError: If the sizes are not known here; the hub is never asked.
    """
    places = [*([folder] if folder is not None else []), Path(name).expanduser()]
    for place in places:
        if (place / "config.json").is_file() and _is_bert(place / "config.json"):
            return place
    if name in BASE_UNCASED:
        return BUNDLED
    raise UserError(
        f"the sizes of text tower {name} are not known here; if it is a BERT, put its config.json into "
        f"{folder if folder is not None else 'the folder of the model'}; known: "
        f"{', '.join(sorted(BASE_UNCASED))}"
    )


def bert_config(name: str, folder: Path | None) -> dict[str, Any]:
    """The content of that ``config.json``.

    Raises:
        UserError: As `bert_folder`.
    """
    config: dict[str, Any] = read_json(bert_folder(name, folder) / "config.json")
    return config


def bert_tokenizer(
    config: Mapping[str, Any],
    folder: Path | None,
    *,
    model: str,
    clean: Callable[[str], str] | None = None,
    blank_end: bool = False,
) -> FileTokenizer:
    """The tokenizer of a BERT.

    Args:
        config: Its ``config.json``.
        folder: Holds ``tokenizer.json`` or ``vocab.txt``.
        model: Name for messages.
        clean: Applied to each text first.
        blank_end: As in `FileTokenizer`.

    Raises:
        UserError: If the files are missing or belong to another model.
    """
    pieces = read_word_pieces(folder, model=model)
    fitting(model, pieces.get_vocab_size(), int(config.get("vocab_size", 30522)))
    pad_id = int(config.get("pad_token_id") or 0)
    wrong = [mark for mark in ("[UNK]", "[PAD]", "[CLS]", "[SEP]") if pieces.token_to_id(mark) is None]
    if not wrong:
        ids = pieces.encode("a a").ids
        marks = {"[PAD]": [pad_id], "[CLS]": ids[:1], "[SEP]": ids[-1:]}
        wrong = [mark for mark, index in marks.items() if [pieces.token_to_id(mark)] != index]
    if wrong:
        raise UserError(
            f"the tokenizer of {model} does not use {', '.join(wrong)} as its BERT does; "
            "take the tokenizer files from where the weights came from"
        )
    return FileTokenizer(
        lambda text: pieces.encode(text).ids, pad_id=pad_id, clean=clean, blank_end=blank_end
    )


def _is_bert(path: Path) -> bool:
    config = read_json(path)
    return isinstance(config, dict) and config.get("model_type") == "bert"
