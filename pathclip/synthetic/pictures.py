"""The files of a dump: painted tiles in every form in which pictures arrive, and the ones that are broken."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pathclip.synthetic.tiles import generator, paint_tile

__all__ = ["FAULTS", "FORMS", "Picture", "write_picture"]

BOMB_SIDE_PX = 30_000
ORIENTATION, GPS = 0x0112, 0x8825


@dataclass(frozen=True, slots=True)
class Picture:
    """One file to write.

    Attributes:
        path: Where.
        form: A key of `FORMS` or `FAULTS`.
        label: Tissue class, or None where no tissue is shown.
        seed: Seed of the painter.
        size_px: Side of the tile.
        mpp: Micrometres per pixel.
    """

    path: Path
    form: str
    label: str | None
    seed: int
    size_px: int
    mpp: float


def write_picture(picture: Picture) -> None:
    """Write the file; equal pictures give equal bytes."""
    make = FORMS.get(picture.form) or FAULTS[picture.form]
    picture.path.write_bytes(make(picture))


def _tile(picture: Picture) -> Image.Image:
    assert picture.label is not None
    return Image.fromarray(paint_tile(picture.label, picture.seed, picture.size_px, picture.mpp))


def _jpeg(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 88, **options})
    return out.getvalue()


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _rotated(picture: Picture) -> bytes:
    """Lies on its side with orientation 6, and tells where it was taken."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif.get_ifd(GPS).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    return _jpeg(_tile(picture).transpose(Image.Transpose.ROTATE_90), exif=exif.tobytes())


def _transparent(picture: Picture) -> bytes:
    tile = _tile(picture).convert("RGBA")
    mask = Image.new("L", tile.size, 255)
    ImageDraw.Draw(mask).rectangle((0, 0, picture.size_px // 12, picture.size_px // 12), fill=0)
    tile.putalpha(mask)
    return _png(tile)


def _repost(picture: Picture) -> bytes:
    """The same picture, shrunk and compressed once more."""
    side = max(round(picture.size_px * 0.85), 132)
    return _jpeg(_tile(picture).resize((side, side), Image.Resampling.LANCZOS), quality=72)


def _half(picture: Picture) -> bytes:
    data = _jpeg(_tile(picture))
    return data[: len(data) // 2]


def _tiny(picture: Picture) -> bytes:
    return _jpeg(_tile(picture).resize((64, 64), Image.Resampling.BOX))


def _bomb(picture: Picture) -> bytes:
    """A whole PNG of 30000 x 30000 black pixels in about 110 kB."""
    row = bytes(1 + BOMB_SIDE_PX // 8)
    squeeze = zlib.compressobj(1)
    body = b"".join(squeeze.compress(row * 1000) for _ in range(BOMB_SIDE_PX // 1000)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", BOMB_SIDE_PX, BOMB_SIDE_PX, 1, 0, 0, 0, 0)
    chunks = (b"IHDR" + head, b"IDAT" + body, b"IEND")
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def _page(picture: Picture) -> bytes:
    return b"<!DOCTYPE html><html><head><title>404</title></head><body>This page is down</body></html>\n"


def _animation(picture: Picture) -> bytes:
    rng = generator("gif", picture.seed)
    frames = [Image.fromarray(rng.integers(0, 255, (160, 160), np.uint8)) for _ in range(3)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=200)
    return out.getvalue()


def _strip(picture: Picture) -> bytes:
    """A banner far longer than high."""
    return _jpeg(Image.new("RGB", (1300, 150), (30, 60, 90)))


def _landscape(picture: Picture) -> bytes:
    """A holiday picture: sky, hills, sun."""
    rng = generator("landscape", picture.seed)
    size = 240
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    sky = np.stack([0.35 + 0.4 * y, 0.55 + 0.35 * y, 0.95 - 0.1 * y], axis=-1)
    for k, tone in enumerate(((0.35, 0.5, 0.35), (0.22, 0.42, 0.2), (0.13, 0.3, 0.12))):
        ridge = (
            0.5
            + 0.15 * k
            + 0.06 * np.sin(x * rng.uniform(4, 11) + rng.uniform(0, 6))
            + 0.02 * np.sin(31 * x + k)
        )
        sky = np.where((y > ridge)[..., None], np.array(tone, np.float32), sky)
    sun = np.hypot(y - 0.2, x - rng.uniform(0.2, 0.8)) < 0.07
    pixels: NDArray[np.uint8] = (np.where(sun[..., None], (1.0, 0.93, 0.6), sky) * 255).astype(np.uint8)
    return _jpeg(Image.fromarray(pixels))


def _lecture(picture: Picture) -> bytes:
    """A lecture slide: dark title bar, lines of text."""
    rng = generator("lecture", picture.seed)
    page = Image.new("RGB", (320, 240), (250, 250, 252))
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, 320, 34), fill=tuple(int(v) for v in rng.integers(20, 120, 3)))
    draw.text((10, 10), "Colorectal pathology update", fill=(255, 255, 255))
    for line in range(7):
        draw.text(
            (16, 52 + 25 * line),
            "- " + "lorem ipsum dolor sit amet "[: int(rng.integers(12, 27))],
            fill=(30, 30, 40),
        )
    return _jpeg(page)


FORMS: dict[str, Callable[[Picture], bytes]] = {
    "jpeg": lambda p: _jpeg(_tile(p)),
    "jpeg_cmyk": lambda p: _jpeg(_tile(p).convert("CMYK")),
    "jpeg_rotated": _rotated,
    "png": lambda p: _png(_tile(p)),
    "png_transparent": _transparent,
    "repost": _repost,
    "landscape": _landscape,
    "lecture": _lecture,
}
"""Forms that can be read: file format and oddities."""

FAULTS: dict[str, Callable[[Picture], bytes]] = {
    "image_truncated": _half,
    "image_tiny": _tiny,
    "image_oversized": _bomb,
    "not_an_image": _page,
    "image_animated": _animation,
    "image_aspect": _strip,
}
"""Broken forms, named after the code under which ingest rejects them."""
