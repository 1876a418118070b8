from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathclip.encoders import DualEncoder, create


@pytest.fixture
def model() -> DualEncoder:
    """A ViT that runs in milliseconds, new for each test: saving one writes down where it lies."""
    return create(Path(__file__).with_name("small.json")).eval()


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """Smooth colours with some noise, wider than high."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((130, 90), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((pixels + generator.integers(-8, 9, pixels.shape)).clip(0, 255).astype(np.uint8))
