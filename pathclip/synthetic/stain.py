"""From stain concentrations to colour, with the variation between laboratories and scanners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pathclip.synthetic.noise import Field

__all__ = ["REFERENCE", "Stain", "draw_stain", "render"]


@dataclass(frozen=True, slots=True)
class Stain:
    """How one section was stained and scanned.

    Attributes:
        haematoxylin: Optical density of unit concentration in red, green, blue.
        eosin: The same for eosin.
        h_gain: Strength of the haematoxylin.
        e_gain: Strength of the eosin.
        white: Colour of the empty slide, 0 to 255.
        blur_px: Gaussian radius of the focus.
        grain: Deviation of the sensor noise in grey levels.
    """

    haematoxylin: tuple[float, float, float] = (0.62, 0.70, 0.30)
    eosin: tuple[float, float, float] = (0.12, 0.86, 0.40)
    h_gain: float = 1.0
    e_gain: float = 1.0
    white: tuple[float, float, float] = (246.0, 244.0, 246.0)
    blur_px: float = 0.4
    grain: float = 2.0


REFERENCE = Stain()


def draw_stain(rng: np.random.Generator, spread: float = 1.0) -> Stain:
    """A laboratory by chance: stain colours, strengths, illumination, focus.

    The strengths vary so much that the mean colour of a tile says little about its tissue.

    Args:
        rng: Source of randomness.
        spread: 0 gives the reference stain, 1 the variation met across laboratories.
    """
    base = np.array([REFERENCE.haematoxylin, REFERENCE.eosin])
    vectors = np.clip(base + spread * rng.normal(0, [[0.06, 0.04, 0.05], [0.05, 0.04, 0.07]]), 0.02, None)
    vectors *= np.linalg.norm(base, axis=1, keepdims=True) / np.linalg.norm(vectors, axis=1, keepdims=True)
    common, h_only, e_only = spread * rng.normal(0, [0.26, 0.24, 0.28])
    white = np.clip(REFERENCE.white + spread * (rng.normal(-4, 8) + rng.normal(0, 4, 3)), 200, 254)
    return Stain(
        haematoxylin=tuple(vectors[0].tolist()),
        eosin=tuple(vectors[1].tolist()),
        h_gain=float(np.exp(np.clip(common + h_only, -0.65, 0.55))),
        e_gain=float(np.exp(np.clip(common + e_only, -0.8, 0.75))),
        white=tuple(white.tolist()),
        blur_px=float(0.4 + spread * rng.uniform(-0.2, 0.35)),
        grain=float(2.0 + spread * rng.uniform(-1.0, 1.0)),
    )


def render(h: Field, e: Field, stain: Stain, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mix the two stains in optical density and expose (Beer-Lambert, as Macenko et al. 2009 unmix).

    Args:
        h: (H, W) haematoxylin concentration.
        e: (H, W) eosin concentration.
        stain: The section's stain.
        rng: Source of the sensor noise.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    image = np.empty((*h.shape, 3), np.float32)
    h, e = h * np.float32(-stain.h_gain), e * np.float32(-stain.e_gain)
    for channel in range(3):
        density = h * np.float32(stain.haematoxylin[channel])
        density += e * np.float32(stain.eosin[channel])
        np.multiply(np.exp(density, out=density), np.float32(stain.white[channel]), out=image[..., channel])
    if stain.blur_px > 0:
        picture = Image.fromarray(np.clip(image + 0.5, 0, 255).astype(np.uint8))
        image = np.asarray(picture.filter(ImageFilter.GaussianBlur(stain.blur_px)), np.float32)
    if stain.grain > 0:
        image = image + _grain(rng, h.shape, stain.grain)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _grain(rng: np.random.Generator, shape: tuple[int, int], deviation: float) -> Field:
    """(H, W, 1) sensor noise, nearly the same in all channels; cheap: sixteen random bits a pixel."""
    bits = rng.integers(0, 1 << 16, shape, np.uint16)
    total = (bits & 255).astype(np.float32) + (bits >> 8).astype(np.float32)  # a triangle's shape is enough
    return ((total - 255.0) * np.float32(deviation / 104.5))[..., None]
