from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for slide_fakes; pytest's importlib mode adds no folder

from slide_fakes import MeanColour, painted, write_slide_at

from pathclip.slides import SlideConfig, SlidePrediction, classify_slide

CLASSES = {"pink": ["pink"], "purple": ["purple"]}


@pytest.fixture
def model() -> MeanColour:
    return MeanColour()


@pytest.fixture(scope="session")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels, _ = painted()
    return write_slide_at(tmp_path_factory.mktemp("painted") / "painted.tif", pixels, 0.5)


@pytest.fixture(scope="session")
def config() -> SlideConfig:
    return SlideConfig(tile_px=128, batch_size=16)


@pytest.fixture(scope="session")
def prediction(slide_path: Path, config: SlideConfig) -> SlidePrediction:
    return classify_slide(MeanColour(), slide_path, CLASSES, config)
