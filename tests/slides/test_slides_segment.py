from __future__ import annotations

import csv
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image
from slide_fakes import MeanColour, painted, write_slide_at

from pathclip.core.config import load_config
from pathclip.core.errors import UserError
from pathclip.core.files import read_json
from pathclip.slides import (
    Segment,
    SegmentConfig,
    SlideConfig,
    SlidePrediction,
    classify_slide,
    judge_segment,
    open_slide,
    read_annotation,
    run_slides,
)
from pathclip.slides.mask import read_mask
from pathclip.slides.segment import write_segment
from pathclip.synthetic import write_slide
from pathclip.synthetic.layout import Region

CLASSES = {"pink": ["pink"], "purple": ["purple"]}
BLOCKS = painted()[1]
SCHEMAS = Path(__file__).resolve().parents[2] / "docs/reference/schemas"


def polygon(*corners: tuple[float, float], name: str | None = None) -> dict:
    ring = [list(corner) for corner in (*corners, corners[0])]
    properties = {"classification": {"name": name}} if name else {}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def rectangle(left: float, upper: float, right: float, lower: float, name: str | None = None) -> dict:
    return polygon((left, upper), (right, upper), (right, lower), (left, lower), name=name)


def write(path: Path, *features: dict) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def slow_fit(found: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    """Pixel by pixel."""
    pairs = list(zip(found.ravel().tolist(), drawn.ravel().tolist(), strict=True))
    hit = sum(a and b for a, b in pairs)
    false = sum(a and not b for a, b in pairs)
    missed = sum(b and not a for a, b in pairs)
    return {
        "dice": 2 * hit / (2 * hit + false + missed),
        "iou": hit / (hit + false + missed),
        "sensitivity": hit / (hit + missed),
        "precision": hit / (hit + false),
    }


def slow_oracle(prediction: SlidePrediction, segment: Segment, drawn: np.ndarray) -> float:
    """Every threshold by itself."""
    chances = prediction.tile_probabilities[:, prediction.column(segment.label)]
    best = 0.0
    for threshold in chances.tolist():
        mask = prediction.segment(segment.label, threshold).mask
        best = max(best, 2 * (mask & drawn).sum() / (mask.sum() + drawn.sum()))
    return best


def test_the_segment_is_the_tiles_of_its_class(prediction: SlidePrediction) -> None:
    segment = prediction.segment("purple")
    best = prediction.tile_probabilities.argmax(axis=1) == 1
    np.testing.assert_array_equal(segment.chosen, best)
    assert segment.downsample == 16  # 8 µm/px of a slide at 0.5
    expected = np.zeros((96, 128), bool)
    for x, y in prediction.xy[best] // 16:
        expected[y : y + 8, x : x + 8] = True
    np.testing.assert_array_equal(segment.mask, expected)
    assert segment.area(segment.mask) == pytest.approx(best.sum() * prediction.tile_mm2, rel=1e-3)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.9, 1.0])
def test_a_threshold_takes_the_tiles_at_or_above_it(prediction: SlidePrediction, threshold: float) -> None:
    chosen = prediction.segment("pink", threshold).chosen
    np.testing.assert_array_equal(chosen, prediction.tile_probabilities[:, 0] >= threshold)


def test_the_fit_is_that_of_the_slow_reference_for_any_drawing(prediction: SlidePrediction) -> None:
    rng = np.random.default_rng(4)
    for label in CLASSES:
        segment = prediction.segment(label)
        for share in (0.05, 0.5):
            drawn = rng.random(segment.mask.shape) < share
            found = judge_segment(prediction, segment, drawn)
            oracle = found.pop("oracle_dice")
            assert found == pytest.approx(slow_fit(segment.mask, drawn))
            assert oracle == pytest.approx(slow_oracle(prediction, segment, drawn))


def test_closed_forms_of_the_fit(prediction: SlidePrediction, tmp_path: Path) -> None:
    segment = prediction.segment("purple")
    assert judge_segment(prediction, segment, segment.mask)["dice"] == 1
    nothing = np.zeros_like(segment.mask)
    empty = judge_segment(prediction, segment, nothing)
    assert empty == {"dice": 0, "iou": 0, "sensitivity": None, "precision": 0, "oracle_dice": None}
    missed = judge_segment(prediction, replace(segment, mask=nothing), segment.mask)
    assert (missed["dice"], missed["sensitivity"], missed["precision"]) == (0, 0, None)
    # half of a drawing found, nothing besides: sensitivity 1/2, dice 2/3
    half = segment.mask.copy()
    twice = np.concatenate([half, half])
    found = judge_segment(prediction, replace(segment, mask=np.concatenate([half, nothing])), twice)
    assert (found["sensitivity"], found["precision"]) == (0.5, 1)
    assert found["dice"] == pytest.approx(2 / 3)


def test_drawings_as_geojson_and_as_picture_are_the_same(prediction: SlidePrediction, tmp_path: Path) -> None:
    segment = prediction.segment("purple")
    left, upper, right, lower = BLOCKS["purple"]
    drawn = np.zeros((1536, 2048), np.uint8)
    drawn[upper:lower, left:right] = 255
    drawn[upper + 128 : upper + 256, left + 128 : left + 256] = 0
    Image.fromarray(drawn).resize((512, 384), Image.Resampling.NEAREST).save(tmp_path / "a.png")
    holed = rectangle(left, upper, right, lower)
    hole = rectangle(left + 128, upper + 128, left + 256, upper + 256)["geometry"]["coordinates"][0]
    holed["geometry"]["coordinates"].append(hole)
    write(tmp_path / "a.geojson", holed)
    masks = [read_annotation(tmp_path / name, prediction, segment, None) for name in ("a.png", "a.geojson")]
    np.testing.assert_array_equal(*masks)
    np.testing.assert_array_equal(masks[0], drawn[8::16, 8::16] > 0)


def test_only_objects_of_the_named_class_count(prediction: SlidePrediction, tmp_path: Path) -> None:
    segment = prediction.segment("purple")
    path = write(tmp_path / "a.geojson", rectangle(0, 0, 160, 160, "Tumor"), rectangle(0, 320, 160, 480, "x"))
    assert read_annotation(path, prediction, segment, "Tumor").sum() == 100
    assert read_annotation(path, prediction, segment, None).sum() == 200
    assert read_annotation(path, prediction, segment, "absent").sum() == 0


def test_drawings_of_a_cropped_scan_count_from_the_scanned_area(
    prediction: SlidePrediction, tmp_path: Path
) -> None:
    moved = replace(prediction, slide=replace(prediction.slide, bounds=(160, 320, 1888, 1216)))
    path = write(tmp_path / "a.geojson", rectangle(0, 0, 160, 160))
    segment = moved.segment("purple")
    drawn = read_annotation(path, moved, segment, None)
    assert drawn[:10, :10].all()
    assert drawn.sum() == 100
    Image.fromarray(np.pad(np.full((10, 10), 255, np.uint8), ((20, 66), (10, 108)))).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_annotation(tmp_path / "a.png", moved, segment, None), drawn)


def test_the_picture_of_a_cropped_scan_lies_over_the_whole_slide(
    prediction: SlidePrediction, tmp_path: Path
) -> None:
    plan = replace(prediction.slide.plan, xy=prediction.xy + np.array([160, 320], np.int32))
    slide = replace(prediction.slide, bounds=(160, 320, 1888, 1216), size=(2300, 1900), plan=plan)
    moved = replace(prediction, slide=slide)
    config = SegmentConfig(label="purple")
    (picture, _), _ = write_segment(tmp_path, "a", moved, config, tmp_path / "a.tif")
    plain, shifted = prediction.segment("purple"), moved.segment("purple")
    np.testing.assert_array_equal(shifted.mask[:96, :128], plain.mask)
    shown = np.asarray(Image.open(picture)) > 0
    assert shown.shape == (119, 144)
    np.testing.assert_array_equal(shown[20:115, 10:138], plain.mask[:95])
    assert shown.sum() == plain.mask.sum()


@pytest.mark.parametrize("stride", [128.257, 224.4, 130.0])
def test_tiles_have_their_exact_area_whatever_their_side(prediction: SlidePrediction, stride: float) -> None:
    cells = prediction.xy // 128
    plan = replace(prediction.slide.plan, xy=np.rint(cells * stride).astype(np.int32), stride=stride)
    moved = replace(prediction, slide=replace(prediction.slide, plan=plan, size=(4096, 3072)))
    segment = moved.segment("pink")
    assert segment.area(segment.mask) == pytest.approx(segment.chosen.sum() * moved.tile_mm2, rel=1e-9)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides, two of them drawn on: one exactly, one half of it."""
    folder = tmp_path_factory.mktemp("drawn")
    write_slide_at(folder / "a.tif", painted()[0], 0.5)
    for name in "bc":
        shutil.copy(folder / "a.tif", folder / f"{name}.tif")
    (folder / "drawings").mkdir()
    left, upper, right, lower = BLOCKS["purple"]
    write(folder / "drawings/a.geojson", rectangle(left, upper, right, lower))
    write(folder / "drawings/b.geojson", rectangle(left, upper, right, (upper + lower) / 2))
    return folder


@pytest.fixture
def quick_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathclip.slides.export.write_heatmap", lambda path, *_: path.touch() or path)


def settings_of(folder: Path, **more: object) -> SlideConfig:
    segment = SegmentConfig(label="purple", annotations=folder / "drawings", **more)
    return SlideConfig(tile_px=128, page_tiles=0, segment=segment)


def test_a_run_writes_masks_outlines_and_the_fit(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, quick_figure: None
) -> None:
    out = tmp_path / "out"
    with caplog.at_level(logging.WARNING, "pathclip"):
        run = run_slides(
            [cohort / f"{n}.tif" for n in "abc"], MeanColour(), CLASSES, settings_of(cohort), out
        )
    assert run.exit_code == 0
    assert "c.tif: no drawing of its name in" in caplog.text
    assert caplog.text.count("no drawing") == 1
    lines = (out / "segments.csv").read_text().splitlines()
    rows = {Path(row["slide"]).stem: row for row in csv.DictReader(lines)}
    assert list(rows["a"]) == [
        *("slide", "patient", "segment", "threshold", "mm2", "drawn_mm2"),
        *("dice", "iou", "sensitivity", "precision", "oracle_dice"),
    ]
    assert (rows["c"]["dice"], rows["c"]["drawn_mm2"]) == ("", "")
    area = (384 * 0.5) ** 2 / 1e6
    assert float(rows["a"]["drawn_mm2"]) == pytest.approx(area, rel=1e-3)
    found = float(rows["a"]["mm2"])
    assert found == pytest.approx(area, rel=0.5)  # tiles at its border may be of its class too
    assert float(rows["a"]["sensitivity"]) == 1
    assert float(rows["a"]["dice"]) == pytest.approx(2 * area / (found + area), rel=1e-3)
    assert float(rows["b"]["precision"]) == pytest.approx(float(rows["a"]["precision"]) / 2, rel=0.02)
    result = read_json(out / "result.json")
    jsonschema.validate(result, json.loads((SCHEMAS / "result.schema.json").read_text()))
    told = result["segment"]
    assert (told["level"], told["class"], told["threshold"], told["judged"]) == ("slide", "purple", None, 2)
    assert told["metrics"]["dice"] == pytest.approx(np.mean([float(rows[n]["dice"]) for n in "ab"]))
    low, high = told["intervals"]["dice"]
    assert low <= told["metrics"]["dice"] <= high
    outlines = json.loads((out / "a.segment.geojson").read_text())
    jsonschema.validate(outlines, json.loads((SCHEMAS / "slide-regions.schema.json").read_text()))
    record = read_json(out / ".pathclip/a.json")
    jsonschema.validate(record, json.loads((SCHEMAS / "slide-record.schema.json").read_text()))
    assert {"a.segment.png", "a.segment.geojson"} <= set(record["files"])
    # the mask can be given back as a tissue mask
    slide = open_slide(cohort / "a.tif")
    assert read_mask(out / "a.segment.png", slide, 0.5).area_mm2 == pytest.approx(found, rel=1e-3)
    slide.close()


def test_a_changed_drawing_is_judged_again_and_a_bad_one_fails_its_slide_alone(
    cohort: Path, tmp_path: Path, quick_figure: None
) -> None:
    folder = Path(shutil.copytree(cohort, tmp_path / "copy"))
    slides, out = [folder / f"{n}.tif" for n in "ab"], tmp_path / "out"
    run_slides(slides, MeanColour(), CLASSES, settings_of(folder), out)
    assert run_slides(slides, MeanColour(), CLASSES, settings_of(folder), out).skipped == {"a", "b"}
    (folder / "drawings/a.geojson").write_text('{"type": "Point"}')
    write(folder / "drawings/b.geojson", rectangle(0, 0, 100, 100))
    model = MeanColour()
    run = run_slides(slides, model, CLASSES, settings_of(folder), out)
    assert model.batches == []
    assert [record.state for record in run.records] == ["failed", "done"]
    assert "holds no Polygon or MultiPolygon" in run.records[0].reason
    assert run.records[1].segment["dice"] == 0


def test_without_a_class_there_is_no_segment(cohort: Path, tmp_path: Path, quick_figure: None) -> None:
    (tmp_path / "segments.csv").write_text("left by an earlier run")
    run_slides(cohort / "a.tif", MeanColour(), CLASSES, SlideConfig(page_tiles=0), tmp_path)
    assert not list(tmp_path.glob("*segment*"))
    assert "segment" not in read_json(tmp_path / "result.json")


def test_mistakes_are_named(cohort: Path, tmp_path: Path) -> None:
    config = SlideConfig(segment=SegmentConfig(label="tumour"))
    with pytest.raises(UserError, match=r"segment.label = 'tumour' is no class; the classes are: pink"):
        run_slides(cohort / "a.tif", MeanColour(), CLASSES, config, tmp_path)
    with pytest.raises(UserError, match=r"segment.label must name the class"):
        load_config(SlideConfig, None, ["segment.threshold=0.5"])
    assert (
        load_config(SlideConfig, None, ["segment.label=a", "segment.threshold=0.5"]).segment.threshold == 0.5
    )
    config = SlideConfig(segment=SegmentConfig(label="pink", annotations=tmp_path / "absent"))
    run = run_slides(cohort / "a.tif", MeanColour(), CLASSES, config, tmp_path)
    assert "absent does not exist; expected a file or a folder" in run.records[0].reason


def test_a_painted_region_is_found_to_within_a_tile(tmp_path: Path) -> None:
    turns = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    lake = tuple(zip(1250 + 380 * np.cos(turns), 800 + 300 * np.sin(turns), strict=True))
    everywhere = ((-9, -9), (2100, -9), (2100, 1600), (-9, 1600))
    regions = (Region("smooth_muscle", everywhere), Region("adipose_tissue", lake))
    truth = write_slide(tmp_path / "a.tif", 3, (2048, 1536), regions=regions)
    config = SlideConfig(tile_px=64, page_tiles=0, tissue=False)
    found = classify_slide(MeanColour(), truth.path, {"fat": ["pale"], "muscle": ["pink"]}, config)
    segment = found.segment("fat")
    drawn = read_annotation(write(tmp_path / "a.geojson", polygon(*lake)), found, segment, None)
    assert drawn.sum() * 256 == pytest.approx(np.pi * 380 * 300, rel=0.02)
    fit = judge_segment(found, segment, drawn)
    assert fit["dice"] > 0.8  # the encoder knows colours only: clefts in the muscle are pale too
    assert fit["sensitivity"] > 0.95
    assert fit["oracle_dice"] >= fit["dice"] - 1e-9
    within = drawn.copy()  # more than a tile inside the drawing
    for dy in range(-4, 5):
        for dx in range(-4, 5):
            within &= np.roll(drawn, (dy, dx), (0, 1))
    assert within.sum() > 500
    assert segment.mask[within].all()
