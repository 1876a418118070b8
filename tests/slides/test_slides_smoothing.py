from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slide_fakes import MeanColour

from pathclip.slides import SlideConfig, SlidePrediction, rescore
from pathclip.slides.smoothing import TIE_PX, smooth_scores


def grid(columns: int, rows: int, stride: float) -> np.ndarray:
    index = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2)
    return np.rint(index * stride).astype(np.int32)


def slow_smoothing(scores: np.ndarray, xy: np.ndarray, k: int) -> np.ndarray:
    """All distances, one tile after the other; those tied for the last places share them."""
    out = []
    for here in xy.astype(float):
        distance = np.sqrt(((xy - here) ** 2).sum(axis=1))
        last = sorted(distance)[k - 1]
        nearer = [i for i, d in enumerate(distance) if d < last - TIE_PX]
        tied = [i for i, d in enumerate(distance) if abs(d - last) <= TIE_PX]
        share = (k - len(nearer)) / len(tied)
        out.append((scores[nearer].sum(axis=0) + share * scores[tied].sum(axis=0)) / k)
    return np.array(out)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(1, 40), st.sampled_from([64.0, 128.257, 700.3]))
def test_smoothing_equals_the_slow_reference(seed: int, tiles: int, k: int, stride: float) -> None:
    rng = np.random.default_rng(seed)
    xy = rng.permutation(grid(9, 8, stride))[:tiles]
    scores = rng.uniform(-1, 1, (tiles, 3)).astype(np.float32)
    found = smooth_scores(scores, xy, k)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_smoothing(scores, xy, min(k, tiles)), atol=1e-6)


@pytest.mark.parametrize("stride", [128.0, 137.257])
def test_a_tile_within_a_grid_is_averaged_with_itself_its_sides_and_three_quarters_of_each_corner(
    stride: float,
) -> None:
    scores = np.zeros((25, 1), np.float32)
    scores[12] = 8
    found = smooth_scores(scores, grid(5, 5, stride), 8).reshape(5, 5)
    expected = np.array([[0.75, 1, 0.75], [1, 1, 1], [0.75, 1, 0.75]])
    np.testing.assert_allclose(found[1:4, 1:4], expected, atol=1e-6)


def test_no_direction_is_favoured() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(7, 11, 2)).astype(np.float32)
    xy = grid(11, 7, 97.3)
    plain = smooth_scores(scores.reshape(-1, 2), xy, 8).reshape(7, 11, 2)
    for turn in (np.s_[::-1], np.s_[:, ::-1], np.s_[::-1, ::-1]):
        turned = smooth_scores(scores[turn].reshape(-1, 2), xy, 8).reshape(7, 11, 2)
        np.testing.assert_allclose(turned[turn], plain, atol=1e-6)


def test_the_order_of_tiles_does_not_matter_and_equal_scores_stay() -> None:
    rng = np.random.default_rng(2)
    xy, scores = grid(12, 9, 200.5), rng.normal(size=(108, 3)).astype(np.float32)
    order = rng.permutation(108)
    np.testing.assert_allclose(
        smooth_scores(scores[order], xy[order], 8), smooth_scores(scores, xy, 8)[order], atol=1e-6
    )
    np.testing.assert_allclose(smooth_scores(np.full((108, 1), 0.25), xy, 8), 0.25, atol=1e-7)
    np.testing.assert_array_equal(smooth_scores(scores, xy, 8), smooth_scores(scores, xy, 8))


def test_with_at_most_one_tile_or_neighbour_nothing_changes() -> None:
    scores = np.array([[0.3, 0.1]], np.float32)
    assert smooth_scores(scores, np.zeros((1, 2)), 8) is scores
    assert smooth_scores(np.zeros((0, 2)), np.zeros((0, 2)), 8).shape == (0, 2)
    two = np.array([[0.0], [1.0]], np.float32)
    assert smooth_scores(two, grid(2, 1, 64), 1) is two
    np.testing.assert_allclose(smooth_scores(two, grid(2, 1, 64), 8), [[0.5], [0.5]])


def test_tiles_at_one_place_are_no_trouble() -> None:
    scores = np.arange(6, dtype=np.float32)[:, None]
    np.testing.assert_allclose(smooth_scores(scores, np.zeros((6, 2)), 3), 2.5)


def test_a_hundred_thousand_tiles_take_seconds() -> None:
    scores = np.random.default_rng(0).normal(size=(100_000, 8)).astype(np.float32)
    started = time.process_time()
    smooth_scores(scores, grid(400, 250, 224.0), 8)
    assert time.process_time() - started < 10


def test_an_odd_tile_is_outvoted_before_pooling_and_in_what_is_written(
    prediction: SlidePrediction, config: SlideConfig
) -> None:
    plain = rescore(prediction.slide, MeanColour(), {"pink": ["pink"], "purple": ["purple"]}, config)
    smooth = rescore(
        prediction.slide,
        MeanColour(),
        {"pink": ["pink"], "purple": ["purple"]},
        config.replace(smooth=8),
    )
    np.testing.assert_allclose(smooth.tile_scores, slow_smoothing(plain.tile_scores, plain.xy, 8), atol=1e-6)
    odds = np.exp(50.0 * smooth.tile_scores.astype(np.float64))
    np.testing.assert_allclose(smooth.tile_probabilities, odds / odds.sum(1, keepdims=True), atol=1e-5)
    assert smooth.scores[1]["purple"] == smooth.tile_scores[:, 1].max() < plain.scores[1]["purple"]
    assert smooth.provenance["smooth"] == 8
    np.testing.assert_array_equal(smooth.slide.features, plain.slide.features)
