from __future__ import annotations

import logging
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from benchmark_layouts import strict, wds
from colour_model import ColourModel, paint, schema
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.errors import UserError
from pathclip.evaluation import EvaluateConfig, ProbeConfig, evaluate, probe
from pathclip.evaluation.leaks import find_leaks
from pathclip.evaluation.pictures import PlipResized
from pathclip.ingest import leakcheck
from pathclip.shards import Sample, write_index, write_shard


def structured(path: Path, colour: str, seed: int) -> Path:
    """A picture with shapes, so that the perceptual hash can tell it from others."""
    paint(path, colour, seed=seed, size=(96, 96))
    rng = np.random.default_rng(seed)
    with Image.open(path) as image:
        drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    for x, y, r in rng.integers(8, 88, (12, 3)):
        pen.ellipse(
            (x - r // 5, y - r // 5, x + r // 5, y + r // 5), fill=tuple(rng.integers(0, 90, 3).tolist())
        )
    drawn.save(path, quality=97)
    return path


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Six red and six blue pictures; two of the red ones look blue."""
    for label in ("red", "blue"):
        for i in range(6):
            wrong = label == "red" and i < 2
            structured(
                tmp_path / "tiles" / label / f"{i}.png", "blue" if wrong else label, i + 10 * (label == "red")
            )
    return tmp_path / "tiles"


def shards(root: Path, pictures: dict[str, list[Path]]) -> Path:
    """A dataset of these pictures by split."""
    made = {}
    for split, paths in pictures.items():
        samples = []
        for i, path in enumerate(paths):
            key = f"{split[0]}{i:015d}"
            jpg = path.read_bytes()
            samples.append(Sample(key, key, key, (("tissue", "tweet"),), None, 96, 96, None, split, jpg))
        made[split] = [write_shard(root / f"shards/{split}-000000.tar", samples, root=root)]
    write_index(root, made)
    return root


def run(tiles: Path, out: Path, model: ColourModel, against: Path, **changes: object):
    config = EvaluateConfig(data=tiles, out=out, against=against, num_resamples=20, **changes)
    return evaluate(config, model=model)


def test_test_pictures_that_are_in_the_training_shards_are_counted_and_left_out_of_a_second_figure(
    tiles: Path, model: ColourModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learnt = [tiles / "blue/0.png", tiles / "blue/1.png", structured(tmp_path / "other.png", "green", 99)]
    data = shards(tmp_path / "data", {"train": learnt, "test": [tiles / "red/5.png"]})
    with caplog.at_level(logging.WARNING, "pathclip"):
        report = run(tiles, tmp_path / "out", model, data)
    assert "2 of 12 test pictures are also in" in caplog.text
    record = strict(tmp_path / "out/result.json")
    jsonschema.validate(record, schema("result"))
    found = record["against"]
    assert (
        record["counts"]["also_in_training"] == found["also_in_training"] == 2
    )  # the split test does not count
    assert (found["split"], found["pictures"], found["not_compared"]) == ("train", 3, [])
    assert {leak["benchmark"] for leak in found["leaks"]} == {"blue/0.png", "blue/1.png"}
    assert {leak["match"] for leak in found["leaks"]} == {"bytes"}
    assert report.metrics["balanced_accuracy"] == pytest.approx((4 / 6 + 1) / 2)
    assert found["scored_without"] == 10
    assert found["metrics"]["accuracy"] == pytest.approx(8 / 10)  # the learnt ones were right
    page = (tmp_path / "out/report.html").read_text()
    assert "Also in the training data" in page
    assert "2 of 12 test pictures are also among 3 pictures" in page


def test_the_second_figure_is_that_of_the_clean_pictures_alone(
    tiles: Path, model: ColourModel, tmp_path: Path
) -> None:
    against = tmp_path / "learnt"
    against.mkdir()
    for i in (0, 3):
        shutil.copy(tiles / f"red/{i}.png", against)
    report = run(tiles, tmp_path / "out", model, against)
    clean = shutil.copytree(tiles, tmp_path / "clean")
    for i in (0, 3):
        (clean / f"red/{i}.png").unlink()
    alone = evaluate(EvaluateConfig(data=clean, out=tmp_path / "two", num_resamples=20), model=model)
    without = report.extra["against"]["metrics"]
    assert without == pytest.approx({name: alone.metrics[name] for name in without})


def test_a_picture_saved_anew_is_found_by_its_looks(tiles: Path, model: ColourModel, tmp_path: Path) -> None:
    against = tmp_path / "learnt"
    against.mkdir()
    with Image.open(tiles / "red/4.png") as image:
        image.save(against / "again.jpg", quality=80)
    found = run(tiles, tmp_path / "out", model, against).extra["against"]
    assert [(leak["benchmark"], leak["match"]) for leak in found["leaks"]] == [("red/4.png", "near")]


def test_nothing_in_common_says_so_and_gives_no_second_figure(
    tiles: Path, model: ColourModel, tmp_path: Path
) -> None:
    structured(tmp_path / "learnt/x.png", "green", 77)
    report = run(tiles, tmp_path / "out", model, tmp_path / "learnt")
    assert report.counts["also_in_training"] == 0
    assert "metrics" not in report.extra["against"]
    assert "0 of 12 test pictures" in (tmp_path / "out/report.html").read_text()


def test_where_everything_was_learnt_no_figure_is_left(
    tiles: Path, model: ColourModel, tmp_path: Path
) -> None:
    report = run(tiles, tmp_path / "out", model, tiles)
    assert report.counts["also_in_training"] == 12
    assert "metrics" not in report.extra["against"]
    assert "None is left to score without them" in (tmp_path / "out/report.html").read_text()


def test_pictures_of_arrays_and_tars_are_compared_too(
    tiles: Path, model: ColourModel, tmp_path: Path
) -> None:
    from pathclip.evaluation.pictures import ArrayRow

    rows = np.stack([np.asarray(Image.open(tiles / f"red/{i}.png").convert("RGB")) for i in range(4)])
    np.save(tmp_path / "images.npy", rows.astype(np.float64))
    named = [(f"row {i}", ArrayRow(tmp_path / "images.npy", i)) for i in range(4)]
    leaks = find_leaks(tiles / "red", named)
    assert leaks.places == frozenset(range(4))
    assert {leak["match"] for leak in leaks.found} == {"pixels"}
    resized = find_leaks(tiles / "red", [("a", PlipResized(tiles / "red/2.png"))])
    assert [leak["match"] for leak in resized.found] == [
        "bytes"
    ]  # what was resized is compared, not the result
    root = wds(tmp_path / "set", tmp_path)
    (tmp_path / "learnt").mkdir()
    shutil.copy(tmp_path / "scratch/red2.png", tmp_path / "learnt")
    config = EvaluateConfig(
        benchmark="wds", data=root, out=tmp_path / "o", against=tmp_path / "learnt", num_resamples=5
    )
    found = evaluate(config, model=model).extra["against"]
    assert [leak["benchmark"] for leak in found["leaks"] if leak["match"] == "bytes"] == [
        "test/0.tar#s0000002.png"
    ]


def test_retrieval_is_scored_again_without_what_was_learnt(model: ColourModel, tmp_path: Path) -> None:
    root = wds(tmp_path / "set", tmp_path, "retrieval")
    (tmp_path / "learnt").mkdir()
    for i in (0, 2, 4):  # every red one
        shutil.copy(tmp_path / f"scratch/red{i}.png", tmp_path / "learnt")
    config = EvaluateConfig(
        benchmark="wds",
        data=root,
        out=tmp_path / "o",
        against=tmp_path / "learnt",
        ks=(1,),
        num_resamples=5,
    )
    report = evaluate(config, model=model)
    found = report.extra["against"]
    assert (report.counts["also_in_training"], found["scored_without"]) == (3, 3)
    assert found["metrics"]["image_to_text"]["gallery"] == 1  # only the caption of the green ones is left
    jsonschema.validate(strict(tmp_path / "o/result.json"), schema("result"))
    assert "3 of 6 test pictures are also among 3" in (tmp_path / "o/report.html").read_text()


def test_a_probe_looks_its_test_pictures_up_too(tiles: Path, model: ColourModel, tmp_path: Path) -> None:
    config = ProbeConfig(
        train=tiles, test=tiles, out=tmp_path / "o", against=tiles / "red", num_resamples=5, c=1.0
    )
    report = probe(config, model=model)
    assert report.extra["against"]["also_in_training"] == 6
    assert report.counts["also_in_training"] == 12  # of the probe's own training set


def test_training_data_that_are_not_there_stop_before_the_model_is_loaded(
    tiles: Path, tmp_path: Path
) -> None:
    for against in (tmp_path / "absent", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        config = EvaluateConfig(model="no-such-model", data=tiles, out=tmp_path / "o", against=against)
        with pytest.raises(UserError, match=f"{against.name} (does not exist|holds no pictures)"):
            evaluate(config)


def test_the_command_line_says_how_many_and_the_figure_without(tiles: Path, tmp_path: Path) -> None:
    from colour_model import TINY

    from pathclip.encoders import create

    create("tiny-vit-112", **TINY).save(tmp_path / "model")
    words = ("evaluate", "--model", tmp_path / "model", "--data", tiles, "--out", tmp_path / "o")
    more = ("--against", tiles / "blue", "--set", "num_resamples=5")
    result = CliRunner().invoke(app, [str(word) for word in (*words, *more)])
    assert result.exit_code == 0, result.output
    assert f"6 of the pictures are also in {tiles / 'blue'}; balanced_accuracy without them" in result.stdout


def test_named_pictures_that_cannot_be_opened_are_told_and_the_rest_compared(tiles: Path) -> None:
    def broken() -> bytes:
        raise OSError("gone")

    report = leakcheck(tiles / "red", [("x", broken), ("y", tiles / "red/1.png")], workers=1)
    assert report.bad == ["x: gone"]
    assert [leak["benchmark"] for leak in report.leaks] == ["y"]
