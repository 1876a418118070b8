"""Slides through OpenSlide: Aperio, Hamamatsu, Leica, MIRAX, Philips, Ventana, Zeiss, DICOM, tiled TIFF."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import openslide
from PIL import Image, ImageColor

from pathclip.core.errors import FaultError
from pathclip.slides.mosaic import Mosaic
from pathclip.slides.ome import refuse_planes
from pathclip.slides.raw_jpeg import jpeg_grids
from pathclip.slides.slide import Level, UnreadableRegion

__all__ = ["OpenSlideSlide", "is_openslide"]

log = logging.getLogger("pathclip")
RAW_VENDORS = ("aperio", "generic-tiff")  # whose levels are whole pages of a TIFF, tiles side by side


def is_openslide(path: Path) -> bool:
    """Whether OpenSlide knows the format (it may still fail to open it)."""
    try:
        return openslide.OpenSlide.detect_format(path) is not None
    except openslide.OpenSlideError:
        return True  # known, and broken: opening it says how


class OpenSlideSlide:
    """A slide that OpenSlide reads; see `pathclip.slides.slide.Slide`.

    After one decoding error an OpenSlide handle refuses every later read, so a failed region is tried once
    more on a handle of its own, and the shared handle is replaced. Handles are closed when the last thread
    that reads through them lets go.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._handle = handle = openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            raise FaultError(f"slide {path} cannot be opened: {error} (truncated or damaged file?)") from None
        properties = dict(handle.properties)
        self.properties = properties
        self.vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
        self.levels = tuple(
            Level(size, float(downsample))
            for size, downsample in zip(handle.level_dimensions, handle.level_downsamples, strict=True)
        )
        refuse_planes(path, properties.get("tiff.ImageDescription", ""))
        self.bounds = _bounds(properties, self.levels[0].size)
        self.associated = tuple(sorted(handle.associated_images))
        self._background = _background(properties)
        self.mosaic = self._mosaic() if self.vendor in RAW_VENDORS else None
        if self.mosaic is None and "<OME" in properties.get("tiff.ImageDescription", ""):
            log.warning(
                "slide %s: of an OME-TIFF without JPEG tiles only the finest level is read, which is slow; "
                "faster: vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg",
                path.name,
            )

    def read(self, x: int, y: int, level: int, width: int, height: int) -> np.ndarray:
        """See `pathclip.slides.slide.Slide.read`."""
        handle = self._handle
        try:
            return self._read(handle, x, y, level, width, height)
        except openslide.OpenSlideError:
            self._replace(handle)
        try:
            return self._read(openslide.OpenSlide(self.path), x, y, level, width, height)
        except openslide.OpenSlideError as error:
            raise UnreadableRegion(f"{self.path.name} at x={x}, y={y}, level {level}: {error}") from None

    def close(self) -> None:
        """See `pathclip.slides.slide.Slide.close`."""
        self._handle.close()

    def _mosaic(self) -> Mosaic | None:
        grids = jpeg_grids(self.path, [level.size for level in self.levels])
        return Mosaic(grids, self._background) if any(grids) else None

    def _read(
        self, handle: openslide.OpenSlide, x: int, y: int, level: int, width: int, height: int
    ) -> np.ndarray:
        region = handle.read_region((x, y), level, (width, height))
        if region.getextrema()[3] == (255, 255):
            return np.asarray(region.convert("RGB"))
        flat = Image.new("RGB", region.size, self._background)
        flat.paste(region, mask=region)  # transparent is "never scanned"; plain convert("RGB") makes it black
        return np.asarray(flat)

    def _replace(self, broken: openslide.OpenSlide) -> None:
        with self._lock:
            if self._handle is broken:
                try:
                    self._handle = openslide.OpenSlide(self.path)
                except openslide.OpenSlideError as error:
                    raise FaultError(
                        f"slide {self.path} changed or vanished while being read: {error}"
                    ) from None


def _bounds(properties: dict[str, str], size: tuple[int, int]) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (
            int(properties[f"openslide.bounds-{k}"]) for k in ("x", "y", "width", "height")
        )
    except (KeyError, ValueError):
        return (0, 0, *size)
    return x, y, min(width, size[0] - x), min(height, size[1] - y)


def _background(properties: dict[str, str]) -> tuple[int, int, int]:
    try:
        return ImageColor.getrgb("#" + properties[openslide.PROPERTY_NAME_BACKGROUND_COLOR])[:3]
    except (KeyError, ValueError):
        return (255, 255, 255)
