"""A TIFF writer for pages of finished JPEG streams.

tifffile insists on a compiled codec (imagecodecs) for every page tagged JPEG, even where the bytes are
encoded already; slides have to be written without one. Only what slides need: classic TIFF, tiles or strips.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import IO

from pathclip.core.errors import FaultError

__all__ = ["TiffPage", "TiffWriter"]

SHORT, LONG, RATIONAL, ASCII = 3, 4, 5, 2
JPEG, YCBCR, CENTIMETRE = 7, 6, 3
LIMIT_BYTES = 2**32 - 2**20


@dataclass(frozen=True, slots=True)
class TiffPage:
    """What a page's tags say.

    Attributes:
        width: Pixels.
        height: Pixels.
        tile_px: Side of the square tiles; None where the page is cut into strips.
        rows_per_strip: Height of a strip; the page's height by default.
        subfile: TIFF's NewSubfileType: 1 a reduced copy; Aperio marks labels with 1 and macros with 9.
        description: TIFF's ImageDescription.
        pixels_per_cm: Resolution, or None to leave it out.
    """

    width: int
    height: int
    tile_px: int | None = None
    rows_per_strip: int | None = None
    subfile: int = 0
    description: str | None = None
    pixels_per_cm: float | None = None


class TiffWriter:
    """Appends pages of YCbCr 4:2:0 JPEG streams to an open binary file.

    Args:
        handle: Empty, writable, seekable.
    """

    def __init__(self, handle: IO[bytes]) -> None:
        self._file = handle
        handle.write(struct.pack("<2sHI", b"II", 42, 0))
        self._link = 4  # where the offset of the next page's tags belongs

    def add(self, page: TiffPage, streams: Iterable[bytes]) -> None:
        """Write the streams, row by row, then the tags that name them.

        Raises:
            FaultError: If the file outgrows what 32-bit offsets reach.
        """
        offsets, sizes = [], []
        for stream in streams:
            offsets.append(self._file.tell())
            sizes.append(self._file.write(stream))
            if offsets[-1] > LIMIT_BYTES:
                raise FaultError(
                    "the slide is larger than 4 GiB, which this writer's classic TIFF cannot hold"
                )
        tags = _tags(page, offsets, sizes)
        start = self._align()
        body = start + 2 + 12 * len(tags) + 4
        rows, values = b"", b""
        for code, (kind, count, data) in sorted(tags.items()):
            if len(data) > 4:
                place = struct.pack("<I", body + len(values))
                values += data + b"\0" * (len(data) % 2)
            else:
                place = data.ljust(4, b"\0")
            rows += struct.pack("<HHI", code, kind, count) + place
        self._file.write(struct.pack("<H", len(tags)) + rows + struct.pack("<I", 0) + values)
        self._file.seek(self._link)
        self._file.write(struct.pack("<I", start))
        self._file.seek(0, 2)
        self._link = body - 4

    def _align(self) -> int:
        if self._file.tell() % 2:
            self._file.write(b"\0")
        return self._file.tell()


Tag = tuple[int, int, bytes]


def _tags(page: TiffPage, offsets: list[int], sizes: list[int]) -> dict[int, Tag]:
    tags = {
        254: _long(page.subfile),
        256: _long(page.width),
        257: _long(page.height),
        258: _short(8, 8, 8),
        259: _short(JPEG),
        262: _short(YCBCR),
        277: _short(3),
        284: _short(1),
        530: _short(2, 2),
    }
    if page.tile_px is not None:
        tags |= {322: _long(page.tile_px), 323: _long(page.tile_px), 324: _long(*offsets), 325: _long(*sizes)}
    else:
        tags |= {273: _long(*offsets), 278: _long(page.rows_per_strip or page.height), 279: _long(*sizes)}
    if page.description is not None:
        text = page.description.encode("ascii") + b"\0"
        tags[270] = (ASCII, len(text), text)
    if page.pixels_per_cm is not None:
        ratio = Fraction(page.pixels_per_cm).limit_denominator(100_000)
        scale = (RATIONAL, 1, struct.pack("<II", ratio.numerator, ratio.denominator))
        tags |= {282: scale, 283: scale, 296: _short(CENTIMETRE)}
    return tags


def _short(*values: int) -> Tag:
    return SHORT, len(values), struct.pack(f"<{len(values)}H", *values)


def _long(*values: int) -> Tag:
    return LONG, len(values), struct.pack(f"<{len(values)}I", *values)
