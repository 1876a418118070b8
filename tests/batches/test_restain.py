from __future__ import annotations

import numpy as np
import pytest

from pathclip.batches.augment import (
    DEVIATION_SPREAD,
    MEAN_SPREAD,
    TILE_DEVIATION,
    TILE_MEAN,
    restain,
)
from pathclip.batches.config import AugmentConfig
from pathclip.synthetic import CLASSES, paint_tile

ALWAYS = AugmentConfig(restain=1)


@pytest.fixture(scope="module")
def tile() -> np.ndarray:
    return paint_tile(CLASSES[0], seed=1, size_px=64)


def test_nothing_changes_unless_asked(tile: np.ndarray) -> None:
    assert restain(tile, AugmentConfig(), np.random.default_rng(0)) is tile


def test_the_share_of_changed_pictures_is_the_one_asked_for(tile: np.ndarray) -> None:
    config = AugmentConfig(restain=0.3)
    changed = sum(restain(tile, config, np.random.default_rng(seed)) is not tile for seed in range(1000))
    assert 250 < changed < 350


def test_equal_seeds_give_equal_colours(tile: np.ndarray) -> None:
    first, second, other = (restain(tile, ALWAYS, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert (first == second).all()
    assert (first != other).any()


def test_colours_are_drawn_as_written_and_do_not_depend_on_the_picture() -> None:
    grey = np.random.default_rng(0).normal(128, 20, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    for picture in (grey, grey // 2, 255 - grey):
        drawn = [restain(picture, ALWAYS, np.random.default_rng(seed)) for seed in range(400)]
        assert np.abs(np.mean([d.mean((0, 1)) for d in drawn], 0) - TILE_MEAN).max() < 8
        deviations = np.mean([d.std((0, 1)) for d in drawn], 0)
        assert (
            np.abs(deviations / TILE_DEVIATION - 1) < 0.35
        ).all()  # less where values are cut at 0 and 255
    assert (np.diag(DEVIATION_SPREAD) > 0).all()


def test_channels_are_drawn_together_with_the_spread_that_is_written() -> None:
    grey = np.random.default_rng(0).normal(128, 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
    drawn = [restain(grey, ALWAYS, np.random.default_rng(seed)) for seed in range(600)]
    means = np.array([d.mean((0, 1)) for d in drawn])
    covariance = MEAN_SPREAD @ MEAN_SPREAD.T
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(spread, [25, 28, 39])
    assert np.abs(means.std(0) / spread - 1).max() < 0.25  # less where values are cut at 255
    assert np.abs(np.corrcoef(means.T) - covariance / np.outer(spread, spread)).max() < 0.15


def test_the_structure_stays(tile: np.ndarray) -> None:
    for seed in range(20):
        changed = restain(tile, ALWAYS, np.random.default_rng(seed))
        green = [picture[..., 1].astype(float).ravel() for picture in (tile, changed)]
        assert np.corrcoef(*green)[0, 1] > 0.85


def test_a_blank_picture_stays_blank() -> None:
    blank = np.full((32, 32, 3), 240, np.uint8)
    assert restain(blank, ALWAYS, np.random.default_rng(0)).std((0, 1)).max() == 0
