"""A plain picture (PNG, JPEG, untiled TIFF, ...) as a slide of one level."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pathclip.core.errors import FaultError
from pathclip.slides.ome import refuse_planes
from pathclip.slides.slide import Level

__all__ = ["PictureSlide"]

IMAGE_DESCRIPTION = 270  # TIFF's tag


class PictureSlide:
    """A picture held in memory; see `pathclip.slides.slide.Slide`.

    Pillow refuses pictures beyond about 179 million pixels before decoding them; so do we, naming the remedy.
    """

    vendor = "picture"
    associated: tuple[str, ...] = ()
    mosaic = None

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the hard limit stays
                warnings.simplefilter("ignore", UserWarning)  # odd metadata; what matters fails below
                with Image.open(path) as image:
                    self.properties = _properties(image)
                    refuse_planes(path, self.properties.get("tiff.ImageDescription", ""))
                    self._pixels = _flatten(image)
        except Image.DecompressionBombError:
            raise FaultError(
                f"picture {path} is too large to be held in memory; convert it to a pyramid first, for "
                "example with: vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg"
            ) from None
        except UnidentifiedImageError:
            raise FaultError(
                f"slide {path} cannot be opened: neither a slide format that OpenSlide reads nor a picture "
                "(truncated, damaged, or another kind of file)"
            ) from None
        except (OSError, SyntaxError, ValueError) as error:
            raise FaultError(f"picture {path} cannot be decoded: {error} (truncated or damaged?)") from None
        height, width = self._pixels.shape[:2]
        self.levels = (Level((width, height), 1.0),)
        self.bounds = (0, 0, width, height)

    def read(self, x: int, y: int, level: int, width: int, height: int) -> np.ndarray:
        """See `pathclip.slides.slide.Slide.read`."""
        if level != 0:
            raise IndexError(f"a picture has one level, asked for {level}")
        tile = np.full((height, width, 3), 255, np.uint8)
        full_height, full_width = self._pixels.shape[:2]
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, full_width), min(y + height, full_height)
        if x1 > x0 and y1 > y0:
            tile[y0 - y : y1 - y, x0 - x : x1 - x] = self._pixels[y0:y1, x0:x1]
        return tile

    def close(self) -> None:
        """See `pathclip.slides.slide.Slide.close`."""


def _flatten(image: Image.Image) -> np.ndarray:
    if image.mode.startswith(("I;16", "I", "F")):
        raise FaultError(
            f"picture {image.filename} is 16-bit or float grey (mode {image.mode}); expected 8-bit colour"
        )
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        flat = Image.new("RGB", layer.size, (255, 255, 255))
        flat.paste(layer, mask=layer)
        return np.asarray(flat)
    return np.asarray(image.convert("RGB"))


def _properties(image: Image.Image) -> dict[str, str]:
    properties = {"picture.format": image.format or "unknown"}
    if profile := image.info.get("icc_profile"):
        properties["picture.icc-size"] = str(len(profile))
    dpi = image.info.get("dpi")
    if dpi and dpi[0] > 0 and dpi[1] > 0:
        properties |= {"picture.dpi-x": str(float(dpi[0])), "picture.dpi-y": str(float(dpi[1]))}
    description = getattr(image, "tag_v2", {}).get(IMAGE_DESCRIPTION)
    if isinstance(description, str):
        properties["tiff.ImageDescription"] = description  # of an OME-TIFF, with its scale
    return properties
