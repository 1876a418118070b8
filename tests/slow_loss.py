"""The loss spelled out pair by pair, for the tests only. No vectors, no tricks."""

from __future__ import annotations

import math
from collections.abc import Sequence

Ids = Sequence[Sequence[int]] | None


def _match(image_ids: Ids, text_ids: Ids, i: int, j: int) -> bool:
    return image_ids is not None and any(a == b for a, b in zip(image_ids[i], text_ids[j], strict=True))


def infonce(
    image: Sequence[Sequence[float]],
    text: Sequence[Sequence[float]],
    scale: float,
    *,
    image_ids: Ids = None,
    text_ids: Ids = None,
    own: Sequence[int] | None = None,
    positives: str = "diagonal",
    smoothing: float = 0.0,
) -> float:
    """Mean over images of both directions' cross-entropy."""
    B, M = len(image), len(text)
    own = list(range(B)) if own is None else list(own)
    ids = (None, None) if positives == "diagonal" else (image_ids, text_ids)
    z = [
        [scale * sum(a * b for a, b in zip(image[i], text[j], strict=True)) for j in range(M)]
        for i in range(B)
    ]

    def positive(i: int, j: int) -> bool:
        return own[i] == j or (positives == "shared" and _match(*ids, i, j))

    def visible(i: int, j: int) -> bool:
        return own[i] == j or positives != "masked" or not _match(*ids, i, j)

    def cross_entropy(pairs: list[tuple[int, int]]) -> float:
        """Of one row or column, given as its (i, j)."""
        seen = [(i, j) for i, j in pairs if visible(i, j)]
        hits = [(i, j) for i, j in pairs if positive(i, j)]
        top = max(z[i][j] for i, j in seen)
        log_sum = top + math.log(sum(math.exp(z[i][j] - top) for i, j in seen))
        target = (1 - smoothing) * sum(z[i][j] for i, j in hits) / len(hits)
        target += smoothing * sum(z[i][j] for i, j in seen) / len(seen)
        return log_sum - target

    rows = [cross_entropy([(i, j) for j in range(M)]) for i in range(B)]
    columns = [cross_entropy([(i, own[k]) for i in range(B)]) for k in range(B)]
    return sum(rows) / (2 * B) + sum(columns) / (2 * B)


def siglip(
    image: Sequence[Sequence[float]],
    text: Sequence[Sequence[float]],
    scale: float,
    bias: float,
    *,
    image_ids: Ids = None,
    text_ids: Ids = None,
    positives: str = "diagonal",
) -> float:
    """-1/B of the sum over pairs of log sigmoid(y z)."""
    total = 0.0
    for i, image_row in enumerate(image):
        for j, text_row in enumerate(text):
            match = positives != "diagonal" and _match(image_ids, text_ids, i, j)
            if match and positives == "masked" and i != j:
                continue
            y = 1 if i == j or (match and positives == "shared") else -1
            z = y * (scale * sum(a * b for a, b in zip(image_row, text_row, strict=True)) + bias)
            total += math.log1p(math.exp(-abs(z))) + max(-z, 0)
    return total / len(image)
