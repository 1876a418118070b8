"""The sheet tissue is painted on: how much haematoxylin and eosin each pixel holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pathclip.synthetic.noise import Field, smooth_field

__all__ = ["Canvas", "Window"]


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of the canvas with the positions of its pixels relative to a centre.

    Attributes:
        rows: Slice of canvas rows.
        columns: Slice of canvas columns.
        dy: (h, 1) distance from the centre in micrometres, downwards.
        dx: (1, w) distance from the centre in micrometres, to the right.
    """

    rows: slice
    columns: slice
    dy: Field
    dx: Field


class Canvas:
    """Two stain concentrations per pixel, painted in micrometres.

    Args:
        shape: (H, W) in pixels.
        mpp: Micrometres per pixel.
        rng: Source of all randomness of this sheet.

    Attributes:
        h: (H, W) float32 haematoxylin; about 1.5 in a dark nucleus.
        e: (H, W) float32 eosin; about 0.6 in collagen.
    """

    def __init__(self, shape: tuple[int, int], mpp: float, rng: np.random.Generator) -> None:
        self.shape, self.mpp, self.rng = shape, mpp, rng
        self.size_um = (shape[0] * mpp, shape[1] * mpp)
        self.h: Field = np.zeros(shape, np.float32)
        self.e: Field = np.zeros(shape, np.float32)

    def noise(self, scale_um: float) -> Field:
        """(H, W) smooth noise with bumps ``scale_um`` wide, zero mean, unit deviation."""
        return smooth_field(self.rng, self.shape, scale_um / self.mpp)

    def positions(self) -> tuple[Field, Field]:
        """(H, 1) and (1, W) positions of the pixel centres in micrometres."""
        y = (np.arange(self.shape[0], dtype=np.float32)[:, None] + 0.5) * np.float32(self.mpp)
        x = (np.arange(self.shape[1], dtype=np.float32)[None, :] + 0.5) * np.float32(self.mpp)
        return y, x

    def window(self, y_um: float, x_um: float, radius_um: float) -> Window | None:
        """The pixels within a square around a point, or None where none is on the canvas."""
        top = max(int((y_um - radius_um) / self.mpp), 0)
        left = max(int((x_um - radius_um) / self.mpp), 0)
        bottom = min(int((y_um + radius_um) / self.mpp) + 1, self.shape[0])
        right = min(int((x_um + radius_um) / self.mpp) + 1, self.shape[1])
        if top >= bottom or left >= right:
            return None
        dy = (np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5) * self.mpp - y_um
        dx = (np.arange(left, right, dtype=np.float32)[None, :] + 0.5) * self.mpp - x_um
        return Window(slice(top, bottom), slice(left, right), dy.astype(np.float32), dx.astype(np.float32))

    def blend(self, window: Window, alpha: Field, h: Field | float, e: Field | float) -> None:
        """Lay a paint over a window: ``alpha`` 1 covers what was there, 0 leaves it."""
        for plane, value in ((self.h, h), (self.e, e)):
            part = plane[window.rows, window.columns]
            part += alpha * (value - part)

    def cover(self, alpha: Field, h: Field | float, e: Field | float) -> None:
        """`blend` over the whole canvas."""
        self.h += alpha * (h - self.h)
        self.e += alpha * (e - self.e)

    def stamp(self, y_um: float, x_um: float, keep: Field, h: Field, e: Field) -> None:
        """Paste a small prepared picture centred on a point; ``h`` and ``e`` are premultiplied by alpha.

        Args:
            y_um: Centre.
            x_um: Centre.
            keep: (k, k) what remains of the ground: one minus alpha.
            h: (k, k) haematoxylin times alpha.
            e: (k, k) eosin times alpha.
        """
        side = keep.shape[0]
        top, left = int(y_um / self.mpp - side / 2 + 0.5), int(x_um / self.mpp - side / 2 + 0.5)
        a, b = max(-top, 0), min(side, self.shape[0] - top)
        c, d = max(-left, 0), min(side, self.shape[1] - left)
        if a >= b or c >= d:
            return
        here, there = (slice(top + a, top + b), slice(left + c, left + d)), (slice(a, b), slice(c, d))
        for plane, paint in ((self.h, h), (self.e, e)):
            part = plane[here]
            part *= keep[there]
            part += paint[there]
