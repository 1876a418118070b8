"""The order of a stream: proven position by position, without any shard."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from pathclip.batches import WindowedOrder

COUNTS = [7, 0, 5, 9, 4, 6, 8, 3, 5, 1]  # 48 samples in ten shards


def shard_of(sample: int, counts: list[int]) -> int:
    return int(np.searchsorted(np.cumsum(counts), sample, side="right"))


@pytest.mark.parametrize("window", [1, 3, 4, 10, 99])
def test_every_pass_takes_every_sample_once_and_in_another_order(window: int) -> None:
    order = WindowedOrder([COUNTS], 5, window)
    assert order.count == 48
    passes = [order.window(48 * n, 48 * (n + 1)) for n in range(3)]
    for number, places in enumerate(passes):
        assert {n for n, _ in places} == {number}
        assert sorted(sample for _, sample in places) == list(range(48))
    assert len({tuple(sample for _, sample in places) for places in passes}) == 3


def test_a_window_holds_few_shards_and_mixes_their_samples() -> None:
    order = WindowedOrder([COUNTS], 0, 3)
    places = [sample for _, sample in order.window(0, 48)]
    windows = [order.shards(0, w) for w in range(order.windows[0])]
    assert sorted(s for shards in windows for s in shards) == list(range(10))
    assert {len(shards) for shards in windows} == {2, 3}  # near-equal, so that no pass ends in a rest
    at, mixed = 0, 0
    for w, shards in enumerate(windows):
        size = sum(COUNTS[s] for s in shards)
        seen = [shard_of(sample, COUNTS) for sample in places[at : at + size]]
        assert set(seen) == {s for s in shards if COUNTS[s]}
        assert order.needed(at, at + size) == {0: (w, w)}
        mixed += sum(a != b for a, b in pairwise(seen))
        at += size
    assert mixed >= 20  # in shard order there would be eight changes


def test_a_position_is_found_without_those_before_it() -> None:
    for weights in ((), (1, 0.5)):
        counts = [COUNTS, [4, 4, 4, 4]]
        whole = WindowedOrder(counts, 1, 2, weights).window(0, 500)
        for position in (499, 3, 250, 64):
            assert WindowedOrder(counts, 1, 2, weights).window(position, position + 1) == [whole[position]]


def test_another_seed_is_another_order() -> None:
    first, second = (WindowedOrder([COUNTS], seed, 3).window(0, 48) for seed in (1, 2))
    assert first != second


def test_datasets_are_mixed_evenly_at_their_weights() -> None:
    counts = [[60] * 10, [50] * 4, [10]]
    order = WindowedOrder(counts, 0, 2, (0.5, 2, 3))
    assert order.count == 300 + 400 + 30
    places = order.window(0, 2 * order.count)
    of = [int(np.searchsorted([600, 800, 810], sample, side="right")) for _, sample in places]
    assert Counter(of[: order.count]) == {0: 300, 1: 400, 2: 30}
    thirds = [Counter(of[i : i + 243]) for i in range(0, 729, 243)]
    assert all(60 < third[0] < 140 and 90 < third[1] < 180 and third[2] for third in thirds)
    first = [sample for d, (_, sample) in zip(of, places, strict=True) if d == 0]
    assert sorted(first) == list(range(600))  # half a pass in each: every one once in two
    seen = Counter((sample, number) for d, (number, sample) in zip(of, places, strict=True) if d == 2)
    assert set(seen.values()) == {1}
    assert {number for _, number in seen} == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("weights", [(1, 1, 1), (0.01, 3, 1), (1, 1, 0.2)])
def test_blocks_share_out_a_long_pass_exactly(weights: tuple[float, ...]) -> None:
    counts = [[3000, 3001], [1500], [7]]
    order = WindowedOrder(counts, 0, 1, weights)
    own = [order._own(p) for p in range(order.count)]  # over more than one block of the mix
    for dataset, share in enumerate(order.shares):
        assert [place for d, place in own if d == dataset] == list(range(share))


def test_windows_are_needed_in_order_and_two_at_most() -> None:
    order = WindowedOrder([COUNTS, [4, 4, 4]], 3, 2, (1, 2))
    last = {0: 0, 1: 0}
    for start in range(0, 600, 4):
        for dataset, (first, end) in order.needed(start, start + 4).items():
            assert last[dataset] <= first <= end <= first + 1
            assert first <= last[dataset] + 1
            last[dataset] = end
