from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image
from slide_fakes import painted, write_slide_at, write_tiff
from typer.testing import CliRunner, Result

from pathclip.cli.__main__ import app

SCHEMAS = Path(__file__).resolve().parents[2] / "docs/reference/schemas"
SUFFIXES = (".geojson", ".h5", ".heatmap.png", ".html", ".regions.geojson", ".scores.parquet")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["slide", *map(str, arguments)], env={"NO_COLOR": "1", "COLUMNS": "200"})


def answer(result: Result) -> dict:
    return json.loads(result.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pathclip import encoders

    folder = tmp_path_factory.mktemp("model")
    encoders.create("tiny-vit-112").save(folder)
    return folder


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_slide_at(tmp_path / "Fall 1 – Ä.tif", painted(768, 768)[0], 0.5, levels=1)


@pytest.fixture
def common(model: Path, tmp_path: Path) -> list[object]:
    return ["--model", model, "--classes", "tumour,stroma", "--out", tmp_path / "out", "--json"]


def test_one_good_and_one_broken_slide(slide: Path, common: list[object], tmp_path: Path) -> None:
    (tmp_path / "broken.svs").write_text("x" * 1001)
    result = call("classify", slide, tmp_path / "broken.svs", *common)
    assert result.exit_code == 1, result.output
    data = answer(result)
    assert (data["done"], data["failed"], data["empty"]) == (1, 1, 0)
    good, broken = data["slides"]
    assert good["label"] in ("tumour", "stroma")
    assert set(good["files"]) == {slide.stem + suffix for suffix in SUFFIXES}
    assert all((tmp_path / "out" / name).stat().st_size > 0 for name in good["files"])
    assert (broken["state"], broken["name"]) == ("failed", "broken")
    assert "cannot be opened" in broken["reason"]
    assert {"results.csv", "status.jsonl", "result.json"} <= {p.name for p in (tmp_path / "out").iterdir()}


def test_a_person_sees_a_table(slide: Path, common: list[object]) -> None:
    result = call("classify", slide, *common[:-1])
    assert result.exit_code == 0
    assert slide.name in result.stdout
    assert f"look at {common[5] / 'index.html'}" in result.stdout.replace("\n", "")


def test_rescoring_features_by_the_command(
    slide: Path, model: Path, common: list[object], tmp_path: Path
) -> None:
    assert call("embed", slide, "--model", model, "--out", tmp_path / "h5").exit_code == 0
    result = call("classify", "--features", tmp_path / f"h5/{slide.stem}.h5", *common)
    assert result.exit_code == 0, result.output
    assert answer(result)["slides"][0]["label"]


def test_a_worker_process_gives_what_this_one_gives(slide: Path, model: Path, tmp_path: Path) -> None:
    from pathclip.slides import read_features

    arguments = ["embed", slide, "--model", model, "--json", "--out"]
    assert call(*arguments, tmp_path / "serial").exit_code == 0
    result = call(*arguments, tmp_path / "spawned", "--engine", "processes", "--workers", 1)
    assert result.exit_code == 0, result.output
    ours, theirs = (
        read_features(tmp_path / out / f"{slide.stem}.h5").features for out in ("spawned", "serial")
    )
    np.testing.assert_allclose(ours.astype(float), theirs.astype(float), atol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (
            ["--mpp", "400"],
            "--mpp 400.0: should be less than or equal to 20 (scale at which tiles are cut, µm/px)",
        ),
        (["--slide-mpp", "0"], "--slide-mpp 0.0: should be greater than or equal to 0.05"),
        (["--top-k", "1,x"], "--top-k 1,x: expected whole numbers"),
        (["--top-k", "0"], "every K must be at least 1"),
        (["--set", "tile_pxx=3"], "did you mean tile_px?"),
        (["--mask", "none.png"], "mask none.png does not exist"),
        (["--mpp", "0.1"], "--allow-upsample"),
        (["--tile-px", "4000"], "smaller than one tile of 4000 px"),
        (["--features", "none.h5"], "has no features file of its name"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    slide: Path, common: list[object], arguments: list[str], match: str
) -> None:
    result = call("classify", slide, *common, *arguments)
    assert result.exit_code == 2, result.output
    data = answer(result)
    message = data.get("error") or data["slides"][0]["reason"]
    assert match in message
    assert "Traceback" not in result.output


def test_a_slide_without_scale_names_the_flag_and_the_flag_helps(
    common: list[object], tmp_path: Path
) -> None:
    path = write_tiff(tmp_path / "bare.tif", painted(768, 768)[0], levels=1)
    result = call("classify", path, *common)
    assert result.exit_code == 2
    assert "--slide-mpp" in answer(result)["slides"][0]["reason"]
    assert not (tmp_path / "out/bare.html").exists()
    again = answer(call("classify", path, *common, "--slide-mpp", "0.5"))
    assert (again["slides"][0]["mpp"], again["slides"][0]["mpp_source"]) == (0.5, "slide-mpp")


def test_wrong_classes_and_models_are_named(slide: Path, common: list[object], tmp_path: Path) -> None:
    classes = common.copy()
    classes[classes.index("--classes") + 1] = tmp_path / "none.json"
    result = call("classify", slide, *classes)
    assert (result.exit_code, "none.json" in answer(result)["error"]) == (2, True)
    model = common.copy()
    model[model.index("--model") + 1] = tmp_path / "none"
    result = call("classify", slide, *model)
    assert (result.exit_code, "none" in answer(result)["error"]) == (2, True)


def test_a_config_file_gives_way_to_options(slide: Path, common: list[object], tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("tile_px = 128\ntop_k = [1, 2]\n")
    result = call("classify", slide, *common, "--config", tmp_path / "c.toml", "--top-k", "3")
    assert result.exit_code == 0, result.output
    row = answer(result)["slides"][0]
    assert set(row["scores"]) == {"3"}
    config = json.loads((tmp_path / "out/result.json").read_text())["provenance"]["config"]
    assert (config["tile_px"], config["top_k"]) == (128, [3])


def test_info_shows_scale_levels_and_what_is_wrong(slide: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "p.png")
    result = call("info", slide, tmp_path / "p.png", tmp_path / "gone.svs", "--json")
    assert result.exit_code == 1
    first, second, third = answer(result)["slides"]
    assert (first["width"], first["vendor"], first["mpp"]) == (768, "generic-tiff", pytest.approx(0.5))
    assert (second["mpp"], "--slide-mpp" in second["note"]) == (None, True)
    assert "does not exist" in third["error"]
    table = call("info", slide, tmp_path / "p.png").stdout
    assert "768 x 768" in table
    assert "unknown (--slide-mpp)" in table
    assert call("info", tmp_path / "gone.svs").exit_code == 2


def test_the_real_slides(data_dir: Path, common: list[object], tmp_path: Path) -> None:
    folder = data_dir / "slides"
    result = call("classify", folder / "cmu-1-small-region.svs", folder / "broken.svs", *common)
    assert result.exit_code == 1, result.output
    good, broken = answer(result)["slides"]
    assert (good["state"], good["mpp"], good["mpp_source"]) == ("done", 0.499, "openslide")
    assert 35 <= good["tiles"] <= 55
    assert broken["state"] == "failed"
    assert {f"cmu-1-small-region{suffix}" for suffix in SUFFIXES} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    tiles = json.loads((tmp_path / "out/cmu-1-small-region.geojson").read_text())
    jsonschema.validate(tiles, json.loads((SCHEMAS / "slide-tiles.schema.json").read_text()))
    assert len(tiles["features"]) == good["tiles"]
