"""Whatever holds a picture (path, PIL, array, tensor) -> an upright RGB picture, or the reason why not."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from pathclip.core.errors import FaultError, UserError
from pathclip.shards import Dataset

__all__ = ["PICTURE_SUFFIXES", "as_rgb", "describe", "split_batch"]

PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"))
# what Pillow's decoders raise on broken files
UNDECODABLE = (
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    EOFError,
    ArithmeticError,
    LookupError,
    RuntimeError,
    struct.error,
    zlib.error,
)


def split_batch(images: Any) -> list[Any]:
    """One picture or many -> a list of pictures.

    A folder gives its picture files at any depth, sorted; a dataset folder, its ``shards``, a folder of tars
    or one tar give their pictures in the order of splits, shards and rows.

    Raises:
        UserError: If it is nothing that holds pictures.
    """
    if isinstance(images, str | Path) and (Path(images).suffix == ".tar" or Path(images).is_dir()):
        return _from_folder(Path(images))
    if isinstance(images, str | Path | bytes | memoryview | Image.Image):
        return [images]
    if isinstance(images, np.ndarray | torch.Tensor):
        if images.ndim == 4:
            return list(images)
        if images.ndim in (2, 3):
            return [images]
        raise UserError(f"pictures of shape {tuple(images.shape)}; expected (H, W, 3), (3, H, W) or a batch")
    try:
        return list(images)
    except TypeError:
        raise UserError(
            f"{type(images).__name__} holds no pictures; give paths, PIL, arrays or tensors"
        ) from None


def _from_folder(folder: Path) -> list[Any]:
    homes = (folder, folder.parent) if folder.name == "shards" else (folder,)
    indexed = any((home / "index.json").is_file() for home in homes)
    if folder.suffix == ".tar" or indexed or any(folder.glob("*.tar")):
        dataset = Dataset.open(folder)
        readers = [reader for split in dataset.splits for reader in dataset.readers(split)]
        found: list[Any] = [reader.jpg(row) for reader in readers for row in range(len(reader))]
    else:
        files = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        found = sorted(path for path in files if path.is_file() and not path.name.startswith("."))
    if not found:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise UserError(f"{folder} holds no pictures; looked for shards and {suffixes}")
    return found


def describe(item: Any, index: int) -> str:
    """A name for messages: the path, or the position and type."""
    if isinstance(item, str | Path):
        return str(item)
    name = getattr(item, "filename", "")
    return str(name) if name else f"item {index} ({type(item).__name__})"


def as_rgb(item: Any) -> Image.Image:
    """Open and convert one picture: EXIF orientation applied, transparency on white, 16 bit scaled to 8.

    Args:
        item: A path, the bytes of a picture file, a PIL picture, a uint8 or uint16 array (H, W), (H, W, 3|4),
            a uint8 tensor (3, H, W), or a callable that gives one of these when its turn comes.

    Raises:
        FaultError: If the picture cannot be decoded or is larger than ``PIL.Image.MAX_IMAGE_PIXELS``.
        UserError: If the type is not one of these.
    """
    if isinstance(item, str | Path):
        return _open(Path(item))
    if isinstance(item, bytes | memoryview):
        return _open(io.BytesIO(item))
    if isinstance(item, Image.Image):
        return _decode(item)
    if isinstance(item, torch.Tensor):
        return _from_array(_tensor_pixels(item))
    if isinstance(item, np.ndarray):
        return _from_array(item)
    if callable(item):
        return as_rgb(item())
    raise UserError(f"{type(item).__name__} is no picture; give a path, PIL picture, array or tensor")


def _open(source: Path | io.BytesIO) -> Image.Image:
    try:
        with Image.open(source) as image:
            return _decode(image)
    except FileNotFoundError:
        raise FaultError("no such file") from None
    except IsADirectoryError:
        raise FaultError("is a folder") from None
    except Image.UnidentifiedImageError:
        raise FaultError("not a picture, or in a format that Pillow does not read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FaultError(f"too large: {error}") from None
    except UNDECODABLE as error:
        raise FaultError(f"cannot be decoded: {error}") from None


def _decode(image: Image.Image) -> Image.Image:
    """Pixels of a picture that may be open but not yet decoded."""
    try:
        _refuse_bomb(image.size)
        return _upright(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FaultError(f"too large: {error}") from None
    except UNDECODABLE as error:
        raise FaultError(f"cannot be decoded: {error}") from None


def _refuse_bomb(size: tuple[int, int]) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > limit:
        raise FaultError(f"{size[0]} x {size[1]} px is over PIL.Image.MAX_IMAGE_PIXELS = {limit}")


def _upright(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    image.load()
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bit grey; a plain convert would clip at 255
        return _from_array(np.asarray(image).clip(0, 65535).astype(np.uint16))
    if image.mode == "F":
        raise FaultError("holds floating-point pixels, whose range is unknown; save it with 8 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _tensor_pixels(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype != torch.uint8 or tensor.ndim != 3 or tensor.shape[0] != 3:
        raise FaultError(f"tensor {tuple(tensor.shape)} {tensor.dtype}; expected uint8 (3, H, W)")
    return np.ascontiguousarray(tensor.detach().cpu().permute(1, 2, 0).numpy())


def _from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise FaultError(f"array of {pixels.dtype}; expected uint8 (0 to 255)")
    grey, colour = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if not (grey or colour) or 0 in pixels.shape:
        raise FaultError(f"array of shape {pixels.shape}; expected (H, W) or (H, W, 3)")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image if image.mode == "RGB" else _upright(image)
