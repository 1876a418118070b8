from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest
import torch
from colour_model import TINY, ColourModel, paint, schema
from PIL import Image
from sklearn import metrics as sk

from pathclip.core.errors import FaultError, UserError
from pathclip.encoders import create
from pathclip.evaluation import EvaluateConfig, confusion_png, evaluate
from pathclip.shards import Sample, write_index, write_shard


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Four classes; one green picture lies among the red, and two blue among the pink."""
    for colour, sources in {
        "red_tissue": ["red", "red", "red", "green"],
        "green_tissue": ["green"] * 3,
        "blue_tissue": ["blue"] * 5,
        "pink_tissue": ["pink", "blue", "blue"],
    }.items():
        for seed, source in enumerate(sources):
            paint(tmp_path / "tiles/test" / colour / f"{seed}.png", source, seed=seed)
    return tmp_path / "tiles"


def test_every_number_of_the_result_follows_from_the_predictions(
    model: ColourModel, tiles: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = evaluate(EvaluateConfig(data=tiles, out=out), model=model)
    assert {path.name for path in out.iterdir()} == {
        "result.json",
        "predictions.parquet",
        "confusion.png",
        "reliability.png",
        "report.html",
        "metrics.csv",
        "classes.csv",
        "confusion.csv",
        "reliability.csv",
    }
    record = json.loads((out / "result.json").read_text(), parse_constant=pytest.fail)
    jsonschema.validate(record, schema("result"))
    rows = pl.read_parquet(out / "predictions.parquet")
    for row in rows.to_dicts():
        jsonschema.validate(row, schema("scored-predictions"))
    assert (
        pl.read_parquet_metadata(out / "predictions.parquet")["schema"]
        == schema("scored-predictions")["title"]
    )
    truth, label = rows["truth"].to_list(), rows["label"].to_list()
    assert [t for t, p in zip(truth, label, strict=True) if t != p] == ["pink_tissue"] * 2 + ["red_tissue"]
    metrics = record["metrics"]
    assert metrics["accuracy"] == metrics["acc1"] == 12 / 15
    assert metrics["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, label))
    assert metrics["balanced_accuracy"] == pytest.approx((3 / 4 + 1 + 1 + 1 / 3) / 4)
    assert metrics["weighted_f1"] == pytest.approx(sk.f1_score(truth, label, average="weighted"))
    assert metrics["macro_f1"] == pytest.approx(sk.f1_score(truth, label, average="macro"))
    assert metrics["acc5"] is None
    names = record["classnames"]
    assert names == ["blue_tissue", "green_tissue", "pink_tissue", "red_tissue"]
    probabilities = rows.select([f"prob_{name}" for name in names]).to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    areas = [sk.roc_auc_score([t == n for t in truth], probabilities[:, c]) for c, n in enumerate(names)]
    assert metrics["auroc"] == pytest.approx(np.mean(areas))
    assert record["confusion_matrix"] == sk.confusion_matrix(truth, label, labels=names).tolist()
    for name, (low, high) in record["intervals"].items():
        assert low <= metrics[name] <= high, name
    assert record["counts"] == {"total": 15, "scored": 15, "bad": 0, "ignored": 0}
    assert report.metrics == metrics


def test_the_result_says_how_it_was_obtained(model: ColourModel, tiles: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(data=tiles, out=tmp_path / "out", templates=("a {} here",), seed=3)
    provenance = evaluate(config, model=model).provenance
    record = json.loads((tmp_path / "out/result.json").read_text())
    assert record["dataset"] == "tiles/test"
    assert record["templates"] == ["a {} here"]
    assert provenance["prompts"]["sets"][0]["classnames"]["red_tissue"] == ["red tissue"]
    assert provenance["seed"] == 3
    assert provenance["data"]["split"] == "test"
    assert len(provenance["data"]["sha256"]) == 64
    assert {"checkpoint_sha256", "transform", "versions", "temperature"} <= provenance.keys()


def test_chance_and_the_constant_class_stand_beside(model: ColourModel, tiles: Path, tmp_path: Path) -> None:
    baselines = evaluate(EvaluateConfig(data=tiles, out=tmp_path / "out"), model=model).baselines
    assert baselines["chance"]["balanced_accuracy"] == 0.25
    assert baselines["constant_class"]["label"] == "blue_tissue"
    assert baselines["constant_class"]["accuracy"] == 5 / 15


def test_the_same_run_gives_the_same_bytes(model: ColourModel, tiles: Path, tmp_path: Path) -> None:
    for out in ("one", "two"):
        evaluate(EvaluateConfig(data=tiles, out=tmp_path / out), model=model)
    for name in sorted(path.name for path in (tmp_path / "one").iterdir()):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_pictures_that_cannot_be_read_are_named_counted_and_left_out(
    model: ColourModel, tiles: Path, tmp_path: Path
) -> None:
    clean = evaluate(EvaluateConfig(data=tiles, out=tmp_path / "clean"), model=model)
    (tiles / "test/red_tissue/cut.png").write_bytes((tiles / "test/red_tissue/0.png").read_bytes()[:200])
    (tiles / "test/blue_tissue/text.jpg").write_bytes(b"<html>")
    report = evaluate(EvaluateConfig(data=tiles, out=tmp_path / "out"), model=model)
    assert [item.name for item in report.bad] == ["blue_tissue/text.jpg", "red_tissue/cut.png"]
    assert report.counts == {"total": 17, "scored": 15, "bad": 2, "ignored": 0}
    assert report.metrics == clean.metrics
    record = json.loads((tmp_path / "out/result.json").read_text())
    jsonschema.validate(record, schema("result"))
    assert {item["name"] for item in record["bad"]} == {item.name for item in report.bad}
    rows = pl.read_parquet(tmp_path / "out/predictions.parquet").filter(pl.col("label").is_null())
    assert rows["reason"].null_count() == 0
    assert rows["probability"].null_count() == len(rows) == 2
    assert "red_tissue/cut.png" in (tmp_path / "out/report.html").read_text()


def test_groups_of_a_table_are_resampled_whole(model: ColourModel, tiles: Path, tmp_path: Path) -> None:
    lines = [
        f"{p.relative_to(tmp_path)},{p.parent.name},{p.parent.name}" for p in sorted(tiles.rglob("*.png"))
    ]
    (tmp_path / "labels.csv").write_text("path,label,group\n" + "\n".join(lines) + "\n")
    config = EvaluateConfig(benchmark="csv", data=tmp_path / "labels.csv", out=tmp_path / "out")
    grouped = evaluate(config, model=model)
    plain = evaluate(EvaluateConfig(data=tiles, out=tmp_path / "plain"), model=model)
    assert grouped.metrics == plain.metrics
    assert grouped.intervals != plain.intervals
    assert grouped.provenance["resampled"] == "4 groups"
    assert pl.read_parquet(tmp_path / "out/predictions.parquet")["group"].n_unique() == 4


def test_classes_are_matched_whatever_their_spelling(model: ColourModel, tiles: Path, tmp_path: Path) -> None:
    classes = {
        "Pink-Tissue": ["pink stuff"],
        "red tissue": ["red"],
        "green_tissue": "green",
        "BLUE TISSUE": ["blue", "a blue one"],
    }
    report = evaluate(EvaluateConfig(data=tiles, out=tmp_path / "out", classes=classes), model=model)
    assert report.classnames == ("Pink-Tissue", "red tissue", "green_tissue", "BLUE TISSUE")
    assert report.metrics["accuracy"] == 12 / 15
    file = tmp_path / "classes.json"
    file.write_text(json.dumps(classes))
    again = evaluate(EvaluateConfig(data=tiles, out=tmp_path / "again", classes=str(file)), model=model)
    assert again.metrics == report.metrics


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        (["red_tissue", "green_tissue", "blue_tissue"], "it lacks 'pink_tissue'"),
        (
            ["red_tissue", "green_tissue", "blue_tissue", "pink_tissue", "cyan", "yellow"],
            "it has 'cyan', 'yellow', which the data lack",
        ),
        (
            ["red_tissue", "green_tissue", "blue_tissue", "pink_tisue"],
            r"lacks 'pink_tissue' and it has 'pink_tisue'.*is 'pink_tisue' the data's 'pink_tissue'\?",
        ),
        ("no-such-file.json", "no class file or shipped prompt set 'no-such-file.json'"),
    ],
)
def test_classes_that_do_not_fit_are_refused_before_the_model_is_loaded(
    tiles: Path, tmp_path: Path, classes: object, text: str
) -> None:
    config = EvaluateConfig(model=str(tmp_path / "absent"), data=tiles, out=tmp_path / "out", classes=classes)
    with pytest.raises(UserError, match=text):
        evaluate(config)
    assert not (tmp_path / "out").exists()


def test_a_model_is_loaded_by_name_and_a_missing_one_is_named(tiles: Path, tmp_path: Path) -> None:
    create("tiny-vit-112", **TINY).save(tmp_path / "model")
    config = EvaluateConfig(model=str(tmp_path / "model"), data=tiles, out=tmp_path / "out", device="cpu")
    report = evaluate(config)
    assert report.provenance["checkpoint_sha256"]
    assert json.loads((tmp_path / "out/result.json").read_text())["pretrained"] == str(tmp_path / "model")
    with pytest.raises(UserError, match="no model"):
        evaluate(EvaluateConfig(data=tiles, out=tmp_path / "out"))


def test_an_output_that_is_a_file_is_refused_before_the_work(tiles: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="out is a file; expected a folder"):
        evaluate(EvaluateConfig(model="absent", data=tiles, out=tmp_path / "out"))


def test_two_folders_that_differ_by_spelling_only_stay_two_classes(
    model: ColourModel, tiles: Path, tmp_path: Path
) -> None:
    paint(tiles / "test/red-tissue/0.png", "red")
    config = EvaluateConfig(
        data=tiles, out=tmp_path / "out", classes={"red tissue": "red", "blue_tissue": "blue"}
    )
    with pytest.raises(UserError, match="it lacks 'green_tissue', 'pink_tissue', 'red-tissue', 'red_tissue'"):
        evaluate(config, model=model)


def test_a_cut_shard_is_named(model: ColourModel, shards: Path, tmp_path: Path) -> None:
    tar = shards / "shards/test-000000.tar"
    tar.write_bytes(tar.read_bytes()[:4000])
    with pytest.raises(UserError, match=r"test-000000\.tar is cut"):
        evaluate(EvaluateConfig(benchmark="retrieval", data=shards, out=tmp_path / "out"), model=model)


def test_features_that_are_not_finite_stop_the_evaluation(tiles: Path, tmp_path: Path) -> None:
    broken = create("tiny-vit-112", **TINY)
    with torch.no_grad():
        broken.clip.visual.proj.fill_(torch.nan)
    with pytest.raises(FaultError, match="not finite for 15 of 15 pictures"):
        evaluate(EvaluateConfig(data=tiles, out=tmp_path / "out"), model=broken)
    assert not (tmp_path / "out").exists()


def test_a_folder_where_nothing_decodes_is_a_fault(model: ColourModel, tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "bad" / label).mkdir(parents=True)
        (tmp_path / "bad" / label / "x.jpg").write_bytes(b"x")
    with pytest.raises(
        FaultError, match=r"none of 2 pictures could be read; the first is a/x\.jpg: not a picture"
    ):
        evaluate(EvaluateConfig(data=tmp_path / "bad", out=tmp_path / "out"), model=model)


def test_a_run_that_breaks_leaves_no_result_of_an_earlier_one(
    model: ColourModel, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvaluateConfig(data=tiles, out=tmp_path / "out")
    evaluate(config, model=model)

    def broken(*_: object, **__: object) -> None:
        raise FaultError("no space left on the disk")

    monkeypatch.setattr("pathclip.evaluation.report.confusion_png", broken)
    with pytest.raises(FaultError, match="no space"):
        evaluate(config, model=model)
    assert not (tmp_path / "out/result.json").exists()


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_stands_alone_and_escapes_names(model: ColourModel, tiles: Path, tmp_path: Path) -> None:
    (tiles / "test/red_tissue").rename(tiles / "test/red <script>x & y")
    report = evaluate(EvaluateConfig(data=tiles, out=tmp_path / "out"), model=model)
    text = report.files["report"].read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert "script" not in page.tags
    assert "red &lt;script&gt;x &amp; y" in text
    assert all(link.startswith("data:image/") for link in page.links)
    assert len(page.links) == 2 + 3  # matrix, reliability and three mistakes
    assert not re.search(r"https?://", text)
    assert "0.800" in text
    assert "Confusion matrix" in text


def test_one_frequent_confusion_does_not_fill_the_page(model: ColourModel, tmp_path: Path) -> None:
    for seed in range(9):
        paint(tmp_path / "t/red" / f"{seed}.png", "green", seed=seed)
    paint(tmp_path / "t/green/0.png", "green")
    paint(tmp_path / "t/blue/0.png", "red")
    report = evaluate(EvaluateConfig(data=tmp_path / "t", out=tmp_path / "out"), model=model)
    kinds = [(m.truth, m.predicted) for m in report.mistakes]
    assert kinds.count(("red", "green")) == 2
    assert all((tmp_path / "t" / m.name).is_file() for m in report.mistakes)
    assert ("blue", "red") in kinds


@pytest.mark.parametrize("size", [2, 8, 45])
def test_the_confusion_picture_is_darkest_where_a_class_is_always_right(tmp_path: Path, size: int) -> None:
    confusion = np.eye(size, dtype=int) * 50
    labels = [f"a_rather_long_name_of_class_{i}" for i in range(size)]
    path = confusion_png(tmp_path / "c.png", confusion, labels, title="t")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    height, width, _ = pixels.shape
    assert min(height, width) > 400
    dark = (pixels == np.array([77, 0, 75])).all(axis=2)  # the end of the colour map, BuPu at 1
    assert dark.sum() > size * 100
    assert (pixels.sum(axis=2) > 700).mean() > 0.4


def test_a_class_without_pictures_is_drawn_without_a_share(tmp_path: Path) -> None:
    confusion_png(tmp_path / "c.png", np.array([[0, 0], [3, 1]]), ["a", "b"])
    assert (tmp_path / "c.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 0}, {"ks": ()}, {"ks": (0, 1)}, {"precision": "fp8"}, {"num_resamples": 0}, {"x": 1}],
)
def test_a_wrong_config_is_refused(change: dict) -> None:
    with pytest.raises(ValueError):
        EvaluateConfig.model_validate({"data": "d", "out": "o", **change})


def sample(tmp_path: Path, i: int, colour: str, captions: list[str], positive: str) -> Sample:
    jpg = paint(tmp_path / "scratch" / f"{i}.jpg", colour, seed=i).read_bytes()
    return Sample(
        f"{i:016d}", f"g{i}", positive, tuple((c, "tweet") for c in captions), None, 40, 32, None, "test", jpg
    )


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    samples = [
        sample(tmp_path, 0, "red", ["red tissue"], "p0"),
        sample(tmp_path, 1, "red", ["red tissue"], "p1"),  # the same words: right for either picture
        sample(tmp_path, 2, "green", ["green tissue", "a blue reply"], "p2"),
        sample(tmp_path, 3, "pink", ["yellow tissue"], "p3"),  # wrongly captioned
        sample(tmp_path, 4, "blue", ["cyan"], "p4"),
        sample(tmp_path, 5, "blue", ["nothing to see"], "p4"),  # same thread as the one before
    ]
    write_index(root, {"test": [write_shard(root / "shards/test-000000.tar", samples, root=root)]})
    return root


def recall_slow(model: ColourModel, root: Path, k: int) -> dict[str, float]:
    """By the definition: sort every caption for each picture, and every picture for each caption."""
    from pathclip.shards import Dataset

    pairs = list(Dataset.open(root).samples("test"))
    records = [record for _, record in pairs]
    images = model.encode_images([bytes(jpg) for jpg, _ in pairs])
    texts = list(dict.fromkeys(c["text"] for r in records for c in r["captions"]))
    scores = (images.double() @ model.encode_text(texts).double().T).float()
    right = np.array(
        [
            [
                any(
                    o["positive_id"] == r["positive_id"] and t in [c["text"] for c in o["captions"]]
                    for o in records
                )
                for t in texts
            ]
            for r in records
        ]
    )

    def recall(table: torch.Tensor, answers: np.ndarray) -> float:
        orders = [
            sorted(range(table.shape[1]), key=lambda j, i=i: (-float(table[i, j]), j))
            for i in range(len(table))
        ]
        return float(np.mean([answers[i, order[:k]].any() for i, order in enumerate(orders)]))

    return {"image_to_text": recall(scores, right), "text_to_image": recall(scores.T, right.T)}


def test_retrieval_counts_equal_words_and_one_thread_as_right(
    model: ColourModel, shards: Path, tmp_path: Path
) -> None:
    config = EvaluateConfig(benchmark="retrieval", data=shards, out=tmp_path / "out", ks=(1, 2, 3))
    report = evaluate(config, model=model)
    record = json.loads((tmp_path / "out/result.json").read_text(), parse_constant=pytest.fail)
    jsonschema.validate(record, schema("result"))
    assert record["task"] == "zeroshot_retrieval"
    metrics = record["metrics"]
    for k in config.ks:
        for way, expected in recall_slow(model, shards, k).items():
            assert metrics[way][f"R@{k}"] == pytest.approx(expected), (way, k)
        assert metrics[f"text_retrieval_recall@{k}"] == metrics["image_to_text"][f"R@{k}"]
        assert metrics[f"image_retrieval_recall@{k}"] == metrics["text_to_image"][f"R@{k}"]
    assert metrics["image_to_text"]["R@1"] == pytest.approx(3 / 6)  # both red, and green
    assert (metrics["image_to_text"]["gallery"], metrics["text_to_image"]["gallery"]) == (6, 6)
    # of 6 captions, one is right for pictures 0, 1, 3 and two for 2, 4, 5
    assert metrics["image_to_text"]["random"]["R@1"] == pytest.approx((3 * 1 + 3 * 2) / 36)
    assert record["baselines"]["chance"]["image_to_text"] == metrics["image_to_text"]["random"]
    low, high = record["intervals"]["image_to_text"]["R@1"]
    assert low <= 0.5 <= high
    assert record["provenance"]["data"]["index_sha256"]
    assert report.counts == {"total": 6, "scored": 6, "bad": 0, "texts": 6}
    page = (tmp_path / "out/report.html").read_text()
    assert "Picture to caption" in page
    worst = report.mistakes[0]
    assert worst.truth == "yellow tissue"
    assert worst.predicted in ("red tissue", "a blue reply", "nothing to see")  # equally far from pink
    assert re.fullmatch("own caption: rank [45] of 6", worst.note)  # cyan is as far as yellow
    assert worst.name == f"{3:016d}"
    assert page.count("data:image/jpeg") == len(report.mistakes)


def test_retrieval_leaves_out_a_picture_that_is_cut(model: ColourModel, tmp_path: Path) -> None:
    good = [sample(tmp_path, i, c, [c], f"p{i}") for i, c in enumerate(("red", "green", "blue"))]
    cut = replace(good[1], jpg=good[1].jpg[:150])
    root = tmp_path / "data"
    shard = write_shard(root / "shards/test-000000.tar", [good[0], cut, good[2]], root=root)
    write_index(root, {"test": [shard]})
    config = EvaluateConfig(benchmark="retrieval", data=root, out=tmp_path / "out", ks=(1,))
    report = evaluate(config, model=model)
    assert [item.name for item in report.bad] == [cut.sample_id]
    assert report.counts["texts"] == 2  # its caption leaves with it
    assert report.metrics["image_to_text"]["R@1"] == 1.0


def test_classes_have_no_place_in_retrieval(model: ColourModel, shards: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(benchmark="retrieval", data=shards, out=tmp_path / "out", classes=["a", "b"])
    with pytest.raises(UserError, match="leave --classes out"):
        evaluate(config, model=model)


def test_real_tiles_are_read_whole(data_dir: Path, tmp_path: Path) -> None:
    from pathclip.evaluation import read_csv, read_folder

    folder = read_folder(data_dir / "tiles", "test")
    table = read_csv(data_dir / "tiles/labels.csv", "test")
    assert len(folder.pictures) == len(table.pictures) == 480
    assert dict(zip(folder.pictures, folder.truth, strict=True)) == dict(
        zip(table.pictures, table.truth, strict=True)
    )
    assert len(set(table.groups or ())) > 8
