"""The picture as it is stored: the original bytes without metadata where they will do, else re-encoded."""

from __future__ import annotations

import io
import re
import sys
from typing import Literal

from PIL import Image
from pydantic import Field

from pathclip.core.config import Config
from pathclip.core.errors import FaultError
from pathclip.pairs.images import Header, decode, read_header
from pathclip.pairs.pair import Box, Drop
from pathclip.pairs.scaled import LOOK_SIDE_PX

__all__ = ["PackConfig", "passed_through", "stored_jpeg", "strip_metadata"]

CHROMA = {"full": 0, "half": 2}  # Pillow's numbers of 4:4:4 and 4:2:0
START, END, SCAN = b"\xff\xd8", 0xD9, 0xDA
STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)  # in a scan: not stuffing, restarts or fill
KEPT_APPS = frozenset({0xE0, 0xEE})  # JFIF and Adobe say how to read the colours; all other APPn are metadata


class PackConfig(Config):
    """How pictures and shards are written."""

    short_side_px: int = Field(
        default=512, ge=16, description="larger pictures are scaled down to this short side"
    )
    quality: int = Field(default=95, ge=1, le=100, description="JPEG quality")
    chroma: Literal["full", "half"] = Field(
        default="full", description="resolution of the colour: full (4:4:4), or half (4:2:0; a fifth smaller)"
    )
    passthrough: bool = Field(
        default=True, description="store the original bytes of small plain JPEGs, metadata removed"
    )
    passthrough_long_side_px: int = Field(
        default=1024, ge=16, description="largest long side that is passed through"
    )
    passthrough_bytes: int = Field(default=1 << 20, ge=1, description="largest file that is passed through")
    shard_samples: int = Field(default=1000, ge=1, description="samples per shard")


def stored_jpeg(
    data: bytes,
    config: PackConfig,
    looked: Image.Image | None = None,
    box: Box | None = None,
    header: Header | None = None,
) -> tuple[bytes, int, int]:
    """The bytes to store, and their width and height.

    Args:
        data: The file's bytes.
        config: How pictures are stored.
        looked: The decoded picture where one is at hand (`decode` down to ``LOOK_SIDE_PX``): saves a second
            decode where pictures are stored at that size, and changes no byte of the result.
        box: Store this part of the upright picture only.
        header: What `read_header` found, to spare finding it again.

    Raises:
        FaultError: If the picture no longer decodes (it did when it was looked at).
    """
    passed = passed_through(data, config, header) if box is None else None
    if passed is not None:
        return passed
    image: Image.Image | Drop | None = looked if config.short_side_px == LOOK_SIDE_PX else None
    if image is None or box is not None:
        image = decode(data, min_side_px=config.short_side_px if box is None else None)
    if isinstance(image, Drop):
        raise FaultError(f"a picture that decoded before no longer does: {image.detail}")
    if box is not None:
        image = image.crop(box)
    short = min(image.size)
    if short > config.short_side_px:
        scale = config.short_side_px / short
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=config.quality, subsampling=CHROMA[config.chroma], optimize=False)
    return out.getvalue(), *image.size


def strip_metadata(data: bytes) -> bytes | None:
    """A JPEG without EXIF, XMP, IPTC, colour profile, comments and trailing bytes; pixels untouched.

    Returns:
        The bytes, or None where the file is no plain 8-bit JPEG of one picture that is safe to cut.
    """
    if not data.startswith(START):
        return None
    out, at = bytearray(START), 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in STANDALONE or marker == END:
            return None
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at : at + 2 + size]
        if size < 2 or len(segment) != size + 2:
            return None
        if marker == SCAN:
            stop = data.rfind(b"\xff\xd9")
            first = _first_end(data, at + 2 + size)
            return bytes(out + data[at:first]) if stop >= 0 and first is not None else None
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            out += _kept_app(marker, segment)
        else:
            out += segment
        at += 2 + size
    return None


def _kept_app(marker: int, segment: bytes) -> bytes:
    """JFIF without its thumbnail, Adobe whole, nothing else."""
    body = segment[4:]
    if marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14:
        return b"\xff\xe0\x00\x10" + body[:12] + b"\0\0"
    return segment if marker == 0xEE and body.startswith(b"Adobe") else b""


def _first_end(data: bytes, at: int) -> int | None:
    """Position after the end marker of the picture whose first scan starts at ``at``."""
    while (found := MARKER.search(data, at)) is not None:
        at, marker = found.start(), data[found.end() - 1]
        if marker == END:
            return at + 2
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            return None  # metadata between scans: re-encode instead
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def passed_through(
    data: bytes, config: PackConfig, header: Header | Drop | None = None
) -> tuple[bytes, int, int] | None:
    """The stripped original, if it is a colour sRGB JPEG that is upright and small; else None.

    Args:
        data: The file's bytes.
        config: What is small.
        header: What `read_header` found, to spare finding it again.
    """
    if not (config.passthrough and len(data) <= config.passthrough_bytes and data.startswith(START)):
        return None
    if header is None:
        header = read_header(data, max_pixels=sys.maxsize)
    if isinstance(header, Drop):
        return None
    size = header.width, header.height
    fits = (
        header.format in ("JPEG", "MPO")  # of an MPO the first picture is left
        and header.mode == "RGB"
        and header.orientation == 1
        and header.is_srgb
        and header.is_ycc
        and max(size) <= config.passthrough_long_side_px
        and min(size) <= config.short_side_px
    )
    stripped = strip_metadata(data) if fits else None
    return (stripped, *size) if stripped is not None else None
