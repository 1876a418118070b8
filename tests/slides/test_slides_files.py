"""Every file of a slide: names, columns, attributes, schemas."""

from __future__ import annotations

import base64
import errno
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import h5py
import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from slide_fakes import GLASS, MeanColour, painted, write_slide_at

from pathclip.core.errors import FaultError, UserError
from pathclip.slides import SlideConfig, SlidePrediction, classify_slide, read_features, rescore
from pathclip.slides.colours import class_colours, css
from pathclip.slides.heatmap import class_map, scale_bar_um
from pathclip.slides.page import page_data

CLASSES = {"pink": ["pink"], "purple": ["purple"]}
SCHEMAS = Path(__file__).resolve().parents[2] / "docs/reference/schemas"
SUFFIXES = [".geojson", ".h5", ".heatmap.png", ".html", ".regions.geojson", ".scores.parquet"]


def schema(name: str) -> dict:
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def saved(prediction: SlidePrediction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("saved")
    prediction.save(out, "case 1")
    return out


def test_saving_writes_six_files_of_the_name_and_nothing_else(
    saved: Path, prediction: SlidePrediction, tmp_path: Path
) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["case 1" + suffix for suffix in SUFFIXES]
    assert sorted(path.name for path in prediction.save(tmp_path)) == ["painted" + s for s in SUFFIXES]


def test_a_failed_write_leaves_no_half_file(
    prediction: SlidePrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5py.File, "create_dataset", fail)
    with pytest.raises(FaultError, match=r"cannot write .*painted\.h5: No space left on device"):
        prediction.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_h5_holds_features_and_level_0_coordinates(saved: Path, prediction: SlidePrediction) -> None:
    with h5py.File(saved / "case 1.h5") as file:
        count = len(prediction.xy)
        assert file["features"].dtype == np.float16
        assert file["features"].shape == (count, 3)
        assert file["features"].chunks == (min(256, count), 3)
        assert file["coords"].dtype == np.int32
        np.testing.assert_array_equal(file["coords"][:], prediction.xy)


def test_h5_attributes_are_tridents_and_ours(saved: Path) -> None:
    with h5py.File(saved / "case 1.h5") as file:
        coords = dict(file["coords"].attrs)
        assert {k: coords[k] for k in ("patch_size", "patch_size_level0", "overlap", "name")} == {
            "patch_size": 128,
            "patch_size_level0": 128,
            "overlap": 0,
            "name": "case 1",
        }
        assert (coords["level0_width"], coords["level0_height"]) == (2048, 1536)
        assert coords["level0_magnification"] == pytest.approx(20)
        assert coords["target_magnification"] == pytest.approx(20)
        assert (coords["patch_level"], coords["downsample"]) == (0, pytest.approx(1))
        for place in (file, file["features"], file["coords"]):
            assert place.attrs["mpp"] == 0.5
            assert place.attrs["tile_px"] == 128
            assert place.attrs["model_id"] == "mean-colour"
            assert place.attrs["model_sha"] == "a" * 64
            assert place.attrs["normalized"]
        assert file["features"].attrs["encoder"] == "mean-colour"
        assert file.attrs["schema"] == "pathclip.slide-features/1"
        assert "savetodir" not in coords


def test_h5_omits_clams_attributes_where_they_would_mislead(
    slide_path: Path, tmp_path: Path, config: SlideConfig
) -> None:
    found = classify_slide(MeanColour(), slide_path, CLASSES, config.replace(mpp=1.0))
    assert found.slide.plan.read_px == 256  # shrunk to 128: patch_size at patch_level would be half the area
    with h5py.File(found.slide.save(tmp_path)) as file:
        assert "patch_level" not in file["coords"].attrs
        assert file["coords"].attrs["patch_size_level0"] == 256


def test_h5_comes_back_as_it_was(saved: Path, prediction: SlidePrediction) -> None:
    back, slide = read_features(saved / "case 1.h5"), prediction.slide
    np.testing.assert_array_equal(back.features, slide.features)
    np.testing.assert_array_equal(back.xy, slide.xy)
    np.testing.assert_array_equal(back.tissue.mask, slide.tissue.mask)
    for name in ("vendor", "size", "bounds", "mpp", "unreadable", "provenance", "key", "state"):
        assert getattr(back, name) == getattr(slide, name), name
    assert replace(back.plan, xy=None) == replace(slide.plan, xy=None)
    assert back.thumbnail.downsample == slide.thumbnail.downsample
    assert np.abs(back.thumbnail.rgb.astype(int) - slide.thumbnail.rgb).mean() < 2


def test_files_of_before_tiles_could_overlap_are_read(prediction: SlidePrediction, tmp_path: Path) -> None:
    path = prediction.slide.save(tmp_path)
    with h5py.File(path, "r+") as file:
        for place in (file, file["coords"], file["features"]):
            del place.attrs["overlap_px"]
    assert read_features(path).plan.overlap_px == 0


def foreign_h5(path: Path, prediction: SlidePrediction, attributes: dict, dtype: str = "f4") -> Path:
    with h5py.File(path, "w") as file:
        file["features"] = (
            3.0 * prediction.slide.features.astype(dtype)[None]
        )  # CLAM and TRIDENT do not normalise
        file["coords"] = prediction.xy.astype("i8")
        file["coords"].attrs.update(attributes)
    return path


@pytest.mark.parametrize(
    "attributes",
    [
        {"patch_size": 128, "patch_size_level0": 128, "level0_width": 2048, "level0_height": 1536},
        {"patch_size": 64, "patch_level": 0, "downsample": [2.0, 2.0]},
    ],
    ids=["trident", "clam"],
)
def test_features_of_trident_and_clam_can_be_scored(
    tmp_path: Path, prediction: SlidePrediction, config: SlideConfig, attributes: dict
) -> None:
    features = read_features(foreign_h5(tmp_path / "other.h5", prediction, attributes))
    found = rescore(features, MeanColour(), CLASSES, config)
    assert found.label == "pink"
    np.testing.assert_allclose(found.tile_scores, prediction.tile_scores, atol=2e-3)
    assert found.mpp is None
    assert found.slide.plan.width == 128
    found.save(tmp_path / "out")
    data = page_data(found, "other")
    assert (data["mpp"], data["tiles"]["mpp"], data["mpp_source"]) == (None, None, "unknown")
    jsonschema.validate(data, schema("slide-page"))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.write_text("no hdf5"), "cannot be read as an HDF5 features file"),
        (lambda p: h5py.File(p, "w").close(), "no datasets 'features' and 'coords'"),
    ],
)
def test_a_file_without_features_is_named(tmp_path: Path, make, match: str) -> None:
    make(tmp_path / "x.h5")
    with pytest.raises(UserError, match=match):
        read_features(tmp_path / "x.h5")


def test_foreign_features_without_tile_size_or_rows_in_step_are_refused(
    tmp_path: Path, prediction: SlidePrediction
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["coords"] = np.ones((3, 4)), np.array([[0, 0], [100, 250], [377, 90]])
    with pytest.raises(UserError, match=r"does not state the size of its tiles.*patch_size_level0"):
        read_features(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((3, 4)), np.zeros((2, 2))
    with pytest.raises(UserError, match="3 features but 2 coordinates"):
        read_features(tmp_path / "b.h5")


def test_scores_are_a_row_per_tile_in_level_0_pixels(saved: Path, prediction: SlidePrediction) -> None:
    table = pq.read_table(saved / "case 1.scores.parquet")
    assert table.column_names == ["x", "y", "width", "height", "prob_pink", "prob_purple"]
    assert table.schema.metadata[b"schema"] == b"pathclip.slide-scores/1"
    np.testing.assert_array_equal(np.stack([table["x"], table["y"]], 1), prediction.xy)
    np.testing.assert_array_equal(table["prob_purple"], prediction.tile_probabilities[:, 1])
    assert set(table["width"].to_pylist()) == {128}
    jsonschema.validate(table.to_pylist(), schema("slide-scores"))


def test_geojson_is_what_qupath_reads_and_hits_the_painted_blocks(saved: Path) -> None:
    data = json.loads((saved / "case 1.geojson").read_text(encoding="utf-8"))
    jsonschema.validate(data, schema("slide-tiles"))
    for feature in data["features"]:
        ring = feature["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]
        xs, ys = zip(*ring, strict=True)
        assert (max(xs) - min(xs), max(ys) - min(ys)) == (128, 128)
        name = feature["properties"]["classification"]["name"]
        left, upper, right, lower = painted()[1][name]
        assert left - 128 <= min(xs) <= max(xs) <= right + 128
        assert upper - 128 <= min(ys) <= max(ys) <= lower + 128
        chances = feature["properties"]["measurements"]
        assert set(chances) == {"prob_pink", "prob_purple"}
        assert chances[f"prob_{name}"] == max(chances.values())


def test_the_geojson_file_is_the_object_of_to_geojson(saved: Path, prediction: SlidePrediction) -> None:
    assert json.loads((saved / "case 1.geojson").read_text(encoding="utf-8")) == prediction.to_geojson()


def test_geojson_of_a_cropped_scan_counts_from_the_scanned_area(prediction: SlidePrediction) -> None:
    moved = replace(prediction, slide=replace(prediction.slide, bounds=(100, 50, 1900, 1400)))
    here, there = (
        p.to_geojson()["features"][0]["geometry"]["coordinates"][0][0] for p in (prediction, moved)
    )
    assert [here[0] - there[0], here[1] - there[1]] == [100, 50]


def test_the_heatmap_leaves_unscored_area_untouched_to_the_bit(prediction: SlidePrediction) -> None:
    view = prediction.slide.thumbnail
    picture = np.asarray(prediction.heatmap("purple"))
    scored = np.zeros(picture.shape[:2], bool)
    down = view.downsample[0]
    for x, y in prediction.xy / down:
        scored[round(y) : round(y + 128 / down), round(x) : round(x + 128 / down)] = True
    np.testing.assert_array_equal(picture[~scored], view.rgb[~scored])
    assert (picture[scored] != view.rgb[scored]).any(axis=1).all()


def test_the_heatmap_is_brightest_on_the_painted_block(prediction: SlidePrediction) -> None:
    from matplotlib import colormaps

    view = prediction.slide.thumbnail
    picture = np.asarray(prediction.heatmap("purple")).astype(float)
    heat = (picture - 0.45 * view.rgb) / 0.55  # undo the blend
    yellow = np.array(colormaps["viridis"](1.0)[:3]) * 255
    dark = np.array(colormaps["viridis"](0.0)[:3]) * 255
    down = view.downsample[0]

    def middle(name: str) -> np.ndarray:
        left, upper, right, lower = painted()[1][name]
        return heat[round((upper + lower) / 2 / down), round((left + right) / 2 / down)]

    np.testing.assert_allclose(middle("purple"), yellow, atol=8)
    np.testing.assert_allclose(middle("pink"), dark, atol=8)


def test_tiles_of_a_grid_join_without_a_seam_at_any_scale(prediction: SlidePrediction) -> None:
    from pathclip.slides.heatmap import _boxes

    for stride in (128.0, 128.257, 137.4):
        xy = np.rint(np.stack(np.meshgrid(np.arange(8), np.arange(6)), -1).reshape(-1, 2) * stride).astype(
            np.int32
        )
        plan = replace(prediction.slide.plan, xy=xy, stride=stride)
        boxes = _boxes(replace(prediction, slide=replace(prediction.slide, plan=plan)))
        grid = boxes.reshape(6, 8, 4)
        np.testing.assert_array_equal(grid[:, :-1, 2], grid[:, 1:, 0])
        np.testing.assert_array_equal(grid[:-1, :, 3], grid[1:, :, 1])


def test_the_class_map_has_the_colour_of_the_best_class(prediction: SlidePrediction) -> None:
    view = prediction.slide.thumbnail
    picture = np.asarray(class_map(prediction)).astype(float)
    y, x = round(576 / view.downsample[1]), round(1472 / view.downsample[0])
    expected = 0.45 * view.rgb[y, x] + 0.55 * np.array(class_colours(2)[1])
    np.testing.assert_allclose(picture[y, x], expected, atol=1)


def test_the_figure_is_a_png_larger_than_the_slide(saved: Path) -> None:
    with Image.open(saved / "case 1.heatmap.png") as figure:
        assert figure.format == "PNG"
        assert figure.width > 900
        assert len(np.unique(np.asarray(figure.convert("L")))) > 20


def test_the_figure_can_show_every_class(prediction: SlidePrediction, tmp_path: Path) -> None:
    from pathclip.slides.heatmap import _panels, write_heatmap

    panels = _panels(prediction, True)
    titles = ["slide", "most probable class", "probability of pink", "probability of purple"]
    assert [title for title, _, _ in panels] == titles
    np.testing.assert_array_equal(np.asarray(panels[3][1]), np.asarray(prediction.heatmap("purple")))
    write_heatmap(tmp_path / "one.png", prediction, "a")
    write_heatmap(tmp_path / "all.png", prediction, "a", True)
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "all.png") as every:
        assert every.size != one.size


@pytest.mark.parametrize("count", [1, 3, 4, 7, 12, 34])
@pytest.mark.parametrize("aspect", [0.2, 0.75, 1.0, 4.0])
def test_panels_have_places_and_the_figure_stays_of_a_printable_size(count: int, aspect: float) -> None:
    from pathclip.slides.heatmap import _grid

    (rows, columns), (width, height) = _grid(count, aspect)
    assert rows * columns >= count
    assert (rows - 1) * columns < count
    assert width <= 25
    assert height <= 60


@pytest.mark.parametrize("width", [3.0, 90.0, 1110.0, 60000.0])
def test_scale_bars_are_round_and_near_a_fifth(width: float) -> None:
    length = scale_bar_um(width)
    assert 0.4 * width / 5 <= length <= width / 5
    assert f"{length:.0e}"[0] in "125"


def test_colours_of_classes_differ_and_stay_when_classes_are_added() -> None:
    assert class_colours(5) == class_colours(40)[:5]
    assert len(set(class_colours(40))) == 40
    assert css((0, 114, 178)) == "#0072b2"


def test_an_empty_slide_has_all_six_files(tmp_path: Path) -> None:
    blank = np.full((1024, 1024, 3), GLASS, np.uint8)
    found = classify_slide(MeanColour(), write_slide_at(tmp_path / "a.tif", blank, 0.5), CLASSES)
    assert len(found.save(tmp_path / "out")) == 6
    assert pq.read_table(tmp_path / "out/a.scores.parquet").num_rows == 0
    assert json.loads((tmp_path / "out/a.geojson").read_text())["features"] == []
    assert read_features(tmp_path / "out/a.h5").state == "empty"
    jsonschema.validate(page_data(found, "a"), schema("slide-page"))


def embedded(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_the_page_carries_its_data_and_no_address(saved: Path, prediction: SlidePrediction) -> None:
    text = (saved / "case 1.html").read_text(encoding="utf-8")
    assert re.search(r"default-src 'none'", text)
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", text)
    assert "http" not in re.sub(r"http-equiv", "", text)
    data = embedded(saved / "case 1.html")
    jsonschema.validate(data, schema("slide-page"))
    assert data["name"] == "case 1"
    tiles = data["tiles"]
    xy = np.frombuffer(base64.b64decode(tiles["xy"]), "<i4").reshape(-1, 2)
    np.testing.assert_array_equal(xy, prediction.xy)
    chances = np.frombuffer(base64.b64decode(tiles["probability"]), "<u2").reshape(-1, 2) / 65535
    np.testing.assert_allclose(chances, prediction.tile_probabilities, atol=1e-5)
    cosines = np.frombuffer(base64.b64decode(tiles["cosine"]), "<i2").reshape(-1, 2) / 32767
    np.testing.assert_allclose(cosines, prediction.tile_scores, atol=2e-5)


def test_the_page_shows_the_best_tiles_of_each_class(saved: Path, prediction: SlidePrediction) -> None:
    for group in embedded(saved / "case 1.html")["top"]:
        column = prediction.column(group["class"])
        rows = [item["tile"] for item in group["tiles"]]
        assert len(rows) == 8
        best = np.sort(prediction.tile_scores[:, column])[::-1][:8]
        np.testing.assert_array_equal(prediction.tile_scores[rows, column], best)
        picture = Image.open(io.BytesIO(base64.b64decode(group["tiles"][0]["jpeg"])))
        assert picture.size == (128, 128)
        mean = np.asarray(picture).reshape(-1, 3).mean(0)
        np.testing.assert_allclose(
            mean, {"pink": (225, 130, 175), "purple": (110, 60, 150)}[group["class"]], atol=30
        )


def test_no_name_breaks_out_of_the_page_or_the_figure(
    slide_path: Path, tmp_path: Path, config: SlideConfig
) -> None:
    nasty = '</script><b>"&@@CSS@@ $x_1$ 腺癌'
    found = classify_slide(
        MeanColour(), slide_path, {f"pink {nasty}": ["pink"], "purple": ["purple"]}, config
    )
    from pathclip.slides.heatmap import write_heatmap
    from pathclip.slides.page import write_page

    data = embedded(write_page(tmp_path / "a.html", found, nasty))
    assert data["name"] == nasty
    assert data["classes"][0]["name"] == f"pink {nasty}"
    write_heatmap(tmp_path / "a.png", found, nasty)  # warnings about missing glyphs are errors here
    assert (tmp_path / "a.html").read_text(encoding="utf-8").count("</script>") == 2
