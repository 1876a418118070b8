"""The order of samples: one shuffled pass after the other, a pure function of seed and position."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Order"]

SHUFFLE, CAPTION, AUGMENT = 0, 1, 2  # purposes of randomness: a change of one leaves the others as they are


@dataclass(slots=True)
class Order:
    """An endless stream over ``count`` samples: position p lies in pass p // count.

    Passes follow each other without a gap, so there is no uneven last batch: a global batch may hold the
    end of one pass and the start of the next, and every pass holds every sample exactly once.

    Attributes:
        count: Samples in a pass.
        seed: Of the shuffle.
    """

    count: int
    seed: int
    _passes: dict[int, np.ndarray] = field(default_factory=dict)

    def window(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(pass, sample index) at positions ``start`` up to ``stop``."""
        return [
            (p // self.count, int(self._pass(p // self.count)[p % self.count])) for p in range(start, stop)
        ]

    def _pass(self, number: int) -> np.ndarray:
        if number not in self._passes:
            if len(self._passes) > 2:
                self._passes.clear()
            rng = np.random.default_rng([self.seed, SHUFFLE, number])
            self._passes[number] = rng.permutation(self.count)
        return self._passes[number]
