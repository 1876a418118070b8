"""The order of samples: one shuffled pass after the other, a pure function of seed and position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["Order"]

SHUFFLE, CAPTION, AUGMENT = 0, 1, 2  # purposes of randomness: a change of one leaves the others as they are


class Order:
    """An endless stream over numbered samples: position p lies in pass p // count.

    Passes follow each other without a gap, so there is no uneven last batch: a global batch may hold the
    end of one pass and the start of the next. Without weights every pass holds every sample exactly once.
    With weights a pass takes ``weight`` passes of each dataset: of a weight of 0.5 every sample once in two
    passes, of 2 every sample twice in each.

    Args:
        counts: Samples of each dataset.
        seed: Of the shuffle.
        weights: Passes of each dataset in a pass of the whole.

    Attributes:
        count: Positions of a pass.
    """

    def __init__(self, counts: Sequence[int], seed: int, weights: Sequence[float] = ()) -> None:
        self.counts, self.seed = tuple(counts), seed
        self.shares = tuple(
            max(round(c * w), 1) if c else 0
            for c, w in zip(counts, weights or [1.0] * len(counts), strict=True)
        )
        self.mixed = any(weight != 1 for weight in weights)
        self.count = sum(self.shares)
        self._passes: dict[tuple[int, ...], np.ndarray] = {}

    def window(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(pass of its dataset, sample number) at positions ``start`` up to ``stop``."""
        return [self._at(p) for p in range(start, stop)]

    def passes(self, stop: int) -> int:
        """Most passes of a dataset begun by the end of the pass that holds the position before ``stop``."""
        whole = -(-stop // self.count)
        return max(
            -(-whole * share // count) for count, share in zip(self.counts, self.shares, strict=True) if count
        )

    def _at(self, position: int) -> tuple[int, int]:
        number, place = divmod(position, self.count)
        place = int(self._shuffled(self.count, SHUFFLE, number)[place])
        if not self.mixed:
            return number, place
        first = 0  # sample number of the dataset's first
        for dataset, (count, share) in enumerate(zip(self.counts, self.shares, strict=True)):
            if place < share:
                own, place = divmod(number * share + place, count)
                return own, first + int(self._shuffled(count, SHUFFLE, own, dataset)[place])
            first, place = first + count, place - share
        raise AssertionError

    def _shuffled(self, count: int, *key: int) -> np.ndarray:
        if key not in self._passes:
            if len(self._passes) > 3 * len(self.counts):
                self._passes.clear()
            self._passes[key] = np.random.default_rng([self.seed, *key]).permutation(count)
        return self._passes[key]
