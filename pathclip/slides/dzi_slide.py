"""DeepZoom folders: ``NAME.dzi`` beside ``NAME_files/LEVEL/COLUMN_ROW.jpg``, as vips writes them."""

from __future__ import annotations

import io
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import simplejpeg
from PIL import Image

from pathclip.core.errors import FaultError
from pathclip.slides.mosaic import BrokenTile, Mosaic, TileGrid
from pathclip.slides.slide import Level, UnreadableRegion

__all__ = ["DziSlide"]

MAX_XML_BYTES = 1 << 20
MAX_SIDE_PX = 1 << 22
SMALLEST_LEVEL_PX = 256  # what lies below is never read
FORMATS = ("jpg", "jpeg", "png", "webp")


class DziSlide:
    """A DeepZoom pyramid; see `pathclip.slides.slide.Slide`. Every level is half as large as the one before.

    The format states no scale; where vips left its ``vips-properties.xml``, that of the scanner is there.
    """

    vendor = "deepzoom"
    associated: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = path.with_name(f"{path.stem}_files")
        image = _xml(path)
        size = next((child for child in image if _tag(child) == "Size"), None)
        try:
            assert size is not None
            assert _tag(image) == "Image"
            width, height = int(size.attrib["Width"]), int(size.attrib["Height"])
            self._tile_px, self._overlap = int(image.attrib["TileSize"]), int(image.attrib["Overlap"])
            self._suffix = image.attrib["Format"].lower()
        except (AssertionError, KeyError, ValueError):
            raise FaultError(
                f"slide {path} is no DeepZoom description: expected Image with TileSize, Overlap and Format, "
                "and in it Size with Width and Height"
            ) from None
        if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX and 16 <= self._tile_px <= 8192):
            raise FaultError(f"slide {path}: {width} x {height} px in tiles of {self._tile_px} px is absurd")
        if not 0 <= self._overlap < self._tile_px or self._suffix not in FORMATS:
            raise FaultError(
                f"slide {path}: overlap {self._overlap}, format {self._suffix!r}; known formats: "
                f"{', '.join(FORMATS)}"
            )
        self._top = math.ceil(math.log2(max(width, height)))
        if not (self._folder / str(self._top)).is_dir():
            raise FaultError(
                f"slide {path}: its tiles are not there; expected {self._folder / str(self._top)}"
            )
        halvings = [0, *(i for i in range(1, self._top + 1) if self._has(i, max(width, height)))]
        # sides are rounded up at every level, so the power of two, not their ratio, says where a pixel lies
        self.levels = tuple(Level((-(-width // 2**i), -(-height // 2**i)), float(2**i)) for i in halvings)
        self.bounds = (0, 0, width, height)
        self.properties = _vips_properties(self._folder / "vips-properties.xml")
        self.mosaic = Mosaic([self._grid(i, level) for i, level in zip(halvings, self.levels, strict=True)])

    def read(self, x: int, y: int, level: int, width: int, height: int) -> np.ndarray:
        """See `pathclip.slides.slide.Slide.read`."""
        down = self.levels[level].downsample
        left, upper = round(x / down), round(y / down)
        try:
            return self.mosaic.read(level, 1, (left, upper, left + width, upper + height))
        except BrokenTile as error:
            raise UnreadableRegion(f"{self.path.name} at x={x}, y={y}, level {level}: {error}") from None

    def close(self) -> None:
        """See `pathclip.slides.slide.Slide.close`."""

    def _has(self, halvings: int, longer_px: int) -> bool:
        large_enough = longer_px / 2**halvings >= SMALLEST_LEVEL_PX
        return large_enough and (self._folder / str(self._top - halvings)).is_dir()

    def _grid(self, halvings: int, level: Level) -> TileGrid:
        folder, size = self._folder / str(self._top - halvings), level.size

        def decode(column: int, row: int, factor: int) -> np.ndarray:
            assert factor == 1
            before = [self._overlap * (index > 0) for index in (column, row)]
            starts = column * self._tile_px, row * self._tile_px
            ends = [min(s + self._tile_px, side) for s, side in zip(starts, size, strict=True)]
            after = [min(self._overlap, side - e) for e, side in zip(ends, size, strict=True)]
            inner = [e - s for e, s in zip(ends, starts, strict=True)]
            full = [b + i + a for b, i, a in zip(before, inner, after, strict=True)]
            pixels = _tile(folder / f"{column}_{row}.{self._suffix}", (full[0], full[1]))
            return pixels[before[1] : before[1] + inner[1], before[0] : before[0] + inner[0]]

        return TileGrid(size, (self._tile_px, self._tile_px), (1,), decode)


def _tile(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A tile's pixels, if it has the size that it must have; otherwise it is not decoded at all."""
    where = f"{path.parent.name}/{path.name}"
    try:
        data = path.read_bytes()
        if data[:2] == b"\xff\xd8":
            height, width, space, _ = simplejpeg.decode_jpeg_header(data)
            if (width, height) == size and space in ("YCbCr", "RGB"):
                return simplejpeg.decode_jpeg(data)
        with Image.open(io.BytesIO(data)) as image:
            if image.size != size:
                raise BrokenTile(
                    f"{where} is {image.width} x {image.height} px, expected {size[0]} x {size[1]}"
                )
            flat = Image.new("RGB", image.size, (255, 255, 255))
            layer = image.convert("RGBA")
            flat.paste(layer, mask=layer)
            return np.asarray(flat)
    except FileNotFoundError:
        raise BrokenTile(f"{where} is missing") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BrokenTile(f"{where}: {error}") from None


def _xml(path: Path) -> ElementTree.Element:
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise FaultError(
                f"slide {path} is {path.stat().st_size} bytes, too many for a DeepZoom description"
            )
        return ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise FaultError(f"slide {path} is no DeepZoom description: {error}") from None


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]  # two namespaces are in use


def _vips_properties(path: Path) -> dict[str, str]:
    """What the scanner said, where vips wrote it down."""
    if not path.is_file():
        return {}
    try:
        entries = [e for e in _xml(path).iter() if _tag(e) == "property"]
    except FaultError:
        return {}
    pairs = [{_tag(child): child.text or "" for child in entry} for entry in entries]
    known = {pair["name"]: pair["value"] for pair in pairs if "name" in pair and "value" in pair}
    return {name: value for name, value in known.items() if name.startswith(("openslide.", "aperio."))}
