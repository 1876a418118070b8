"""The order of samples where only a few shards lie here at a time: shuffled shards, shuffled in windows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from pathclip.batches.order import SHUFFLE

__all__ = ["WindowedOrder"]

MIX = 3  # a purpose of randomness beside those of `Order`
BLOCK = 4096  # positions within which datasets are mixed in their exact proportion


class WindowedOrder:
    """As `Order`, but of each dataset only the shards of one or two windows are needed at any position.

    A pass of a dataset takes its shards in an order of their own, cut into near-equal runs of at most
    ``window``: the windows. The samples of a window are shuffled together. Several datasets are mixed evenly:
    in each block of positions every one has its share. All of it is a function of (seed, pass), and a
    position is found without going through those before it. Memory grows with shards, not with samples.

    Args:
        counts: Samples of each shard of each dataset.
        seed: Of the shuffle.
        window: Shards of a window.
        weights: Passes of each dataset in a pass of the whole.

    Attributes:
        count: Positions of a pass.
        window_shards: Shards of a window.
    """

    def __init__(
        self, counts: Sequence[Sequence[int]], seed: int, window: int, weights: Sequence[float] = ()
    ) -> None:
        self.counts = [np.asarray(shards, np.int64) for shards in counts]
        self.seed, self.window_shards = seed, window
        self.totals = [int(shards.sum()) for shards in self.counts]
        self.shares = [
            max(round(total * weight), 1) if total else 0
            for total, weight in zip(self.totals, weights or [1.0] * len(self.totals), strict=True)
        ]
        self.count = sum(self.shares)
        self.first_shard = np.cumsum([0, *map(len, self.counts)])
        self.first_sample = np.cumsum([0, *self.totals])
        self.starts = [np.cumsum(shards) - shards for shards in self.counts]
        self.windows = [-(-len(shards) // window) for shards in self.counts]
        kept = 4 * len(self.counts) + 4  # of each dataset this window and the next, at a turn of the pass
        self._pass = lru_cache(kept)(self._cut_pass)
        self._samples = lru_cache(kept)(self._shuffle_samples)
        self._block = lru_cache(4)(self._mix_block)

    def window(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(pass of its dataset, sample number) at positions ``start`` up to ``stop``."""
        places = []
        for dataset, own in map(self._own, range(start, stop)):
            number, place = divmod(own, self.totals[dataset])
            ends, _ = self._pass(dataset, number)
            w = int(np.searchsorted(ends, place, side="right"))
            place -= int(ends[w - 1]) if w else 0
            places.append((number, int(self._samples(dataset, number, w)[place])))
        return places

    def needed(self, start: int, stop: int) -> dict[int, tuple[int, int]]:
        """Dataset -> (first, last) of its windows that positions ``start`` up to ``stop`` read from."""
        firsts = self._met(range(start, stop))
        lasts = self._met(range(stop - 1, start - 1, -1))
        return {dataset: (first, lasts[dataset]) for dataset, first in firsts.items()}

    def _met(self, positions: range) -> dict[int, int]:
        """Dataset -> the window of the first of these positions that reads from it."""
        found: dict[int, int] = {}
        for dataset, own in map(self._own, positions):
            if dataset not in found:
                number, place = divmod(own, self.totals[dataset])
                ends, _ = self._pass(dataset, number)
                window = int(np.searchsorted(ends, place, side="right"))
                found[dataset] = number * self.windows[dataset] + window
                if len(found) == len(self.counts):
                    break
        return found

    def shards(self, dataset: int, window: int) -> list[int]:
        """The shards of a window, numbered through all datasets."""
        number, w = divmod(window, self.windows[dataset])
        _, shards = self._pass(dataset, number)
        return [int(self.first_shard[dataset] + shard) for shard in shards[w]]

    def _own(self, position: int) -> tuple[int, int]:
        """(dataset, position in its own endless stream)."""
        number, place = divmod(position, self.count)
        if len(self.counts) == 1:
            return 0, number * self.shares[0] + place
        datasets, offsets = self._block(number, place // BLOCK)
        dataset = int(datasets[place % BLOCK])
        return dataset, number * self.shares[dataset] + int(offsets[place % BLOCK])

    def _mix_block(self, number: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        start, stop = block * BLOCK, min((block + 1) * BLOCK, self.count)
        before, after = self._taken(start), self._taken(stop)
        parts = [b - a for a, b in zip(before, after, strict=True)]
        rng = np.random.default_rng([self.seed, MIX, number, block])
        datasets = rng.permutation(np.repeat(np.arange(len(parts)), parts))
        offsets = np.empty_like(datasets)
        for dataset, first in enumerate(before):
            mine = datasets == dataset
            offsets[mine] = first + np.arange(int(mine.sum()))
        return datasets, offsets

    def _taken(self, positions: int) -> list[int]:
        """How many of the first positions of a pass each dataset has: whole numbers that never fall."""
        taken, left = [], self.count
        for share in self.shares:
            taken.append(positions * share // left if left else 0)
            positions, left = positions - taken[-1], left - share
        return taken

    def _cut_pass(self, dataset: int, number: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Ends of the windows of a pass, in samples, and their shards."""
        rng = np.random.default_rng([self.seed, SHUFFLE, dataset, number])
        shards = np.array_split(rng.permutation(len(self.counts[dataset])), self.windows[dataset])
        return np.cumsum([self.counts[dataset][part].sum() for part in shards]), shards

    def _shuffle_samples(self, dataset: int, number: int, window: int) -> np.ndarray:
        """Sample numbers of a window, shuffled."""
        shards = self._pass(dataset, number)[1][window]
        counts = self.counts[dataset]
        runs = [self.starts[dataset][shard] + np.arange(counts[shard]) for shard in shards]
        samples = self.first_sample[dataset] + np.concatenate(runs)
        return np.random.default_rng([self.seed, SHUFFLE, dataset, number, 1 + window]).permutation(samples)
