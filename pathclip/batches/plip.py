"""The picture transform that PLIP was trained with, for those who repeat its recipe."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pathclip.batches.decode import Box

__all__ = ["plip_box", "plip_warp"]

SHORT_SIDE_PX, CROP_PX = 512, 224  # of the picture when it is cut
DEGREES, TRANSLATION, SCALES, SHEAR_DEGREES = 10.0, 0.1, (0.8, 1.2), 15.0
DISTORTION, DISTORTED_SHARE = 0.3, 0.3
FILL = [127.0]


def plip_box(width: int, height: int, rng: np.random.Generator) -> Box:
    """A square of 224/512 of the short side, anywhere: a fifth of a square picture, at its scale."""
    side = min(width, height) * CROP_PX / SHORT_SIDE_PX
    left, upper = (width - side) * rng.uniform(), (height - side) * rng.uniform()
    return left, upper, left + side, upper + side


def plip_warp(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror, affine change, and of three pictures in ten a change of perspective; what opens is grey.

    Args:
        image: uint8 (H, H, 3), the crop.
        rng: Of this sample.

    Source: ``embedders/transform.py`` of PLIP; numbers drawn as torchvision's RandomAffine and
    RandomPerspective draw them, but from the sample's own generator.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    side = image.shape[0]
    if rng.random() < 0.5:
        image = image[:, ::-1]
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture = F.affine(
        picture,
        angle=float(rng.uniform(-DEGREES, DEGREES)),
        translate=[round(float(t)) for t in rng.uniform(-TRANSLATION * side, TRANSLATION * side, 2)],
        scale=float(rng.uniform(*SCALES)),
        shear=[float(s) for s in rng.uniform(-SHEAR_DEGREES, SHEAR_DEGREES, 2)],
        interpolation=InterpolationMode.BILINEAR,
        fill=FILL * 3,
    )
    if rng.random() < DISTORTED_SHARE:
        corners = [[0, 0], [side - 1, 0], [side - 1, side - 1], [0, side - 1]]
        inward = rng.integers(0, int(DISTORTION * (side // 2)) + 1, (4, 2)).tolist()
        moved = [[abs(x - dx), abs(y - dy)] for (x, y), (dx, dy) in zip(corners, inward, strict=True)]
        picture = F.perspective(
            picture, corners, moved, interpolation=InterpolationMode.BILINEAR, fill=FILL * 3
        )
    return np.asarray(picture)
