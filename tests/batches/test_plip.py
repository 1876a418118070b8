"""PLIP's transform against torchvision's own classes, whose numbers ours must look like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from pathclip.batches import AugmentConfig
from pathclip.batches.augment import change, choose_box
from pathclip.synthetic import CLASSES, paint_tile

PLIP = AugmentConfig(recipe="plip")
THEIRS = v2.Compose(
    [
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(10, (0.1, 0.1), (0.8, 1.2), (-15, 15, -15, 15), InterpolationMode.BILINEAR, 127),
        v2.RandomPerspective(0.3, 0.3, InterpolationMode.BILINEAR, 127),
    ]
)


@pytest.mark.parametrize(("width", "height"), [(512, 512), (700, 512), (160, 320)])
def test_the_crop_is_of_its_scale_and_lies_anywhere(width: int, height: int) -> None:
    boxes = np.array([choose_box(width, height, PLIP, np.random.default_rng(seed)) for seed in range(300)])
    side = min(width, height) * 224 / 512
    assert np.allclose(boxes[:, 2:] - boxes[:, :2], side)
    assert boxes.min() >= 0
    assert (boxes[:, 2:].max(0) <= (width, height)).all()
    room = np.array([width, height]) - side
    assert np.allclose(boxes[:, :2].mean(0), room / 2, atol=0.1 * room.max())
    assert (boxes[:, :2].max(0) > 0.97 * room).all()


def test_pictures_are_changed_as_much_as_by_torchvision() -> None:
    tile = paint_tile(CLASSES[0], seed=1, size_px=96)
    ours = np.stack([change(tile, PLIP, np.random.default_rng(seed)) for seed in range(1500)]).astype(float)
    torch.manual_seed(0)
    picture = Image.fromarray(tile)
    theirs = np.stack([np.asarray(THEIRS(picture)) for _ in range(1500)]).astype(float)
    assert change(tile, PLIP, np.random.default_rng(0)).dtype == np.uint8
    grey = [(many == 127).all(-1).mean() for many in (ours, theirs)]
    assert grey[0] == pytest.approx(grey[1], abs=0.01)
    assert abs(ours.mean(0) - theirs.mean(0)).mean() < 2.5  # standard error of a pixel: about 1
    assert abs(ours.std(0) - theirs.std(0)).mean() < 2.5


def test_equal_seeds_give_equal_pictures_and_touch_no_other_generator() -> None:
    tile = paint_tile(CLASSES[0], seed=1, size_px=64)
    before = torch.get_rng_state()
    first, second, other = (change(tile, PLIP, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert (first == second).all()
    assert (first != other).any()
    assert torch.equal(before, torch.get_rng_state())


def test_the_recipe_takes_no_other_values() -> None:
    with pytest.raises(ValueError, match=r"takes no flips, stain"):
        AugmentConfig(recipe="plip", stain=0.3, flips=False)
