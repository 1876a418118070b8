"""Pictures that are no files of their own: rows of arrays, members of tars, crops."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.core.errors import FaultError
from pathclip.encoders.pictures import as_rgb

__all__ = ["ArrayRow", "Crop", "H5Row", "LazyPicture", "PlipResized", "TarMember", "scaled_rgb"]

CROP_PX = 224


class LazyPicture(Protocol):
    """A picture that `encode_pictures` opens by calling it."""

    @property
    def path(self) -> Path:
        """The file that holds it."""

    @property
    def filename(self) -> str:
        """Its name in results: the file and the place within."""

    def __call__(self) -> Any:
        """Bytes, array or PIL picture; raises FaultError where there is none."""


@dataclass(frozen=True, slots=True)
class ArrayRow:
    """One row of an ``.npy`` file (N, H, W, 3) of whole numbers 0 to 255, whatever their type."""

    path: Path
    row: int

    @property
    def filename(self) -> str:
        """File and row."""
        return f"{self.path}#{self.row}"

    def __call__(self) -> NDArray[np.uint8]:
        """The row as uint8 (H, W, 3)."""
        return np.asarray(open_array(self.path)[self.row]).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class H5Row:
    """One row of a dataset (N, H, W, 3) of an HDF5 file."""

    path: Path
    key: str
    row: int

    @property
    def filename(self) -> str:
        """File and row."""
        return f"{self.path}#{self.row}"

    def __call__(self) -> NDArray[np.uint8]:
        """The row as it is stored."""
        try:
            row: NDArray[np.uint8] = _open_h5(self.path, _version(self.path))[self.key][self.row]
        except OSError as error:
            raise FaultError(f"cannot be read: {error}") from None
        return row


@dataclass(frozen=True, slots=True)
class TarMember:
    """One member of a tar that is not packed."""

    path: Path
    name: str
    offset: int
    size: int

    @property
    def filename(self) -> str:
        """Tar and member."""
        return f"{self.path}#{self.name}"

    def __call__(self) -> bytes:
        """The member's bytes."""
        with open(self.path, "rb") as handle:
            data = os.pread(handle.fileno(), self.size, self.offset)
        if len(data) < self.size:
            raise FaultError("the tar is cut")
        return data


@dataclass(frozen=True, slots=True)
class Crop:
    """A square of 224 px cut from a picture that was scaled down."""

    path: Path
    downsample: int
    left: int
    top: int

    @property
    def filename(self) -> str:
        """File, scale and place."""
        return f"{self.path}#{self.downsample}x,{self.left},{self.top}"

    def __call__(self) -> NDArray[np.uint8]:
        """Pixels (224, 224, 3)."""
        pixels = scaled_rgb(self.path, self.downsample)
        return pixels[self.top : self.top + CROP_PX, self.left : self.left + CROP_PX]


@dataclass(frozen=True, slots=True)
class PlipResized:
    """A picture as PLIP's ``resizeimg`` stored it: 224 px, an oblong one cropped off its centre.

    The short side becomes 224, but the crop is centred by the size *before* scaling, so what lies outside is
    black (400 x 250 px: 5.8 % of the result).

    Source: Huang et al. 2023, published code, ``prepare_dataset_to_csv.py``.
    """

    picture: Any

    @property
    def path(self) -> Path:
        """The file that holds it."""
        return self.picture if isinstance(self.picture, Path) else Path(self.picture.path)

    @property
    def filename(self) -> str:
        """The name of what was resized."""
        return str(getattr(self.picture, "filename", self.picture))

    def __call__(self) -> Image.Image:
        """The picture, 224 x 224."""
        image = as_rgb(self.picture)
        width, height = image.size
        if width == height:
            return image.resize((CROP_PX, CROP_PX))
        scale = CROP_PX / min(width, height)
        small = image.resize((int(width * scale), int(height * scale)))
        left, top = (width - CROP_PX) / 2, (height - CROP_PX) / 2
        # Pillow rounds the corners; the stub knows whole numbers only
        return small.crop((left, top, left + CROP_PX, top + CROP_PX))  # type: ignore[arg-type]


def open_array(path: Path) -> NDArray[Any]:
    """An ``.npy`` file, mapped, never unpickled; the last few are kept open.

    Raises:
        FaultError: If it cannot be read.
    """
    return _mapped(path, _version(path))


def scaled_rgb(path: Path, downsample: int) -> NDArray[np.uint8]:
    """A picture scaled down by a whole number, uint8 (H, W, 3); the last few are kept.

    Raises:
        FaultError: If it does not decode.
    """
    return _scaled(path, downsample, _version(path))


def _version(path: Path) -> tuple[int, int]:
    """What changes where a file is written anew; what is kept open must not outlive it."""
    try:
        about = path.stat()
    except OSError as error:
        raise FaultError(f"{path} cannot be read: {error.strerror}") from None
    return about.st_mtime_ns, about.st_size


@functools.lru_cache(maxsize=8)
def _mapped(path: Path, version: tuple[int, int]) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FaultError(f"{path} cannot be read as an array: {error}") from None
    return array


@functools.lru_cache(maxsize=4)
def _open_h5(path: Path, version: tuple[int, int]) -> Any:
    import h5py

    return h5py.File(path, "r")


@functools.lru_cache(maxsize=4)
def _scaled(path: Path, downsample: int, version: tuple[int, int]) -> NDArray[np.uint8]:
    image = _whole(path, version)
    size = (round(image.size[0] / downsample), round(image.size[1] / downsample))
    return np.asarray(image.resize(size))


@functools.lru_cache(maxsize=2)
def _whole(path: Path, version: tuple[int, int]) -> Image.Image:
    return as_rgb(path)
