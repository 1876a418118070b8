"""One protocol for every kind of slide file, and the function that opens them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pathclip.core.errors import FaultError, UserError
from pathclip.slides.mosaic import Mosaic

__all__ = ["Level", "Slide", "UnreadableRegion", "check_file", "has_icc_profile", "open_slide"]


class UnreadableRegion(Exception):
    """A region of an open slide that cannot be decoded; the slide itself stays usable."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide.

    Attributes:
        size: (width, height) in pixels of this level.
        downsample: Level-0 pixels per pixel of this level, >= 1.
    """

    size: tuple[int, int]
    downsample: float


class Slide(Protocol):
    """A picture too large for memory, at one or more resolutions. Reading is safe from several threads."""

    path: Path
    vendor: str
    levels: tuple[Level, ...]  # finest first
    bounds: tuple[int, int, int, int]  # x, y, width, height of the scanned area in level-0 pixels
    properties: Mapping[str, str]
    associated: tuple[str, ...]  # names of label, macro and thumbnail pictures
    mosaic: Mosaic | None  # the file's own tiles, where they can be decoded at a smaller size

    def read(self, x: int, y: int, level: int, width: int, height: int) -> np.ndarray:
        """Read a region.

        Args:
            x: Left edge in level-0 pixels.
            y: Upper edge in level-0 pixels.
            level: Index into `levels`.
            width: In pixels of that level.
            height: In pixels of that level.

        Returns:
            (height, width, 3) uint8. What lies outside the slide, or was never scanned, is white or the
            file's own background colour.

        Raises:
            UnreadableRegion: If the region cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Give the file back."""
        ...


def check_file(path: Path) -> None:
    """Say what is wrong with a path before any reader tries it.

    Raises:
        UserError: If it is missing, a folder or unreadable.
        FaultError: If it is empty.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a slide; name the slides in it, for example '{path}/*.svs'")
    if not path.exists():
        raise UserError(f"slide {path} does not exist")
    try:
        with open(path, "rb") as handle:
            if not handle.read(1):
                raise FaultError(f"slide {path} is an empty file (0 bytes)")
    except PermissionError:
        raise UserError(f"slide {path} cannot be read: permission denied") from None


def has_icc_profile(slide: Slide) -> bool:
    """Whether the file says how its colours are meant; noted and not applied: encoders saw raw colours."""
    return any(int(slide.properties.get(f"{who}.icc-size", "0")) > 0 for who in ("openslide", "picture"))


def open_slide(path: str | Path) -> Slide:
    """Open a whole-slide image, a DeepZoom folder by its .dzi, or a plain picture as a slide of one level.

    Raises:
        UserError: If the path is missing or a folder.
        FaultError: If the file cannot be read as a slide or a picture.
    """
    from pathclip.slides.dzi_slide import DziSlide
    from pathclip.slides.openslide_slide import OpenSlideSlide, is_openslide
    from pathclip.slides.picture_slide import PictureSlide

    path = Path(path)
    check_file(path)
    if path.suffix.lower() == ".dzi":
        return DziSlide(path)
    return OpenSlideSlide(path) if is_openslide(path) else PictureSlide(path)
