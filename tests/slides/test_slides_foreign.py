"""Features in the files of TRIDENT, CLAM and MI-Zero, as `--features` gets them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from slide_fakes import MeanColour

from pathclip.core.errors import UserError
from pathclip.core.files import read_json
from pathclip.slides import (
    SlideConfig,
    SlideInput,
    SlidePrediction,
    open_slide,
    read_features,
    rescore,
    run_slides,
)
from pathclip.slides.foreign import with_slide
from pathclip.slides.page import page_data
from pathclip.slides.regions import merge_tiles

CLASSES = {"pink": ["pink"], "purple": ["purple"]}


@pytest.fixture(autouse=True)
def quick_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathclip.slides.export.write_heatmap", lambda path, *_: path.touch() or path)


def trident(path: Path, prediction: SlidePrediction, **more: object) -> Path:
    """As TRIDENT's extract_features writes it: float32, not normalised, attributes on both datasets."""
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=2.5 * prediction.slide.features.astype("f4"), chunks=(1, 3))
        file["features"].attrs.update({"name": path.stem, "savetodir": "/x/features", "encoder": "conch_v1"})
        file["coords"] = prediction.xy.astype("i8")
        attributes = {
            **{"patch_size": 128, "patch_size_level0": 128, "level0_magnification": 20},
            **{"target_magnification": 20, "overlap": 0, "name": path.stem, "savetodir": "/x/patches"},
            **{"level0_width": 2048, "level0_height": 1536},
        }
        file["coords"].attrs.update(attributes | more)
    return path


def clam_features(path: Path, prediction: SlidePrediction) -> Path:
    """As CLAM's extract_features_fp and MI-Zero write it: no attributes at all."""
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=7 * prediction.slide.features.astype("f4"))
        file.create_dataset("coords", data=prediction.xy.astype("i4"))
    return path


def clam_patches(path: Path, prediction: SlidePrediction) -> Path:
    """CLAM's file of coordinates, with features added."""
    clam_features(path, prediction)
    with h5py.File(path, "r+") as file:
        file["coords"].attrs.update(
            {
                **{"patch_size": 32, "patch_level": 1, "downsample": np.array([4.0, 4.0])},
                **{"downsampled_level_dim": (512, 384), "level_dim": (512, 384), "name": path.stem},
            }
        )
    return path


@pytest.mark.parametrize("make", [trident, clam_features, clam_patches])
def test_they_give_the_answer_of_our_own_features(
    prediction: SlidePrediction, config: SlideConfig, tmp_path: Path, make
) -> None:
    features = read_features(make(tmp_path / "a.h5", prediction))
    found = rescore(features, MeanColour(), CLASSES, config)
    np.testing.assert_allclose(found.tile_scores, prediction.tile_scores, atol=2e-3)
    assert (found.label, found.state, found.mpp, found.tile_mm2) == ("pink", "done", None, None)
    assert features.plan.stride == 128
    assert page_data(found, "a")["tissue_mm2"] is None
    if make is not clam_features:  # which do not state it
        assert features.size == (2048, 1536)
    assert found.provenance["encoder"] == ("conch_v1" if make is trident else None)


@pytest.mark.parametrize("make", [trident, clam_features, clam_patches])
def test_the_slide_beside_them_adds_scale_picture_and_tiles(
    prediction: SlidePrediction, slide_path: Path, tmp_path: Path, make
) -> None:
    path = make(tmp_path / "painted.h5", prediction)
    (tmp_path / "s.csv").write_text(f"slide,patient,label\n{slide_path},p1,pink\n")
    model, out = MeanColour(), tmp_path / "out"
    config = SlideConfig(page_tiles=1, smooth=8)
    run = run_slides(tmp_path / "s.csv", model, CLASSES, config, out, features=[path])
    assert model.batches == []
    (record,) = run.records
    assert (record.label, record.patient, record.truth, record.mpp) == ("pink", "p1", "pink", 0.5)
    assert read_json(out / "result.json")["patients"]["metrics"]["accuracy"] == 1
    with open(out / "fractions.csv", newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert float(row["mm2"]) == pytest.approx(len(prediction.xy) * (64e-3) ** 2, rel=1e-3)
    text = (out / "painted.html").read_text(encoding="utf-8")
    assert '"jpeg": null' not in text
    assert not (out / "painted.h5").exists()
    slide = open_slide(slide_path)
    whole = with_slide(read_features(path), slide)
    slide.close()
    assert whole.thumbnail.rgb.shape == prediction.slide.thumbnail.rgb.shape
    difference = np.abs(whole.thumbnail.rgb.astype(int) - prediction.slide.thumbnail.rgb)
    assert difference.mean() < 1  # ours has been a JPEG in between
    assert (whole.size, whole.bounds) == (prediction.slide.size, prediction.slide.bounds)
    assert whole.plan.mpp == pytest.approx(2.0 if make is clam_patches else 0.5)  # 32 px for 128 of the slide


def test_features_of_another_slide_and_of_our_own_are_told_apart(
    prediction: SlidePrediction, slide_path: Path, tmp_path: Path
) -> None:
    slide = open_slide(slide_path)
    assert with_slide(prediction.slide, slide) is prediction.slide
    shifted = replace(prediction.slide.plan, xy=prediction.xy + np.array([3000, 0], np.int32))
    path = trident(tmp_path / "a.h5", replace(prediction, slide=replace(prediction.slide, plan=shifted)))
    with pytest.raises(UserError, match=r"slide painted.tif is 2048 x 1536 px; are they features of another"):
        with_slide(read_features(path), slide)
    slide.close()


def test_a_slide_without_scale_leaves_areas_out(prediction: SlidePrediction, tmp_path: Path) -> None:
    from slide_fakes import painted, write_tiff

    path = trident(tmp_path / "flat.h5", prediction)
    slide = write_tiff(tmp_path / "flat.tif", painted()[0], levels=1)
    run = run_slides(
        slide, MeanColour(), CLASSES, SlideConfig(page_tiles=0), tmp_path / "out", features=[path]
    )
    assert (run.records[0].state, run.records[0].mpp, run.records[0].tile_mm2) == ("done", None, None)
    item = SlideInput("flat.tif", slide, mpp=0.25)
    run = run_slides([item], MeanColour(), CLASSES, SlideConfig(), tmp_path / "o2", features=[path])
    assert (run.records[0].mpp, run.records[0].mpp_source) == (0.25, "csv")


def test_tiles_of_contours_on_grids_of_their_own_have_the_side_most_agree_on(tmp_path: Path) -> None:
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(3)), -1).reshape(-1, 2) * 512
    xy = np.concatenate([grid, grid + np.array([5037, 77]), [[4000, 9000]]])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["coords"] = np.ones((len(xy), 4)), xy
    assert read_features(tmp_path / "a.h5").plan.stride == 512


@pytest.mark.parametrize("stated", [True, False], ids=["trident", "clam"])
def test_overlapping_tiles_count_only_for_their_middles(tmp_path: Path, stated: bool) -> None:
    # tiles of 501 level-0 pixels, 438 apart: TRIDENT rounds the step to whole pixels
    xy = np.stack(np.meshgrid(np.arange(40), np.arange(30)), -1).reshape(-1, 2) * 438 + 100
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["coords"] = np.ones((len(xy), 3)), xy
        size = {"patch_size": 256, "patch_size_level0": 501}
        file["coords"].attrs.update(size | {"overlap": 32} if stated else size)
    found = read_features(tmp_path / "a.h5")
    assert found.plan.overlap_px == 32
    (region,) = merge_tiles(found.plan, np.zeros(len(xy), int), (0, 0))
    assert region.area_px == len(xy) * 438**2
    left, upper = region.rings[0][0]
    assert abs(left - (100 + (501 - 438) / 2)) <= 1
    assert abs(upper - (100 + (501 - 438) / 2)) <= 1


def test_features_that_are_not_finite_are_refused(prediction: SlidePrediction, tmp_path: Path) -> None:
    path = trident(tmp_path / "a.h5", prediction)
    with h5py.File(path, "r+") as file:
        file["features"][2, 1] = np.nan
    with pytest.raises(UserError, match=rf"1 of {len(prediction.xy)} features are not finite"):
        read_features(path)


def test_features_of_another_length_name_the_model(prediction: SlidePrediction, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = np.ones((1, 4, 768)), np.array([[0, 0], [8, 0], [0, 8], [8, 8]])
    with pytest.raises(UserError, match="features have 768 numbers each, those of mean-colour have 3"):
        rescore(read_features(path), MeanColour(), CLASSES)
