"""A dual encoder that knows colours and nothing else, so that tests know what it must answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pathclip.encoders import DualEncoder, create

COLOURS = {
    "red": (230, 25, 25),
    "green": (25, 230, 25),
    "blue": (25, 25, 230),
    "yellow": (230, 230, 25),
    "pink": (230, 25, 230),
    "cyan": (25, 230, 230),
}
TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 28, "patch_size": 14, "width": 32, "head_width": 16, "layers": 1},
    "text_cfg": {"width": 16, "heads": 2, "layers": 1},
}


class ColourModel(DualEncoder):
    """Mean colour of a picture, and the mean of the colours that a text names, in the same space."""

    def encode_pixels(self, images: Tensor, *, normalize: bool = True, features: Any = "projected") -> Tensor:
        mean = images.float().mean(dim=(2, 3)) / 255 - 0.5
        return F.normalize(F.pad(mean, (0, self.embed_dim - 3)), dim=1)

    def encode_text(
        self, texts: Any, *, batch_size: int = 256, normalize: bool = True, cache: Any = None
    ) -> Tensor:
        rows = []
        for text in [texts] if isinstance(texts, str) else texts:
            named = [torch.tensor(rgb) / 255 - 0.5 for name, rgb in COLOURS.items() if name in text]
            rows.append(torch.stack(named).mean(dim=0) if named else torch.full((3,), 1e-3))
        return F.normalize(F.pad(torch.stack(rows), (0, self.embed_dim - 3)), dim=1)


def schema(name: str) -> dict[str, Any]:
    """A schema of the reference, to hold a file against."""
    path = Path(__file__).resolve().parents[1] / f"docs/reference/schemas/{name}.schema.json"
    return json.loads(path.read_text(encoding="utf-8"))


def colour_model() -> ColourModel:
    small = create("tiny-vit-112", **TINY)
    return ColourModel(small.clip, small.architecture)


def paint(
    path: Path, colour: str, *, seed: int = 0, size: tuple[int, int] = (40, 32), noise: int = 10
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    shade = 12 * (seed % 4)  # so that no two of a colour are the same to the model
    pixels = np.array(COLOURS[colour]) + shade + generator.integers(-noise, noise + 1, (size[1], size[0], 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)
    return path
