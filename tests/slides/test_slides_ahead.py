from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from slide_fakes import MeanColour, painted, write_slide_at
from torch import Tensor

from pathclip.slides import SlideConfig, prepare, run_slides
from pathclip.slides import work as working

CLASSES = {"pink": ["pink"], "purple": ["purple"]}
SMALL = SlideConfig(tile_px=128, batch_size=16)


@pytest.fixture
def slides(tmp_path: Path) -> list[Path]:
    pixels = painted(1024, 768)[0]
    return [write_slide_at(tmp_path / f"{name}.tif", pixels, 0.5) for name in "abc"]


def test_the_next_slide_is_opened_and_read_while_one_is_encoded(
    slides: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = {path.name: threading.Event() for path in slides}
    prepare_slide = working.prepare

    def noted(slide, *args, **more) -> prepare.PreparedSlide:
        found = prepare_slide(slide, *args, **more)
        ready[slide.path.name].set()
        return found

    class Waiting(MeanColour):
        """Encodes the first slide only once the second is prepared: without reading ahead, never."""

        def encode_pixels(self, images: Tensor, *, normalize: bool = True) -> Tensor:
            assert ready["b.tif"].wait(20)
            return super().encode_pixels(images, normalize=normalize)

    monkeypatch.setattr(working, "prepare", noted)
    run = run_slides(slides, Waiting(), CLASSES, SMALL, tmp_path / "out")
    assert [record.slide for record in run.records] == [str(path) for path in slides]
    assert [record.state for record in run.records] == ["done"] * 3


def test_reading_ahead_changes_no_byte_of_a_result(slides: list[Path], tmp_path: Path) -> None:
    run_slides(slides, MeanColour(), CLASSES, SMALL, tmp_path / "together")
    for path in slides:  # one run each: nothing to read ahead
        run_slides(path, MeanColour(), CLASSES, SMALL, tmp_path / "alone")
    for path in slides:
        for suffix in (".scores.parquet", ".geojson", ".heatmap.png", ".html"):
            together, alone = (tmp_path / way / f"{path.stem}{suffix}" for way in ("together", "alone"))
            assert together.read_bytes() == alone.read_bytes(), suffix


def test_an_interrupted_run_gives_the_slide_it_opened_ahead_back(slides: list[Path], tmp_path: Path) -> None:
    class Interrupted(MeanColour):
        def encode_pixels(self, images: Tensor, *, normalize: bool = True) -> Tensor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_slides(slides, Interrupted(), CLASSES, SMALL, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.claim"))
    assert not [t for t in threading.enumerate() if t.name.startswith(("tiles", "next-slide"))]
    run = run_slides(slides, MeanColour(), CLASSES, SMALL, tmp_path / "out")
    assert run.count("done") == 3


def test_a_slide_that_cannot_be_opened_ahead_fails_alone(slides: list[Path], tmp_path: Path) -> None:
    slides[1].write_bytes(b"II*\0" + bytes(100))
    run = run_slides(slides, MeanColour(), CLASSES, SMALL, tmp_path / "out")
    assert [record.state for record in run.records] == ["done", "failed", "done"]
    labels = [record.label for record in run.records]
    assert labels == ["pink", None, "pink"]
    np.testing.assert_equal(run.exit_code, 1)
