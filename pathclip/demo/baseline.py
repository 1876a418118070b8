"""What colour alone achieves: the nearest mean colour of the training pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["mean_colours", "nearest_colour"]


def mean_colours(paths: Sequence[Path]) -> NDArray[np.float64]:
    """(N, 3) mean red, green and blue of pictures."""
    means = []
    for path in paths:
        with Image.open(path) as image:
            means.append(np.asarray(image.convert("RGB"), np.float64).reshape(-1, 3).mean(axis=0))
    return np.array(means).reshape(-1, 3)


def nearest_colour(known: NDArray[np.float64], labels: Sequence[str], seen: NDArray[np.float64]) -> list[str]:
    """The label of the known picture whose mean colour is nearest, for each of the seen ones.

    Args:
        known: (N, 3) mean colours.
        labels: (N,) their classes.
        seen: (M, 3) mean colours.
    """
    distance = np.square(seen[:, None, :] - known[None, :, :]).sum(axis=-1)  # (M, N)
    return [labels[k] for k in distance.argmin(axis=1).tolist()]
