from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathclip.slides import pool_top_k
from pathclip.slides.pool import agreement, probabilities, score_tiles


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
