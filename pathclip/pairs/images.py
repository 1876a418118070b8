"""Look at a foreign picture safely: size before pixels, then one canonical decode, upright and in sRGB."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import (  # the plugins are named so that no other format can be opened, and these always can
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from pathclip.pairs.pair import Drop
from pathclip.pairs.scaled import decode_jpeg, is_whole_jpeg

__all__ = ["FORMATS", "Header", "damage", "decode", "is_srgb", "orientation", "read_header"]

_PLUGINS = (
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)
FORMATS = tuple(str(plugin.format) for plugin in _PLUGINS)
STILL_MULTIFRAME = ("MPO",)  # a phone's picture with previews behind it, opened by the JPEG plugin
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation to what turns the picture upright. Source: EXIF 2.3, tag 0x0112."""
DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    struct.error,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture's header says; no pixel was decoded.

    Attributes:
        format: Pillow's name of the format.
        width: Pixels, as the picture is meant to be seen (EXIF orientation applied).
        height: Likewise.
        mode: Pillow's pixel mode.
        orientation: EXIF orientation, 1 to 8.
        is_animated: More than one frame.
        is_srgb: No colour profile, or one that calls itself sRGB.
        is_ycc: A JPEG's colours are stored as luma and chroma, which is usual.
    """

    format: str
    width: int
    height: int
    mode: str
    orientation: int
    is_animated: bool
    is_srgb: bool = True
    is_ycc: bool = True

    @property
    def is_plain_jpeg(self) -> bool:
        """True if libjpeg's pixels are the picture as it is: nothing to turn and nothing to convert."""
        return self.format == "JPEG" and self.mode == "RGB" and self.orientation == 1 and self.is_srgb


def read_header(data: bytes, *, max_pixels: int) -> Header | Drop:
    """Read the header and refuse what must not be decoded.

    Args:
        data: The file's bytes.
        max_pixels: Pictures with more pixels are refused.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size is judged here, and broken EXIF is not worth a line
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    return _oversized(width, height, max_pixels)
                turned = orientation(image)
                frames = getattr(image, "n_frames", 1) if image.format not in STILL_MULTIFRAME else 1
                size = (height, width) if turned >= 5 else (width, height)
                srgb = is_srgb(image.info.get("icc_profile"))
                ycc = image.info.get("adobe_transform", 1) == 1
                return Header(str(image.format), *size, image.mode, turned, frames > 1, srgb, ycc)
    except Image.DecompressionBombError as error:
        return Drop("image_oversized", str(error).partition(",")[0])
    except UnidentifiedImageError:
        return Drop("not_an_image", f"starts with {data[:16]!r}")
    except DECODE_ERRORS as error:
        return Drop(
            "image_truncated" if _has_magic(data) else "not_an_image",
            f"{type(error).__name__}: {error}"[:200],
        )


def decode(
    data: bytes, *, min_side_px: int | None = None, header: Header | None = None
) -> Image.Image | Drop:
    """The canonical decode: upright RGB in sRGB, 8 bits, alpha on white, all metadata left behind.

    Call only after `read_header` accepted the picture. CMYK goes through its profile where it has one, 16-bit
    and float greys are scaled to 8 bits (not clipped), MPO gives its first picture.

    Args:
        data: The file's bytes.
        min_side_px: Where the picture will be scaled down to this short side, a JPEG may be decoded at half
            or other eighths of its size, not below. None: full size, pixel by pixel what Pillow decodes.
        header: What `read_header` found, to spare finding it again.
    """
    if header is not None and header.is_plain_jpeg:
        fast = decode_jpeg(data, min_side_px)
        if fast is not None:
            return fast
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                turn, profile = TURNS.get(orientation(image)), image.info.get("icc_profile")
                rgb = _to_rgb(_pixels(image, data, min_side_px), profile)
    except DECODE_ERRORS as error:
        text = str(error).lower()
        cut = "truncat" in text or "premature" in text or "incomplete" in text or "unexpected end" in text
        code = "image_truncated" if cut or _has_magic(data) else "not_an_image"
        return Drop(code, f"{type(error).__name__}: {error}"[:200])
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info = {}
    return upright


def damage(data: bytes, header: Header) -> Drop | None:
    """Why a picture that `read_header` accepted does not decode; None where it does, to its last byte."""
    if header.is_plain_jpeg and is_whole_jpeg(data):
        return None
    image = decode(data, min_side_px=1, header=header)
    return image if isinstance(image, Drop) else None


@lru_cache(maxsize=32)
def is_srgb(profile: bytes | None) -> bool:
    """True if there is no colour profile or the profile calls itself sRGB."""
    if not profile:
        return True
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False
    return "srgb" in name.lower()


def _pixels(image: Image.Image, data: bytes, min_side_px: int | None) -> Image.Image:
    """The opened picture's pixels; libjpeg alone is asked first, since it can decode to a smaller scale."""
    if image.format == "JPEG" and image.mode == "RGB":
        fast = decode_jpeg(data, min_side_px)
        if fast is not None:
            return fast
    image.load()
    return image


def _oversized(width: int, height: int, max_pixels: int) -> Drop:
    return Drop(
        "image_oversized",
        f"{width}x{height} px is {width * height / 1e6:.0f} MP; at most {max_pixels / 1e6:g}",
    )


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or the EXIF data is broken."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except DECODE_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_magic(data: bytes) -> bool:
    """True if the bytes begin like a picture, so that a failure means damage and not another kind of file."""
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"BM")
    return data.startswith(starts) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled_grey(image).convert("RGB")
    if image.has_transparency_data or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode == "P":
        image = image.convert("RGB")
    if not is_srgb(profile) and image.mode in ("RGB", "CMYK", "L"):
        converted = _through_profile(image, profile or b"")
        if converted is not None:
            return converted
    is_plain = type(image) is Image.Image and image.mode == "RGB"  # an opened file carries its metadata along
    return image if is_plain else image.convert("RGB")


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """SRGB by the embedded profile; None where the profile is damaged or for another kind of picture."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _scaled_grey(image: Image.Image) -> Image.Image:
    """8 bits from more: 65535 becomes 255; floats and values beyond that are spread over 0 to 255."""
    values = np.asarray(image).astype(np.float64)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if image.mode == "F" and low >= 0 and high <= 1:
        values = values * 255
    elif low >= 0 and high <= 65535:
        values = values / 257
    else:
        values = (values - low) * (255 / (high - low or 1))
    return Image.fromarray(np.rint(np.nan_to_num(values)).clip(0, 255).astype(np.uint8))
