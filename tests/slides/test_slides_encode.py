from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slide_fakes import COLOURS, MeanColour, damage_tile, painted, write_slide_at

from pathclip.core.errors import FaultError
from pathclip.slides import UnreadableRegion, find_tissue, open_slide, plan_tiles
from pathclip.slides.encode import encode_tiles, read_tile, read_tiles


def planned(path: Path, *, whole: bool = False, tile_px: int = 128, mpp: float = 0.5):
    slide = open_slide(path)
    return slide, plan_tiles(slide, 0.5, find_tissue(slide, 0.5, whole=whole), mpp=mpp, tile_px=tile_px)


def test_batches_are_uint8_and_features_keep_the_plans_order(slide_path: Path, model: MeanColour) -> None:
    slide, plan = planned(slide_path)
    found = encode_tiles(slide, plan, model, batch_size=16)
    slide.close()
    assert found.values.shape == (len(plan.xy), 3)
    assert found.values.dtype == np.float16
    assert [shape[0] for shape in model.batches][:-1] == [16] * (len(model.batches) - 1)
    direction = MeanColour._direction
    import torch

    pink = direction(torch.tensor([COLOURS["pink"]], dtype=torch.float32)).numpy()
    left = (plan.xy[:, 0] >= 256) & (plan.xy[:, 0] < 1024)
    assert (found.values[left] @ pink.T > 0.98).all()
    assert (found.values[~left] @ pink.T < 0.5).all()


def test_batch_size_and_threads_do_not_change_a_feature(slide_path: Path) -> None:
    slide, plan = planned(slide_path)
    first = encode_tiles(slide, plan, MeanColour(), batch_size=1, threads=1).values
    second = encode_tiles(slide, plan, MeanColour(), batch_size=64, threads=8).values
    slide.close()
    np.testing.assert_array_equal(first, second)


def test_the_model_is_left_in_the_mode_it_had(slide_path: Path, model: MeanColour) -> None:
    slide, plan = planned(slide_path)
    model.train()
    encode_tiles(slide, plan, model)
    slide.close()
    assert model.training


def test_tiles_are_shrunk_by_area_not_sampled(tmp_path: Path) -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255  # plain interpolation at a whole factor would see one phase of the stripes
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    slide = open_slide(tmp_path / "stripes.png")
    plan = plan_tiles(slide, 0.25, find_tissue(slide, 0.25, whole=True), mpp=0.5, tile_px=256)
    tile = read_tile(slide, plan, 0, 32)
    assert tile.shape == (32, 32, 3)
    np.testing.assert_allclose(tile, 127.5, atol=3)
    assert read_tile(slide, plan, 0, 512).shape == (512, 512, 3)


def test_an_unreadable_tile_is_left_out_and_counted_never_white(tmp_path: Path, model: MeanColour) -> None:
    path = write_slide_at(tmp_path / "a.tif", painted()[0], 0.5)
    damage_tile(path, 600, 600)  # four tiles of 128 px
    slide, plan = planned(path)
    found = encode_tiles(slide, plan, model, max_unreadable=0.2)
    slide.close()
    lost = plan.xy[~found.readable]
    assert sorted(map(tuple, lost.tolist())) == [(512, 512), (512, 640), (640, 512), (640, 640)]
    assert len(found.values) == len(plan.xy) - 4
    assert "x=512, y=512" in found.first_error


def test_too_many_unreadable_tiles_fail_the_slide_with_the_first_reason(
    tmp_path: Path, model: MeanColour
) -> None:
    path = write_slide_at(tmp_path / "a.tif", painted()[0], 0.5)
    damage_tile(path, 600, 600)
    slide, plan = planned(path)
    with pytest.raises(
        FaultError, match=r"4 of \d+ tiles cannot be read, more than 5%.*the first: a\.tif at x=512"
    ):
        encode_tiles(slide, plan, model)
    slide.close()


def test_a_slide_that_can_wholly_not_be_read_gives_no_features(tmp_path: Path, model: MeanColour) -> None:
    path = write_slide_at(tmp_path / "a.tif", painted(512, 512)[0], 0.5)
    for x, y in ((0, 0), (256, 0), (0, 256), (256, 256)):
        damage_tile(path, x, y)
    slide, plan = planned(path, whole=True)
    found = encode_tiles(slide, plan, model, max_unreadable=1.0)
    slide.close()
    assert found.values.shape == (0, 3)
    assert not found.readable.any()


def test_reading_runs_ahead_by_no_more_than_asked(slide_path: Path) -> None:
    slide, plan = planned(slide_path)
    started, lock = [], threading.Lock()
    original = slide.read

    def counted(*region: int) -> np.ndarray:
        with lock:
            started.append(region)
        return original(*region)

    slide.read = counted
    tiles = read_tiles(slide, plan, 32, threads=2, ahead=6)
    next(tiles)
    time.sleep(0.3)
    assert len(started) <= 7
    tiles.close()  # the rest is cancelled, not read
    assert len(started) <= 7
    slide.close()


def test_a_damaged_read_is_handed_on_as_a_value(tmp_path: Path) -> None:
    path = write_slide_at(tmp_path / "a.tif", painted()[0], 0.5)
    damage_tile(path, 600, 600)
    slide, plan = planned(path)
    kinds = [type(t) for t in read_tiles(slide, plan, 32, threads=3, ahead=8)]
    slide.close()
    assert kinds.count(UnreadableRegion) == 4
    assert len(kinds) == len(plan.xy)
