"""Augmentation made for stained tissue: where to cut, how to turn, how strongly each stain took."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pathclip.batches.config import AugmentConfig
from pathclip.batches.decode import Box
from pathclip.batches.plip import plip_box, plip_warp

__all__ = ["Change", "change", "choose_box", "draw_change", "jitter_stain", "restain", "turn"]

# Optical density of haematoxylin, eosin and the residual in red, green, blue (Ruifrok & Johnston 2001).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
UNMIX = np.linalg.inv(STAINS)
DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)  # of each 8-bit value


def _together(spread: list[float], correlation: list[list[float]]) -> np.ndarray:
    """(3, 3), which makes of three independent draws three that vary and go together so: a symmetric root."""
    variances, axes = np.linalg.eigh(np.array(correlation))
    return np.array(spread)[:, None] * (axes * np.sqrt(variances)) @ axes.T


# A tile's mean and deviation in red, green, blue: their means over H&E tiles of several laboratories,
# their spreads, and how the channels go together within a tissue (what is dark in one is dark in all).
TILE_MEAN = np.array([170.0, 122.0, 175.0])
MEAN_SPREAD = _together([25, 28, 39], [[1, 0.80, 0.67], [0.80, 1, 0.88], [0.67, 0.88, 1]])
TILE_DEVIATION = np.array([33.0, 41.0, 28.0])
DEVIATION_SPREAD = _together([7, 11, 10], [[1, 0.83, 0.84], [0.83, 1, 0.93], [0.84, 0.93, 1]])
MIN_DEVIATION = 8.0
FLAT = 5.0  # added to a picture's own deviation: flat ones keep from turning to noise


def choose_box(width: int, height: int, config: AugmentConfig, rng: np.random.Generator) -> Box:
    """A random crop: area in [min_scale, 1] of the largest centred square, aspect near 1.

    With ``min_scale`` and ``max_aspect`` 1 it is the centre square.
    """
    if config.recipe == "plip":
        return plip_box(width, height, rng)
    side = min(width, height)
    area = side * side * rng.uniform(config.min_scale, 1)
    aspect = math.exp(rng.uniform(-1, 1) * math.log(config.max_aspect))
    w, h = min(math.sqrt(area * aspect), width), min(math.sqrt(area / aspect), height)
    whole = config.min_scale == 1 and config.max_aspect == 1
    x, y = (0.5, 0.5) if whole else rng.uniform(size=2)
    left, upper = (width - w) * x, (height - h) * y
    if whole:
        left, upper = float(round(left)), float(round(upper))
    return left, upper, left + w, upper + h


@dataclass(frozen=True, slots=True)
class Change:
    """What was drawn for one crop; no number of it hangs on the picture.

    Attributes:
        turns: By a right angle, counterclockwise.
        mirror: Afterwards, left to right.
        colours: Mean and deviation (3,) that `restain` gives the channels; None to leave them.
        stain: float32 (3, 3) and (3,): density -> density @ mix + shift; None to leave it.
    """

    turns: int
    mirror: bool
    colours: tuple[np.ndarray, np.ndarray] | None
    stain: tuple[np.ndarray, np.ndarray] | None


def draw_change(config: AugmentConfig, rng: np.random.Generator) -> Change:
    """All that shall happen to a crop, of the recipe ``tissue``."""
    return Change(*_draw_turn(config, rng), _draw_colours(config, rng), _draw_stain(config, rng))


def change(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """All that happens to a crop, uint8 (H, H, 3)."""
    if config.recipe == "plip":
        return plip_warp(image, rng)
    return jitter_stain(restain(turn(image, config, rng), config, rng), config, rng)


def turn(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Quarter turns and mirrors of a square (H, H, 3) picture; a view."""
    turns, mirror = _draw_turn(config, rng)
    image = np.rot90(image, turns)
    return image[:, ::-1] if mirror else image


def _draw_turn(config: AugmentConfig, rng: np.random.Generator) -> tuple[int, bool]:
    turns, mirror = int(rng.integers(4)), rng.random() < 0.5
    return turns if config.quarter_turns else 0, config.flips and mirror


def jitter_stain(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Scale and shift each stain's concentration: c -> c * U(1 - s, 1 + s) + U(-t, t).

    Args:
        image: uint8 (H, W, 3).
        config: ``stain`` is s, ``stain_shift`` is t.
        rng: Of this sample.

    Source: Tellez et al. 2018, whole-slide mitosis detection (arXiv:1808.05896), section III-C.
    """
    drawn = _draw_stain(config, rng)
    if drawn is None:
        return image
    density = DENSITY[image.reshape(-1, 3)] @ drawn[0]
    density += drawn[1]
    light = np.exp(-density, out=density)
    light *= 256
    light -= 0.5  # minus one, plus a half for rounding
    return np.clip(light, 0, 255, out=light).astype(np.uint8).reshape(image.shape)


def _draw_stain(config: AugmentConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    factors = 1 + config.stain * rng.uniform(-1, 1, 3)
    shifts = config.stain_shift * rng.uniform(-1, 1, 3)
    if not (config.stain or config.stain_shift):
        return None
    mix = (UNMIX @ np.diag(factors) @ STAINS).astype(np.float32)  # density (..., 3) @ mix
    return mix, (shifts @ STAINS).astype(np.float32)


def restain(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Give a share of the pictures the colours of a staining that was drawn at random.

    Each channel is moved and stretched to a mean and a deviation drawn from those of H&E tiles, channels
    together. What remains to learn from is structure, so that a slide of another laboratory is no stranger.

    Args:
        image: uint8 (H, W, 3).
        config: ``restain`` is the share.
        rng: Of this sample.

    Source: after RandStainNA, Shen et al. 2022 (arXiv:2206.12694), in RGB and with fixed statistics.
    """
    drawn = _draw_colours(config, rng)
    if drawn is None:
        return image
    mean, deviation = drawn
    picture = Image.fromarray(np.ascontiguousarray(image))
    shares = np.reshape(picture.histogram(), (3, 256)) / (image.shape[0] * image.shape[1])
    values = np.arange(256)
    own_mean = shares @ values
    own_deviation = np.sqrt(np.maximum(shares @ values**2 - own_mean**2, 0))
    stretch = deviation / (own_deviation + FLAT)
    moved = (values - own_mean[:, None]) * stretch[:, None] + mean[:, None]
    table = np.clip(moved + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(picture.point(table.ravel().tolist()))


def _draw_colours(config: AugmentConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    if not config.restain or rng.random() >= config.restain:
        return None
    mean = TILE_MEAN + MEAN_SPREAD @ rng.standard_normal(3)
    return mean, np.maximum(TILE_DEVIATION + DEVIATION_SPREAD @ rng.standard_normal(3), MIN_DEVIATION)
