from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slide_fakes import GLASS, MeanColour, damage_tile, painted, write_slide_at, write_svs, write_tiff

from pathclip.core.errors import UserError
from pathclip.slides import SlideConfig, SlidePrediction, classify_slide, embed, read_features, rescore
from pathclip.slides.identity import features_key, model_sha256

CLASSES = {"pink": ["pink"], "purple": ["purple"]}
BLOCKS = painted()[1]


def inside(xy: np.ndarray, name: str, side: int, margin: int = 0) -> np.ndarray:
    left, upper, right, lower = BLOCKS[name]
    x, y = xy.T
    return (
        (x >= left - margin)
        & (x + side <= right + margin)
        & (y >= upper - margin)
        & (y + side <= lower + margin)
    )


def test_the_larger_block_is_the_label_once_k_exceeds_the_smaller_one(prediction: SlidePrediction) -> None:
    assert prediction.label == "pink"
    winners = {k: max(row, key=row.get) for k, row in prediction.scores.items()}
    assert winners[10] == winners[50] == winners[100] == "pink"  # the purple block holds nine tiles
    assert prediction.agreement == np.mean([name == "pink" for name in winners.values()])
    assert prediction.state == "done"
    assert set(prediction.scores) == {1, 5, 10, 50, 100}
    assert prediction.label_k == 10
    assert prediction.mpp.source == "tiff-resolution"
    assert prediction.slide.unreadable == 0


def test_scores_per_k_are_the_mean_of_each_classs_best_tiles(prediction: SlidePrediction) -> None:
    for k, row in prediction.scores.items():
        for column, name in enumerate(prediction.classes):
            best = np.sort(prediction.tile_scores[:, column])[::-1][:k]
            assert row[name] == pytest.approx(best.mean(), abs=1e-6)


def test_tiles_are_those_of_the_painted_blocks_to_within_a_tile(prediction: SlidePrediction) -> None:
    side = prediction.slide.plan.width
    best = prediction.tile_probabilities.argmax(axis=1)
    for column, name in enumerate(prediction.classes):
        found = prediction.xy[best == column]
        assert inside(found, name, side, margin=side).all()
        exact = inside(prediction.xy, name, side)
        assert exact.sum() == {"pink": 36, "purple": 9}[name]
        assert (best[exact] == column).all()


def test_probabilities_are_recorded_with_their_temperature(prediction: SlidePrediction) -> None:
    odds = np.exp(50.0 * prediction.tile_scores.astype(np.float64))
    np.testing.assert_allclose(prediction.tile_probabilities, odds / odds.sum(1, keepdims=True), atol=1e-5)
    assert prediction.provenance["logit_scale"] == pytest.approx(50.0)
    assert prediction.provenance["temperature"] == pytest.approx(0.02)


def test_the_answer_says_how_it_was_obtained(prediction: SlidePrediction) -> None:
    told = prediction.provenance
    assert told["model"] == "mean-colour"
    assert told["model_sha256"] == "a" * 64
    assert len(told["prompts"]["sha256"]) == 64
    assert told["slide_mpp"] == pytest.approx(0.5)
    assert told["top_k"] == [1, 5, 10, 50, 100]
    assert {"pathclip", "openslide", "torch"} <= set(told["versions"])


def test_the_same_picture_in_four_formats_has_the_same_tiles_and_label(
    tmp_path: Path, config: SlideConfig, model: MeanColour
) -> None:
    pixels, _ = painted()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    paths = [
        write_slide_at(tmp_path / "a.tif", pixels, 0.5),
        write_svs(tmp_path / "a.svs", pixels, "|AppMag = 20|MPP = 0.5"),
        write_tiff(tmp_path / "flat.tif", pixels, levels=1),
        tmp_path / "a.png",
    ]
    config = config.replace(slide_mpp=0.5)
    found = [classify_slide(model, path, CLASSES, config) for path in paths]
    for other in found[1:]:
        assert other.label == found[0].label
        assert len(set(map(tuple, other.xy.tolist())) ^ set(map(tuple, found[0].xy.tolist()))) <= 4
        assert other.scores[50]["pink"] == pytest.approx(found[0].scores[50]["pink"], abs=0.03)


@pytest.mark.parametrize("factor", [2, 0.5])
def test_the_same_slide_at_another_scale_has_the_same_physical_tiles(
    tmp_path: Path, config: SlideConfig, model: MeanColour, prediction: SlidePrediction, factor: float
) -> None:
    size = (int(2048 * factor), int(1536 * factor))
    pixels = np.asarray(Image.fromarray(painted()[0]).resize(size, Image.Resampling.NEAREST))
    path = write_slide_at(tmp_path / "a.tif", pixels, 0.5 / factor)
    found = classify_slide(model, path, CLASSES, config.replace(allow_upsample=factor < 1))
    assert found.label == "pink"
    ours, theirs = ({tuple(xy) for xy in p} for p in (prediction.xy, (found.xy / factor).astype(int)))
    assert len(ours ^ theirs) <= 4


def test_a_slide_of_glass_is_empty_and_has_no_label(tmp_path: Path, model: MeanColour) -> None:
    blank = np.full((1024, 1024, 3), GLASS, np.uint8)
    found = classify_slide(model, write_slide_at(tmp_path / "a.tif", blank, 0.5), CLASSES)
    assert (found.state, found.label, found.scores, found.agreement) == ("empty", None, {}, None)
    assert len(found.xy) == 0
    assert model.batches == []


def test_a_slide_of_tissue_alone_is_tiled_wholly(tmp_path: Path, model: MeanColour) -> None:
    full = np.full((1024, 1024, 3), (225, 130, 175), np.uint8)
    found = classify_slide(model, write_slide_at(tmp_path / "a.tif", full, 0.5), CLASSES)
    assert len(found.xy) == 16
    assert found.label == "pink"


def test_a_corrupt_tile_is_excluded_and_counted(
    tmp_path: Path, model: MeanColour, config: SlideConfig
) -> None:
    path = write_slide_at(tmp_path / "a.tif", painted()[0], 0.5, levels=1)
    damage_tile(path, 600, 600)
    found = classify_slide(model, path, CLASSES, config.replace(max_unreadable=0.2))
    assert found.slide.unreadable == 4
    assert found.label == "pink"
    assert not ((found.xy >= 512) & (found.xy < 768)).all(axis=1).any()
    assert len(found.tile_scores) == len(found.xy)


def test_the_deciding_k_is_documented_and_can_be_chosen() -> None:
    assert SlideConfig().deciding_k == 10
    assert SlideConfig(top_k=(10, 5, 5, 1)).top_k == (1, 5, 10)
    assert SlideConfig(top_k=(1, 7, 50)).deciding_k == 7
    assert SlideConfig(top_k=(100, 200)).deciding_k == 100
    assert SlideConfig(label_k=50).deciding_k == 50
    with pytest.raises(ValueError, match=r"label_k = 7 is not among"):
        SlideConfig(label_k=7)
    with pytest.raises(ValueError, match="at least 1"):
        SlideConfig(top_k=(0, 5))


def test_cached_features_give_the_same_answer_to_the_last_bit(
    prediction: SlidePrediction, slide_path: Path, config: SlideConfig, tmp_path: Path, model: MeanColour
) -> None:
    path = embed(model, slide_path, config).save(tmp_path)
    again = rescore(read_features(path), model, CLASSES, config)
    np.testing.assert_array_equal(again.tile_scores, prediction.tile_scores)
    assert again.scores == prediction.scores
    assert again.label == prediction.label
    assert {name for name, _ in again.top_tiles.items()} == {"pink", "purple"}


def test_new_prompts_on_cached_features_read_no_slide(
    slide_path: Path, config: SlideConfig, tmp_path: Path, model: MeanColour
) -> None:
    path = embed(model, slide_path, config).save(tmp_path)
    model.batches.clear()
    found = rescore(
        read_features(path), model, {"purple": ["purple"], "red": ["red"], "pink": ["pink"]}, config
    )
    assert found.classes == ("purple", "red", "pink")
    assert found.label == "pink"
    assert model.batches == []


def test_features_of_another_model_are_refused(slide_path: Path, config: SlideConfig, tmp_path: Path) -> None:
    path = embed(MeanColour(), slide_path, config).save(tmp_path)
    with pytest.raises(UserError, match=r"made by mean-colour \(sha256 aaaaaaaaaaaa\), not by mean-colour"):
        rescore(read_features(path), MeanColour(sha="b" * 64), CLASSES, config)


def test_an_unknown_class_is_named(prediction: SlidePrediction) -> None:
    with pytest.raises(UserError, match="class 'blue' was not asked for; the classes are: pink, purple"):
        prediction.heatmap("blue")


def test_the_key_of_features_follows_file_settings_and_model(slide_path: Path, tmp_path: Path) -> None:
    config = SlideConfig()
    key = features_key(slide_path, "model", config)
    assert key == features_key(slide_path, "model", config.replace(top_k=(1,), batch_size=3, threads=1))
    others = [
        features_key(slide_path, "other", config),
        features_key(slide_path, "model", config, 0.4),
        features_key(slide_path, "model", config.replace(mpp=1.0)),
        features_key(slide_path, "model", config.replace(slide_mpp=0.3)),
        features_key(slide_path, "model", config.replace(tile_px=224)),
        features_key(slide_path, "model", config.replace(tissue=False)),
    ]
    mask = tmp_path / "m.png"
    for grey in (0, 255):
        Image.new("L", (4, 3), grey).save(mask)
        others.append(features_key(slide_path, "model", config.replace(mask=mask)))
    assert len({key, *others}) == len(others) + 1


def test_a_model_without_a_checkpoint_is_known_by_its_weights() -> None:
    import torch

    first, second = MeanColour(sha=""), MeanColour(sha="")
    assert model_sha256(first) == model_sha256(second)
    with torch.no_grad():
        second.logit_scale += 1
    assert model_sha256(first) != model_sha256(second)
    assert len(model_sha256(first)) == 64
