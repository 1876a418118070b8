"""Batches filled over several slides: same answers, fewer forward passes, faults kept apart."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from slide_fakes import MeanColour, painted, write_slide_at
from torch import Tensor

from pathclip.core.errors import UserError
from pathclip.encoders import create
from pathclip.slides import SlideConfig, run_slides
from pathclip.slides.tasks import load_model

CLASSES = {"pink": ["pink"], "purple": ["purple"]}
SMALL = SlideConfig(tile_px=128, batch_size=16)
MIXED = SMALL.replace(mix_slides=True)
FILES = (".scores.parquet", ".geojson", ".heatmap.png", ".html", ".h5")


@pytest.fixture
def slides(tmp_path: Path) -> list[Path]:
    pixels = painted(1024, 768)[0]
    return [write_slide_at(tmp_path / f"{name}.tif", pixels, 0.5) for name in "abcde"]


def test_answers_are_those_of_slides_done_one_by_one(slides: list[Path], tmp_path: Path) -> None:
    alone, mixed = MeanColour(), MeanColour()
    first = run_slides(slides, alone, CLASSES, SMALL, tmp_path / "alone")
    second = run_slides(slides, mixed, CLASSES, MIXED, tmp_path / "mixed")
    tiles = sum(record.tiles for record in first.records)
    assert tiles % 16  # so that the last batch is filled up
    assert [shape[0] for shape in mixed.batches] == [16] * -(-tiles // 16)
    assert len(mixed.batches) < len(alone.batches)
    assert [r.label for r in second.records] == [r.label for r in first.records]
    assert [r.slide for r in second.records] == [str(path) for path in slides]
    for path in slides:
        for suffix in FILES:
            one, other = (tmp_path / way / f"{path.stem}{suffix}" for way in ("alone", "mixed"))
            assert one.read_bytes() == other.read_bytes(), path.stem + suffix


def test_a_rerun_skips_and_what_else_is_cached_is_scored(slides: list[Path], tmp_path: Path) -> None:
    run_slides(slides[:3], MeanColour(), CLASSES, MIXED, tmp_path / "out")
    again = MeanColour()
    run = run_slides(slides, again, CLASSES, MIXED, tmp_path / "out")
    assert run.skipped == frozenset("abc")
    assert sum(shape[0] for shape in again.batches) >= sum(r.tiles for r in run.records[3:])
    unread = MeanColour()
    rescored = run_slides(slides, unread, {"red": ["red"], "pale": ["pale"]}, MIXED, tmp_path / "out")
    assert rescored.count("done") == 5
    assert not unread.batches


def test_a_damaged_slide_fails_alone(slides: list[Path], tmp_path: Path) -> None:
    slides[1].write_bytes(slides[1].read_bytes()[:2000])
    (tmp_path / "folder.svs").mkdir()
    run = run_slides(
        [*slides, tmp_path / "folder.svs"], MeanColour(), CLASSES, MIXED, tmp_path / "out", overwrite=True
    )
    assert [r.state for r in run.records] == ["done", "failed", "done", "done", "done", "failed"]
    assert run.exit_code == 1


def test_a_fault_of_the_encoder_fails_the_slides_of_its_batch(slides: list[Path], tmp_path: Path) -> None:
    class OutOfMemory(MeanColour):
        def encode_pixels(self, images: Tensor, *, normalize: bool = True) -> Tensor:
            if not self.batches:
                self.batches.append(tuple(images.shape))
                raise RuntimeError("CUDA out of memory")
            return super().encode_pixels(images, normalize=normalize)

    run = run_slides(slides, OutOfMemory(), CLASSES, MIXED, tmp_path / "out")
    states = [record.state for record in run.records]
    assert states[0] == "failed"
    assert "out of memory" in run.records[0].reason
    assert states[-1] == "done"
    assert run_slides(slides, MeanColour(), CLASSES, MIXED, tmp_path / "out").count("done") == 5


def test_an_interrupted_run_gives_every_slide_back(slides: list[Path], tmp_path: Path) -> None:
    class Interrupted(MeanColour):
        def encode_pixels(self, images: Tensor, *, normalize: bool = True) -> Tensor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_slides(slides, Interrupted(), CLASSES, MIXED, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.claim"))
    assert not [t for t in threading.enumerate() if t.name.startswith(("tiles", "next-slide"))]


def test_mixing_is_of_one_process(slides: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mix_slides"):
        run_slides(slides, "some/model", CLASSES, MIXED, tmp_path / "out", engine="processes")


def test_a_compiled_tower_sees_batches_of_one_size(
    slides: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, shapes = create("tiny-vit-112", seed=0), []

    def compiled(tower: torch.nn.Module, *, dynamic: bool) -> None:
        assert tower is model.clip.visual
        assert not dynamic
        tower.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))

    monkeypatch.setattr(torch.nn.Module, "compile", compiled)
    monkeypatch.setattr("pathclip.encoders.load", lambda *_, **__: model.eval())
    config = SMALL.replace(compile=True)
    run = run_slides(slides[:1], "some/model", CLASSES, config, tmp_path / "out")
    assert run.records[0].tiles % 16
    assert set(shapes) == {(16, 3, 112, 112)}


def test_where_nothing_can_be_compiled_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_, **__) -> None:
        raise RuntimeError("No working C++ compiler found\nand a page of text")

    model = create("tiny-vit-112", seed=0).eval()
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    monkeypatch.setattr(model.clip.visual, "forward", broken)
    monkeypatch.setattr("pathclip.encoders.load", lambda *_, **__: model)
    with pytest.raises(
        UserError, match=r"does not work here: No working C\+\+ compiler found; leave it out$"
    ):
        load_model("some/model", SlideConfig(compile=True))
