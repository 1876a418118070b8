"""A mean-colour encoder and slides painted for it, so that every tile's right answer is known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from torch import Tensor, nn

COLOURS = {"pink": (225, 130, 175), "purple": (110, 60, 150), "red": (200, 90, 100), "pale": (238, 228, 236)}
GLASS = (242, 241, 243)


class MeanColour(nn.Module):
    """Encodes a tile as the direction of its mean colour, and a text as that of the colour it names."""

    image_size = 32
    embed_dim = 3
    name = "mean-colour"
    precision = "fp32"

    def __init__(self, sha: str = "a" * 64) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(50.0).log())
        self.sha = sha
        self.batches: list[tuple[int, ...]] = []

    @property
    def device(self) -> torch.device:
        return self.logit_scale.device

    def encode_pixels(self, images: Tensor, *, normalize: bool = True) -> Tensor:
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, self.image_size, self.image_size)
        assert not self.training
        self.batches.append(tuple(images.shape))
        return self._direction(images.float().mean(dim=(2, 3)))

    def encode_text(self, texts: list[str], *, batch_size: int = 256) -> Tensor:
        named = [next(rgb for word, rgb in COLOURS.items() if word in text) for text in texts]
        return self._direction(torch.tensor(named, dtype=torch.float32))

    def provenance(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "pretrained": None,
            "checkpoint_sha256": self.sha,
            "transform": {"size": self.image_size},
            "versions": {"torch": torch.__version__},
        }

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        was = self.training
        self.eval()
        yield
        self.train(was)

    @staticmethod
    def _direction(rgb: Tensor) -> Tensor:
        return nn.functional.normalize(rgb / 255 - torch.tensor([0.75, 0.5, 0.68]), dim=-1)


def painted(width: int = 2048, height: int = 1536) -> tuple[np.ndarray, dict[str, tuple[int, int, int, int]]]:
    """A slide at 0.5 µm/px: a pink block, a purple block, a green pen stroke and a black edge on glass.

    Returns:
        Pixels and the blocks as left, upper, right, lower, on the borders of 128-px tiles.
    """
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = GLASS
    blocks = {"pink": (256, 256, 1024, 1024), "purple": (1280, 384, 1664, 768)}
    for name, (left, upper, right, lower) in blocks.items():
        pixels[upper:lower, left:right] = COLOURS[name]
    pixels[1152:1216, 256:1536] = (30, 120, 70)  # pen
    pixels[:, -48:] = (8, 8, 8)  # black edge
    return pixels, blocks


def write_tiff(path: Path, pixels: np.ndarray, *, levels: int = 2, step: int = 4, **page: Any) -> Path:
    """A tiled TIFF pyramid; ``resolution`` and ``resolutionunit`` of the first page state its scale."""
    resolution, unit = page.pop("resolution", None), page.pop("resolutionunit", None)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(levels):
            scale = {}
            if resolution is not None:
                scale = {"resolution": (resolution / step**level,) * 2, "resolutionunit": unit}
            tiff.write(
                np.ascontiguousarray(pixels[:: step**level, :: step**level]),
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 92},
                subfiletype=int(level > 0),
                metadata=None,
                **scale,
                **page,
            )
    return path


def write_slide_at(path: Path, pixels: np.ndarray, mpp: float, **more: Any) -> Path:
    """`write_tiff` with the scale in pixels per centimetre."""
    return write_tiff(path, pixels, resolution=1e4 / mpp, resolutionunit="CENTIMETER", **more)


def write_svs(path: Path, pixels: np.ndarray, facts: str, *, compression: str | None = "jpeg") -> Path:
    """An Aperio slide whose description ends in ``facts``, such as ``|AppMag = 20``."""
    height, width = pixels.shape[:2]
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            pixels,
            tile=(240, 240),
            photometric="rgb",
            compression=compression,
            description=f"Aperio Image Library v12.0.15 \r\n{width}x{height} [0,0 {width}x{height}] "
            f"(240x240) JPEG/RGB Q=80{facts}",
            metadata=None,
            software=False,
        )
    return path


def damage_tile(path: Path, x: int, y: int) -> None:
    """Overwrite the level-0 tile that holds a pixel with zeros."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        across = -(-page.imagewidth // page.tilewidth)
        index = y // page.tilelength * across + x // page.tilewidth
        offset, size = page.dataoffsets[index], page.databytecounts[index]
    with open(path, "r+b") as handle:
        handle.seek(offset)
        handle.write(b"\0" * size)
