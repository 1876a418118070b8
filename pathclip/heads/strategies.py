"""Which of the prompts speak: one per class, all of them, those that fit the pictures, or draws by chance.

Legend: N pictures, D embedding, C classes, P classifiers, T different texts.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from math import prod
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder
from pathclip.heads.draws import draw_prompts
from pathclip.heads.prompts import Prompts, PromptSet, fill

__all__ = ["Strategy", "check_strategy", "drawn_classifiers", "screened_classifier", "single_prompts"]

Strategy = Literal["ensemble", "single", "screening"]
KEPT = 50
MOST = 2000
"""Single-prompt classifiers that are screened at most; KEEP's largest file has 1782."""
SCORES_AT_ONCE = 1 << 24


def check_strategy(strategy: str) -> None:
    """Refuse a strategy that does not exist.

    Raises:
        UserError: If it is unknown.
    """
    if strategy not in get_args(Strategy):
        raise UserError(f"strategy {strategy!r} is unknown; known: {', '.join(get_args(Strategy))}")


def single_prompts(prompts: Prompts) -> Prompts:
    """The first name of each class in the first template: what one would type."""
    first = prompts.sets[0]
    names = {label: (first.classnames[label][0],) for label in prompts.labels}
    return Prompts((PromptSet(names, first.templates[:1]),), f"{prompts.name}, single")


def drawn_classifiers(model: DualEncoder, prompts: Prompts, num_draws: int, *, seed: int = 0) -> Tensor:
    """Classifiers of prompts drawn by chance, as MI-Zero reports the median of: (num_draws, D, C).

    Args:
        model: Encodes the texts, each different one once.
        prompts: The pool of names and templates.
        num_draws: MI-Zero takes 50.
        seed: Draw i has the seed ``seed + i``.

    Source: Lu et al. 2023 (MI-Zero, arXiv:2306.07831).
    """
    from pathclip.heads.zeroshot import prompt_set_classifiers

    drawn = [draw_prompts(prompts, seed + draw).sets[0] for draw in range(num_draws)]
    return prompt_set_classifiers(model, Prompts(tuple(drawn), prompts.name))


def screened_classifier(
    model: DualEncoder, prompts: Prompts, image_features: Tensor, *, keep: int = KEPT, seed: int = 0
) -> tuple[Tensor, dict[str, Any]]:
    """The classifier of the prompts that fit these pictures best, by no label.

    Each combination of one name per class in one template is a classifier. Its worth is the mean over the
    pictures of ``(a - b) - |a + b - 1|``, a and b being the two largest cosines: sure, and neither far from a
    half. The best ``keep`` are added and scaled to unit columns.

    Args:
        model: Encodes the texts.
        prompts: Names and templates. Of more than 2000 combinations, 2000 are drawn.
        image_features: (N, D) unit length, finite, at least one.
        keep: How many classifiers are added.
        seed: Of that draw.

    Returns:
        (D, C) float32, and for the record: combinations, how many were screened and kept, the best texts.

    Raises:
        UserError: If there is no picture to screen by.

    Source: Zhou et al. 2026 (KEEP), its ``prompt_screening``.
    """
    if not len(image_features):
        raise UserError("screening chooses prompts by the pictures; there is none that could be read")
    total, chosen = _combinations(prompts, seed)
    texts = list(dict.fromkeys(text for row in chosen for text in row))
    place = {text: i for i, text in enumerate(texts)}
    columns = torch.tensor([[place[text] for text in row] for row in chosen])  # (P, C)
    features = model.encode_text(texts)  # (T, D)
    worth = _worth(image_features.float() @ features.T, columns)
    best = worth.argsort(descending=True, stable=True)[:keep]
    classifier = F.normalize(features[columns[best]].sum(dim=0), dim=1).T.contiguous()
    record = {
        "combinations": total,
        "screened": len(chosen),
        "kept": len(best),
        "pictures": len(image_features),
        "best": dict(zip(prompts.labels, chosen[int(best[0])], strict=True)),
    }
    return classifier, record


def _worth(cosines: Tensor, columns: Tensor) -> Tensor:
    """(N, T) cosines and (P, C) places of texts -> (P,) worth, in blocks that fit in memory."""
    size = max(1, SCORES_AT_ONCE // max(1, len(cosines) * columns.shape[1]))
    parts = []
    for block in columns.split(size):
        first, second = cosines[:, block].topk(2, dim=2).values.unbind(dim=2)  # (N, P)
        parts.append(((first - second) - (first + second - 1).abs()).mean(dim=0))
    return torch.cat(parts)


def _combinations(prompts: Prompts, seed: int) -> tuple[int, list[tuple[str, ...]]]:
    """How many there are, and the texts by class of each, or of those that are drawn."""
    sizes = [
        len(s.templates) * prod(len(s.classnames[label]) for label in prompts.labels) for s in prompts.sets
    ]
    total, chance = sum(sizes), random.Random(seed)
    if total <= MOST:
        return total, [row for s in prompts.sets for row in _all_rows(s, prompts.labels)]
    picks: set[int] = set()
    while len(picks) < MOST:
        picks.add(chance.randrange(total))  # products may be beyond 64 bits, which NumPy's draws stop at
    starts = list(itertools.accumulate(sizes, initial=0))
    rows = []
    for pick in sorted(picks):
        number = next(i for i in range(len(sizes)) if pick < starts[i + 1])
        rows.append(_row(prompts.sets[number], prompts.labels, pick - starts[number]))
    return total, rows


def _all_rows(prompt_set: PromptSet, labels: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for template in prompt_set.templates:
        for names in itertools.product(*(prompt_set.classnames[label] for label in labels)):
            yield tuple(fill(template, name) for name in names)


def _row(prompt_set: PromptSet, labels: tuple[str, ...], number: int) -> tuple[str, ...]:
    """The combination of that number in the order of `_all_rows`."""
    names: list[str] = []
    for label in reversed(labels):
        number, place = divmod(number, len(prompt_set.classnames[label]))
        names.append(prompt_set.classnames[label][place])
    return tuple(fill(prompt_set.templates[number], name) for name in reversed(names))
