from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathclip.slides import pool_top_k
from pathclip.slides.pool import TileSummary, agreement, pool, probabilities, score_tiles, summarise


def slow_top_k(scores: np.ndarray, k: int) -> list[float]:
    """MI-Zero's topj_pooling spelled out, with the mean in place of the sum."""
    out = []
    for column in scores.T:
        best = sorted(column.tolist(), reverse=True)[: min(k, len(column))]
        out.append(sum(best) / len(best))
    return out


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.lists(st.integers(1, 120), min_size=1, max_size=6),
    st.integers(0, 99),
)
def test_all_k_at_once_equal_the_slow_reference(tiles: int, classes: int, ks: list[int], seed: int) -> None:
    scores = np.random.default_rng(seed).uniform(-1, 1, (tiles, classes)).astype(np.float32)
    pooled = pool_top_k(scores, tuple(ks))
    assert pooled.shape == (len(ks), classes)
    for row, k in zip(pooled, ks, strict=True):
        np.testing.assert_allclose(row, slow_top_k(scores, k), rtol=0, atol=1e-6)


def test_two_k_beyond_the_number_of_tiles_give_the_mean_over_all() -> None:
    scores = np.array([[0.1, 0.9], [0.3, 0.2], [0.2, 0.1]], np.float32)
    pooled = pool_top_k(scores, (50, 100))
    np.testing.assert_allclose(pooled, [[0.2, 0.4], [0.2, 0.4]], atol=1e-6)


def test_k_of_one_is_the_maximum_and_classes_choose_their_own_tiles() -> None:
    scores = np.array([[0.9, 0.0], [0.0, 0.8], [0.1, 0.1]], np.float32)
    np.testing.assert_allclose(pool_top_k(scores, (1, 2)), [[0.9, 0.8], [0.5, 0.45]], atol=1e-6)


def test_pooling_ignores_the_order_of_tiles() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(200, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        pool_top_k(scores, (1, 5, 50)), pool_top_k(rng.permutation(scores, axis=0), (1, 5, 50))
    )


def test_agreement_is_the_share_of_k_with_the_same_label() -> None:
    pooled = np.array([[0.9, 0.1], [0.4, 0.5], [0.3, 0.6], [0.2, 0.3]])
    assert agreement(pooled, 1) == 0.75
    assert agreement(pooled, 0) == 0.25


def test_probabilities_are_the_softmax_of_scale_times_cosine() -> None:
    scores = np.array([[0.3, 0.1, -0.2], [1.0, -1.0, 0.0]], np.float32)
    odds = np.exp(100.0 * scores.astype(np.float64))
    np.testing.assert_allclose(probabilities(scores, 100.0), odds / odds.sum(1, keepdims=True), atol=1e-7)
    assert probabilities(np.zeros((0, 3), np.float32), 100.0).shape == (0, 3)


def test_scores_are_cosines_of_what_is_stored() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(7, 5))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    classifier = np.linalg.qr(rng.normal(size=(5, 3)))[0].astype(np.float32)
    scores = score_tiles(features.astype(np.float16), classifier)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, features @ classifier, atol=2e-3)
    np.testing.assert_allclose(score_tiles(classifier.T.astype(np.float32), classifier), np.eye(3), atol=1e-6)


def test_pooling_nothing_is_a_bug_and_says_so() -> None:
    with pytest.raises((ValueError, IndexError)):
        pool_top_k(np.zeros((0, 2), np.float32), (1,))


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
