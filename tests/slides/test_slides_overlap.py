from __future__ import annotations

from pathlib import Path

import numpy as np
import pydantic
import pytest
from slide_fakes import MeanColour, painted, write_slide_at

from pathclip.slides import SlideConfig, classify_slide, find_tissue, open_slide, plan_tiles, read_features
from pathclip.slides.heatmap import _boxes
from pathclip.slides.lattice import lattices

CLASSES = {"pink": ["pink"], "purple": ["purple"]}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide_at(tmp_path_factory.mktemp("overlap") / "a.tif", painted(1024, 768)[0], 0.35)


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(128, 0), (128, 32), (128, 64), (100, 33), (64, 63)])
def test_tiles_advance_by_what_they_do_not_share(path: Path, tile_px: int, overlap_px: int) -> None:
    slide = open_slide(path)
    tissue = find_tissue(slide, 0.35, whole=True)
    plan = plan_tiles(slide, 0.35, tissue, mpp=0.5, tile_px=tile_px, overlap_px=overlap_px)
    slide.close()
    step = (tile_px - overlap_px) * 0.5 / 0.35
    expected = []  # the slow way: tile after tile, as long as one still fits (1 % of a tile is forgiven)
    for side in (1024, 768):
        starts, i = [], 0
        while i * step + tile_px * 0.5 / 0.35 <= side + 0.01 * step:
            starts.append(round(i * step))
            i += 1
        expected.append(starts)
    assert sorted(set(plan.xy[:, 0].tolist())) == expected[0]
    assert sorted(set(plan.xy[:, 1].tolist())) == expected[1]
    assert len(plan.xy) == len(expected[0]) * len(expected[1])
    assert plan.step == pytest.approx(step)


def test_every_tile_speaks_for_the_cell_in_its_middle_and_cells_do_not_overlap(path: Path) -> None:
    config = SlideConfig(tile_px=128, overlap_px=64, tissue=False)
    prediction = classify_slide(MeanColour(), path, CLASSES, config)
    plan = prediction.slide.plan
    (lattice,) = lattices(plan, (0, 0))
    assert lattice.corner == (plan.margin, plan.margin) == (46, 46)  # a quarter of 183 px
    assert len(np.unique(lattice.cells, axis=0)) == len(plan.xy)
    assert prediction.tile_mm2 == pytest.approx((64 * 0.5) ** 2 / 1e6)
    boxes = _boxes(prediction)
    covered = np.zeros(prediction.slide.thumbnail.rgb.shape[:2], int)
    for left, upper, right, lower in boxes.tolist():
        covered[upper:lower, left:right] += 1
    assert covered.max() == 1
    middle = covered[boxes[:, 1].min() : boxes[:, 3].max(), boxes[:, 0].min() : boxes[:, 2].max()]
    assert (middle == 1).all()


def test_overlap_is_kept_with_the_features(path: Path, tmp_path: Path) -> None:
    config = SlideConfig(tile_px=128, overlap_px=64)
    prediction = classify_slide(MeanColour(), path, CLASSES, config)
    prediction.save(tmp_path)
    back = read_features(tmp_path / "a.h5")
    assert (back.plan.overlap_px, back.plan.step) == (64, prediction.slide.plan.step)
    assert back.key != classify_slide(MeanColour(), path, CLASSES, SlideConfig(tile_px=128)).slide.key


def test_tiles_that_would_not_advance_are_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="overlap_px = 128 must be less than tile_px = 128"):
        SlideConfig(tile_px=128, overlap_px=128)
