"""Questions with given answers: the answer whose text is most similar to the picture.

Legend: Q questions, N pictures, D embedding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder

__all__ = ["Choices", "choice_text", "choose_answers", "plain_option"]

LETTER = re.compile(r"^\(?([A-Z])[).:]\s+")


@dataclass(frozen=True, slots=True)
class Choices:
    """What was chosen.

    Attributes:
        chosen: (Q,) place of the answer among the question's own; of equal ones the first. -1 where the
            picture's features are not finite.
        scores: Q arrays of cosines, one per answer.
    """

    chosen: NDArray[np.int64]
    scores: tuple[NDArray[np.float32], ...]


def choose_answers(
    model: DualEncoder,
    image_features: Tensor,
    questions: Sequence[str],
    options: Sequence[Sequence[str]],
    *,
    with_question: bool = True,
    cache: str | Path | None = None,
) -> Choices:
    """Answer each question by the cosine of its picture with ``question answer``.

    No peer ships this; it is the zero-shot baseline of PathMMU's and similar sets, not language
    understanding: a dual encoder does not read "not", and texts beyond its context are cut.

    Args:
        model: Encodes the texts, equal ones once.
        image_features: (Q, D) unit length, the picture of each question.
        questions: Q texts.
        options: Q lists of two answers or more.
        with_question: Put the question before each answer; otherwise the answer stands alone.
        cache: Folder to keep text features in.

    Raises:
        UserError: If the lengths differ, or a question has fewer than two answers.
    """
    if not len(image_features) == len(questions) == len(options):
        raise UserError(
            f"{len(image_features)} pictures, {len(questions)} questions and {len(options)} lists of answers;"
            " expected one of each per question"
        )
    for place, own in enumerate(options):
        if len(own) < 2:
            raise UserError(f"question {place} has {len(own)} answers; a choice needs two or more")
    texts = [
        [choice_text(question if with_question else "", option) for option in own]
        for question, own in zip(questions, options, strict=True)
    ]
    different = list(dict.fromkeys(text for own in texts for text in own))
    row = {text: i for i, text in enumerate(different)}
    features = model.encode_text(different, cache=cache).numpy()
    images = image_features.float().numpy()
    scores = tuple(features[[row[t] for t in own]] @ image for own, image in zip(texts, images, strict=True))
    chosen = [int(s.argmax()) if np.isfinite(s).all() else -1 for s in scores]
    return Choices(np.array(chosen, dtype=np.int64), scores)


def choice_text(question: str, option: str) -> str:
    """What is encoded: the question, then the answer without its letter.

    Example:
        >>> choice_text("What is shown?", "B) Signet ring cells")
        'What is shown? Signet ring cells'
    """
    return f"{question.strip()} {plain_option(option)}".strip()


def plain_option(option: str) -> str:
    """An answer without its letter: ``A) fat``, ``(A) fat`` and ``A. fat`` are all ``fat``."""
    return LETTER.sub("", option.strip())
