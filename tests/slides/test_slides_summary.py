from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pathclip.slides import pool_top_k
from pathclip.slides.summary import TileSummary, pool, summarise


def slow_summary(scores: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean over all tiles, and KEEP's share of tiles by argmax."""
    means = [sum(column.tolist()) / len(column) for column in scores.T]
    best = [max(range(scores.shape[1]), key=lambda c: row[c]) for row in scores.tolist()]
    return means, [best.count(c) / len(best) for c in range(scores.shape[1])]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 10**6))
def test_pooling_over_slides_is_pooling_over_all_their_tiles(
    tiles: list[int], classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    slides = [rng.uniform(-1, 1, (count, classes)).astype(np.float32) for count in tiles]
    ks = (1, 5, 20)
    summary = TileSummary.of_all([summarise(s, s.argmax(axis=1), 20) for s in slides])
    together = np.concatenate(slides)
    assert summary.tiles == len(together)
    found = pool(summary, ks)
    np.testing.assert_array_equal(found.top_k, pool_top_k(together, ks))
    means, fractions = slow_summary(together)
    np.testing.assert_allclose(found.means, means, atol=1e-6)
    np.testing.assert_allclose(found.fractions, fractions, atol=1e-12)
    winners = found.winners()
    assert winners["mean"] == int(np.argmax(found.means))
    assert fractions[winners["fraction"]] == max(fractions)
    assert [winners[str(k)] for k in ks] == np.argmax(found.top_k, axis=1).tolist()


def test_background_takes_tiles_and_never_wins() -> None:
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.1, 0.2], [0.9, 0.3, 0.1], [0.1, 0.2, 0.15]], np.float32)
    found = pool(summarise(scores, scores.argmax(axis=1), 4), (1, 4))
    np.testing.assert_allclose(found.fractions, [0.75, 0.25, 0])
    assert set(found.winners().values()) == {0}
    assert found.winners([0]) == {"1": 1, "4": 1, "mean": 1, "fraction": 1}
    assert set(found.winners([0, 1]).values()) == {2}


def test_of_classes_with_as_many_tiles_the_one_of_the_higher_mean_is_the_best() -> None:
    scores = np.array([[0.5, 0.4], [0.1, 0.4]], np.float32)
    assert pool(summarise(scores, scores.argmax(axis=1), 1), (1,)).winners()["fraction"] == 1
