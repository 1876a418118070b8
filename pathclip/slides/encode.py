"""Tiles to features: threads read and shrink, the encoder works through uint8 batches."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pathclip.core.errors import FaultError
from pathclip.slides.mosaic import BrokenTile
from pathclip.slides.slide import Slide, UnreadableRegion
from pathclip.slides.spool import FeatureSpool
from pathclip.slides.tiling import LEVEL_SLACK, TilePlan

if TYPE_CHECKING:
    from pathclip.encoders import DualEncoder

__all__ = [
    "BATCHES_AHEAD",
    "Features",
    "Gathering",
    "encode_batch",
    "encode_tiles",
    "read_tile",
    "read_tiles",
]

BATCHES_AHEAD = 3
BATCHES_PER_COPY = 16  # a copy from the device waits for it, so not one per batch
# What the inverse transform leaves out differs at the finest detail from what a filter does. Small encoders
# see that: cosines down to 0.98 for 80 px, but 0.999 where a filter still has to shrink threefold.
SMALL_PX, SMALL_MARGIN = 128, 3.0
Box = tuple[float, float, float, float]  # left, upper, right, lower


@dataclass(frozen=True, slots=True)
class Features:
    """What the encoder saw.

    Attributes:
        values: (N, D) float16, unit length; as stored, so that cached features score exactly the same. In the
            spool, where one was given.
        readable: (M,) bool over the plan's M tiles; N of them are true.
        first_error: What the first unreadable tile said, or None.
    """

    values: np.ndarray | FeatureSpool
    readable: np.ndarray
    first_error: str | None


def read_tile(slide: Slide, plan: TilePlan, index: int, side_px: int) -> np.ndarray:
    """One tile of the plan, shrunk by area and never by plain interpolation.

    Where the file's own tiles can be decoded at the plan's scale, as a 40x scan for 20x, they are.

    Returns:
        (side_px, side_px, 3) uint8.

    Raises:
        UnreadableRegion: If it cannot be decoded.
    """
    x, y = plan.xy[index].tolist()
    found = _decoded(slide, plan, x, y, side_px)
    if found is None:
        found = slide.read(x, y, plan.level, plan.read_px, plan.read_px), (0.0, 0.0, *(2 * [plan.read_px]))
    return _resized(*found, side_px)


def _decoded(slide: Slide, plan: TilePlan, x: int, y: int, side_px: int) -> tuple[np.ndarray, Box] | None:
    """Pixels around a tile from the file's own, decoded at a fraction of their size; its place in them."""
    at_most = plan.scale * LEVEL_SLACK
    if side_px < SMALL_PX:
        at_most = min(at_most, plan.read_px / side_px / SMALL_MARGIN)
    if slide.mosaic is None or not (shrink := slide.mosaic.shrink(plan.level, at_most)):
        return None  # the file cannot be read this way
    down = slide.levels[plan.level].downsample * shrink
    side = plan.read_px / shrink
    left, upper = math.floor(x / down), math.floor(y / down)
    box = x / down - left, y / down - upper, x / down - left + side, y / down - upper + side
    around = left, upper, left + math.ceil(box[2] - 1e-6), upper + math.ceil(box[3] - 1e-6)
    try:
        return slide.mosaic.read(plan.level, shrink, around), box
    except BrokenTile:
        return None  # the slower reader has the last word


def _resized(pixels: np.ndarray, box: Box, side_px: int) -> np.ndarray:
    """Antialiased bicubic; on whole pixels torch's, which agrees with Pillow's in a fifth of its time."""
    height, width = pixels.shape[:2]
    if max(abs(box[0]), abs(box[1]), abs(box[2] - width), abs(box[3] - height)) > 1e-3:
        box = box[0], box[1], min(box[2], width), min(box[3], height)
        picture = Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.BICUBIC, box=box)
        return np.asarray(picture)
    if height == width == side_px:
        return pixels
    channels_last = torch.from_numpy(np.require(pixels, requirements="CW"))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(channels_last, (side_px, side_px), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def read_tiles(
    slide: Slide, plan: TilePlan, side_px: int, *, threads: int, ahead: int
) -> Iterator[np.ndarray | UnreadableRegion]:
    """Every tile of the plan in order, read by threads that keep at most ``ahead`` of them waiting."""

    def read(index: int) -> np.ndarray | UnreadableRegion:
        try:
            return read_tile(slide, plan, index, side_px)
        except UnreadableRegion as error:
            return error

    waiting: deque[Future[np.ndarray | UnreadableRegion]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="tiles") as pool:
        indices = iter(range(len(plan.xy)))
        try:
            for index in islice(indices, ahead):
                waiting.append(pool.submit(read, index))
            while waiting:
                tile = waiting.popleft().result()
                for index in islice(indices, 1):
                    waiting.append(pool.submit(read, index))
                yield tile
        finally:
            for future in waiting:
                future.cancel()


def encode_tiles(
    slide: Slide,
    plan: TilePlan,
    model: DualEncoder,
    *,
    batch_size: int = 64,
    threads: int = 4,
    max_unreadable: float = 0.05,
    spool: FeatureSpool | None = None,
    tiles: Iterator[np.ndarray | UnreadableRegion] | None = None,
    pad: bool = False,
) -> Features:
    """Encode the tiles of a plan; those that cannot be read are left out and counted.

    Args:
        slide: An open slide.
        plan: Its tiles.
        model: The encoder; tiles reach it as uint8 at its own image size, on its own device.
        batch_size: Tiles per forward pass.
        threads: Reading threads, which share the slide's handle.
        max_unreadable: Largest share of unreadable tiles.
        spool: Empty; takes the features as they come, where memory should not grow with the slide.
        tiles: From `read_tiles` of this plan, where reading has begun elsewhere.
        pad: Fill the last batch up, as a compiled model wants all of one shape.

    Raises:
        FaultError: If more tiles than that are unreadable.
    """
    if tiles is None:
        tiles = read_tiles(slide, plan, model.image_size, threads=threads, ahead=BATCHES_AHEAD * batch_size)
    gathering = Gathering(slide.path, len(plan.xy), model.embed_dim, max_unreadable, spool)
    with model.evaluating():
        while batch := list(islice(tiles, batch_size)):
            good = [tile for tile in batch if gathering.expects(tile)]
            gathering.check()
            if good:
                gathering.add(encode_batch(model, good, batch_size if pad else 0))
    return gathering.result()


class Gathering:
    """The features of one slide as they come, in the order of its tiles.

    Args:
        path: The slide, for messages.
        count: Its tiles.
        dim: D.
        max_unreadable: Largest share of unreadable tiles.
        spool: Empty; takes the features as they come.
    """

    def __init__(
        self, path: Path, count: int, dim: int, max_unreadable: float, spool: FeatureSpool | None = None
    ) -> None:
        self.path, self.dim, self.max_unreadable, self.spool = path, dim, max_unreadable, spool
        self.readable = np.ones(count, bool)
        self.first_error: str | None = None
        self._seen = 0
        self._blocks: list[torch.Tensor] = []
        self._kept = [np.zeros((0, dim), np.float16)]

    def expects(self, tile: np.ndarray | UnreadableRegion) -> bool:
        """Note the next tile of the plan; whether its feature is to follow."""
        self._seen += 1
        if isinstance(tile, UnreadableRegion):
            self.readable[self._seen - 1] = False
            self.first_error = self.first_error or str(tile)
        return not isinstance(tile, UnreadableRegion)

    def check(self) -> None:
        """See that enough could be read.

        Raises:
            FaultError: If too many tiles could not.
        """
        bad, count = int((~self.readable).sum()), len(self.readable)
        if bad > self.max_unreadable * count:
            raise FaultError(
                f"slide {self.path}: {bad} of {count} tiles cannot be read, more than "
                f"{self.max_unreadable:.0%} (max_unreadable); the first: {self.first_error}"
            )

    def add(self, rows: torch.Tensor) -> None:
        """(n, D) float16 of the next n tiles that were expected, on any device."""
        self._blocks.append(rows)
        if len(self._blocks) >= BATCHES_PER_COPY:
            self._keep()

    def result(self) -> Features:
        """All that came."""
        self._keep()
        values = self.spool if self.spool is not None else np.concatenate(self._kept)
        return Features(values, self.readable, self.first_error)

    def _keep(self) -> None:
        if self._blocks:
            rows = torch.cat(self._blocks).cpu().numpy()
            self._kept.append(rows) if self.spool is None else self.spool.add(rows)
            self._blocks.clear()


@torch.inference_mode()
def encode_batch(model: DualEncoder, tiles: list[np.ndarray], pad_to: int = 0) -> torch.Tensor:
    """Features of tiles in one forward pass, with as many black ones behind them as lack to ``pad_to``.

    Returns:
        (len(tiles), D) float16 of unit length, on the model's device.
    """
    black = [np.zeros_like(tiles[0])] * (pad_to - len(tiles))
    pixels = torch.from_numpy(np.stack([*tiles, *black])).permute(0, 3, 1, 2)  # (B, 3, H, W), channels last
    if model.device.type == "cuda":
        pixels = pixels.pin_memory()
    rows = model.encode_pixels(pixels.to(model.device, non_blocking=True), normalize=True).half()
    return rows[: len(tiles)]
