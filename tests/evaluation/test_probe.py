from __future__ import annotations

import json
import logging
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest
from colour_model import TINY, ColourModel, paint, schema
from sklearn import metrics as sk
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.errors import FaultError, UserError
from pathclip.encoders import create
from pathclip.evaluation import ProbeConfig, probe
from pathclip.heads import LinearProbe


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Three colours to learn; of the test's red ones one is green."""
    for split, count in (("train", 8), ("test", 4)):
        for colour in ("red", "green", "blue"):
            for seed in range(count):
                wrong = split == "test" and colour == "red" and seed == 0
                paint(
                    tmp_path / "tiles" / split / colour / f"{seed}.png",
                    "green" if wrong else colour,
                    seed=seed + 50 * (split == "test"),
                )
    return tmp_path / "tiles"


def test_every_number_follows_from_the_predictions(model: ColourModel, tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = probe(ProbeConfig(train=tiles, test=tiles, out=out, shots=(2, 1), draws=4), model=model)
    names = {"result.json", "predictions.parquet", "confusion.png", "report.html", "probe.safetensors"}
    tables = {"metrics.csv", "classes.csv", "confusion.csv", "reliability.csv", "reliability.png"}
    assert {path.name for path in out.iterdir()} == names | tables
    result, table = (
        json.loads((out / "result.json").read_text()),
        pl.read_parquet(out / "predictions.parquet"),
    )
    jsonschema.validate(result, schema("result"))
    for row in table.to_dicts():
        jsonschema.validate(row, schema("scored-predictions"))
    truth, label = table["truth"].to_list(), table["label"].to_list()
    assert result["task"] == "linear_probe"
    assert result["metrics"]["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, label))
    assert result["metrics"]["lp_acc1"] == pytest.approx(11 / 12)  # the green one among the red
    assert result["counts"] == report.counts
    assert report.counts["also_in_training"] == 0
    assert [row["shots"] for row in result["few_shot"]] == [1, 2]
    for row in result["few_shot"]:
        assert row["interval"][0] <= row["balanced_accuracy"] <= row["interval"][1] <= 1
    assert result["provenance"]["data"]["train"]["split"] == "train"
    fitted = LinearProbe.load(out / "probe.safetensors")
    features = model.encode_images([tiles / "test" / name for name in table["image"]])
    assert fitted.predict(features) == label
    assert np.allclose(fitted.probabilities(features).max(1), table["probability"], atol=1e-6)
    page = (out / "report.html").read_text()
    assert "With few training pictures per class" in page
    assert [(m.name, m.truth, m.predicted) for m in report.mistakes] == [("red/0.png", "red", "green")]
    assert "Wrong and sure of it" in page


def test_pictures_that_cannot_be_read_are_left_out_of_both_sets(
    model: ColourModel, tiles: Path, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        (tiles / split / "red" / "bad.png").write_bytes(b"x")
    report = probe(ProbeConfig(train=tiles, test=tiles, out=tmp_path / "out"), model=model)
    assert report.counts["bad"] == 1
    assert [item["name"] for item in report.extra["probe"]["training_bad"]] == ["red/bad.png"]
    assert report.extra["probe"]["training_pictures"] == {"blue": 8, "green": 8, "red": 8}
    row = report.predictions.filter(pl.col("image") == "red/bad.png").to_dicts()[0]
    assert row["label"] is row["prob_red"] is None
    assert row["reason"]


def test_a_test_picture_that_was_learnt_from_is_counted_and_told(
    model: ColourModel, tiles: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = (tiles / "train/blue/3.png").read_bytes()
    (tiles / "test/blue/copy.png").write_bytes(known)
    with caplog.at_level(logging.WARNING, "pathclip"):
        report = probe(ProbeConfig(train=tiles, test=tiles, out=tmp_path / "out"), model=model)
    assert report.counts["also_in_training"] == 1
    compat = ProbeConfig(train=tiles, test=tiles, out=tmp_path / "two", protocol="plip-compat")
    assert probe(compat, model=model).counts["also_in_training"] == 1  # looked up before any resizing
    assert "1 of 13 test pictures are also training pictures, the first blue/copy.png" in caplog.text


def test_tables_work_like_folders(model: ColourModel, tiles: Path, tmp_path: Path) -> None:
    rows = [
        f"{path.relative_to(tiles)},{path.parent.name},{path.parent.parent.name},{path.stem}"
        for path in sorted(tiles.rglob("*.png"))
    ]
    (tiles / "labels.csv").write_text("\n".join(["path,label,split,group", *rows]) + "\n")
    table = tiles / "labels.csv"
    by_table = probe(ProbeConfig(train=table, test=table, out=tmp_path / "a"), model=model)
    by_folder = probe(ProbeConfig(train=tiles, test=tiles, out=tmp_path / "b"), model=model)
    assert by_table.metrics == by_folder.metrics
    assert by_table.provenance["resampled"] == "4 groups"


def test_mistakes_are_named_before_the_model_is_loaded(tiles: Path, tmp_path: Path) -> None:
    def config(**changes: object) -> ProbeConfig:
        return ProbeConfig(**{"train": tiles, "test": tiles, "out": tmp_path / "out", **changes})

    with pytest.raises(UserError, match="class 'blue' has 8 training pictures; 9 shots"):
        probe(config(shots=(9,)))
    paint(tiles / "test/pink/0.png", "pink")
    with pytest.raises(UserError, match=r"has classes that .* lacks: pink"):
        probe(config())
    with pytest.raises(UserError, match="does not exist"):
        probe(config(train=tiles / "absent"))


def test_nothing_readable_is_a_fault(model: ColourModel, tiles: Path, tmp_path: Path) -> None:
    for path in (tiles / "test").rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(FaultError, match="none of 12 pictures could be read"):
        probe(ProbeConfig(train=tiles, test=tiles, out=tmp_path / "out"), model=model)


def test_the_command_prints_one_object_and_shows_the_curve(tiles: Path, tmp_path: Path) -> None:
    create("tiny-vit-112", **TINY).save(tmp_path / "model")
    base = ["probe", "--model", tmp_path / "model", "--train", tiles, "--test", tiles, "--set", "draws=2"]

    def run(*more: object):
        return CliRunner().invoke(app, [str(word) for word in (*base, *more)])

    result = run("--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout.splitlines()[-1])
    assert data["task"] == "linear_probe"
    assert data["counts"]["scored"] == 12
    assert all(Path(path).is_file() for path in data["files"].values())
    shown = run("--out", tmp_path / "two", "--shots", "1, 2")
    assert shown.exit_code == 0, shown.output
    assert "pictures per class" in shown.stdout
    assert "learnt from 24 pictures of 3 classes" in shown.stdout
    plip = run("--out", tmp_path / "plip", "--set", "protocol=plip-compat")
    assert plip.exit_code == 0, plip.output
    assert "over 5 seeds at alpha" in plip.stdout
    assert "which was chosen on the test pictures" in plip.stdout
    wrong = run("--out", tmp_path / "three", "--shots", "one")
    assert wrong.exit_code == 2
    assert "shots" in wrong.output
    (tiles / "train/red/bad.png").write_bytes(b"x")
    assert run("--out", tmp_path / "four").exit_code == 1
