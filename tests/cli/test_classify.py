from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from pathclip.cli.__main__ import app
from pathclip.encoders import create

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 42, "patch_size": 14, "layers": 1, "width": 64},
    "text_cfg": {"context_length": 20, "layers": 1, "width": 16, "heads": 2},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "small.json").write_text(json.dumps(CONFIG))
    create(folder / "small.json").save(folder / "m")
    return folder / "m"


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    folder = tmp_path / "tiles"
    (folder / "b [x]").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in ("b [x]/2.png", "1.JPG", "b [x]/.hidden.png"):
        pixels = generator.integers(0, 256, (50, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name, format="png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def classify(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["classify", *map(str, arguments)])


def test_a_folder_is_searched_and_every_picture_gets_a_line(model: Path, tiles: Path) -> None:
    result = classify(tiles, "--model", model, "--classes", "tissue")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if str(tiles) in line]
    assert [line.split("  ")[0] for line in lines] == [str(tiles / "1.JPG"), str(tiles / "b [x]/2.png")]
    assert "2 pictures: " in result.stdout


def test_json_is_one_object_with_a_probability_per_class(model: Path, tiles: Path) -> None:
    result = classify(tiles, "--model", model, "--classes", "nsclc", "--json")
    data = json.loads(result.stdout)
    assert data["classes"] == ["LUAD", "LUSC"]
    assert (data["pictures"], data["bad"], data["prompts"]) == (2, [], "nsclc")
    assert sum(data["counts"].values()) == 2
    for image in data["images"]:
        assert sum(image["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert image["label"] == max(image["probabilities"], key=image["probabilities"].get)


def test_bad_pictures_are_named_and_counted_and_the_exit_code_is_1(
    model: Path, tiles: Path, tmp_path: Path
) -> None:
    (tiles / "broken.png").write_bytes(b"\x89PNG")
    out = tmp_path / "out"
    result = classify(tiles, tmp_path / "gone.jpg", "--model", model, "--classes", "tissue", "--out", out)
    assert result.exit_code == 1
    assert "2 could not be read:" in result.stdout
    assert f"{tmp_path / 'gone.jpg'}: no such file" in result.stdout
    assert str(tiles / "broken.png") in result.stdout
    assert sorted(path.name for path in out.iterdir()) == [
        "predictions.csv",
        "predictions.parquet",
        "result.json",
    ]
    data = json.loads(classify(tiles, "--model", model, "--classes", "tissue", "--json").stdout)
    assert [item["image"] for item in data["bad"]] == [str(tiles / "broken.png")]
    assert data["pictures"] == 3
    (tiles / "1.JPG").unlink()
    (tiles / "b [x]/2.png").unlink()
    result = classify(tiles, "--model", model, "--classes", "tissue")
    assert (result.exit_code, "no picture could be read" in result.stdout) == (1, True)


def test_many_pictures_are_summed_up(model: Path, tiles: Path) -> None:
    for index in range(45):
        (tiles / f"copy{index}.png").write_bytes((tiles / "1.JPG").read_bytes())
    result = classify(tiles, "--model", model, "--classes", "tissue")
    assert "... and 7 more (--out DIR writes them all)" in result.stdout


@pytest.mark.parametrize(
    ("images", "model_name", "classes", "message"),
    [
        ("empty", "m", "tissue", "no pictures in .*empty; give picture files or folders"),
        ("absent.jpg", "m", "tissue", r"no pictures in .*absent\.jpg"),
        ("tiles", "absent", "tissue", "absent does not exist; expected a model folder"),
        ("tiles", "m", "tisue", "no class file or shipped prompt set 'tisue'; did you mean 'tissue'"),
        ("tiles", "vinid/plip", "tissue", "vinid/plip is not in the cache"),
    ],
)
def test_a_users_mistake_ends_with_2_and_one_line(
    images: str, model_name: str, classes: str, message: str, model: Path, tiles: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    name = {"m": str(model), "absent": str(tmp_path / "absent")}.get(model_name, model_name)
    result = classify(tmp_path / images, "--model", name, "--classes", classes)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(line)


def test_features_are_kept_between_commands_and_a_strategy_can_be_named(
    model: Path, tiles: Path, tmp_path: Path
) -> None:
    given = (tiles, "--model", model, "--classes", "tissue", "--json", "--cache", tmp_path / "cache")
    first, again = (json.loads(classify(*given).stdout) for _ in range(2))
    assert first == again
    assert len(list((tmp_path / "cache").glob("*/*.safetensors"))) == 1
    screened = json.loads(classify(*given, "--strategy", "screening").stdout)
    assert screened["images"] != first["images"]
    assert len(list((tmp_path / "cache").glob("*/*.safetensors"))) == 1
    wrong = classify(*given, "--strategy", "best")
    assert wrong.exit_code == 2
    assert "strategy 'best' is unknown" in wrong.output
