"""Train and test where a data set has none: PLIP's by picture, ours by whole groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.core.errors import UserError
from pathclip.evaluation.datasets import LabelledImages

__all__ = ["SEED", "TRAIN_SHARE", "choose", "grouped_split", "plip_order", "plip_split", "stratified_split"]

SEED = 1
TRAIN_SHARE = 0.7
Split = tuple[list[int], list[int]]


def plip_order(count: int, seed: int = SEED) -> NDArray[np.int64]:
    """The order of pandas' ``sample(frac=1, random_state=seed)``."""
    return np.random.RandomState(seed).permutation(count)


def plip_split(count: int, seed: int = SEED) -> Split:
    """PLIP's: shuffle, the first ``int(0.7 * count)`` train, the others test; rows in file order.

    Source: Huang et al. 2023, published code, ``_dataset_loader.py``.
    """
    order = plip_order(count, seed).tolist()
    cut = int(count * TRAIN_SHARE)
    return sorted(order[:cut]), sorted(order[cut:])


def grouped_split(groups: Sequence[str], seed: int = SEED) -> Split:
    """Whole groups, about 70 to 30 by number of groups.

    Raises:
        UserError: If there is one group only.
    """
    from sklearn.model_selection import GroupShuffleSplit

    if len(set(groups)) < 2:
        raise UserError(f"one group ({groups[0]}) cannot be split into train and test; choose --split all")
    splitter = GroupShuffleSplit(1, test_size=1 - TRAIN_SHARE, random_state=seed)
    train, test = next(splitter.split(groups, groups=groups))
    return train.tolist(), test.tolist()


def stratified_split(truth: Sequence[str], seed: int = SEED) -> Split:
    """Pictures at random, 70 to 30 within each class; for sets that name no patient."""
    train: list[int] = []
    test: list[int] = []
    rng = np.random.default_rng(seed)
    for label in sorted(set(truth)):
        places = rng.permutation([i for i, own in enumerate(truth) if own == label]).tolist()
        cut = round(len(places) * TRAIN_SHARE)
        train, test = [*train, *places[:cut]], [*test, *places[cut:]]
    return sorted(train), sorted(test)


def choose(data: LabelledImages, split: str | None, parts: Split, **changes: Any) -> LabelledImages:
    """One side of a split, ``all`` of it, or ``test`` where nothing is asked.

    Raises:
        UserError: If there is no such split, or it has fewer than two classes.
    """
    split = split or "test"
    sides = {"train": parts[0], "test": parts[1], "all": list(range(len(data.pictures)))}
    if split not in sides:
        raise UserError(f"{data.root} has no split {split!r}; it has {', '.join(sides)}")
    chosen = data.take(sides[split], split, **changes)
    if len(chosen.labels) < 2:
        raise UserError(
            f"{data.root}, split {split}: a classification needs two classes or more; "
            f"found {list(chosen.labels)}"
        )
    return chosen
