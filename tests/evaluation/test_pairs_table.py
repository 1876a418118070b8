from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
from benchmark_layouts import strict
from colour_model import ColourModel, paint, schema

from pathclip.core.errors import UserError
from pathclip.evaluation import EvaluateConfig, evaluate, read_shards


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Five pairs as PLIP keeps them; the red picture has two captions, and two pictures one caption."""
    for name, colour in (("r", "red"), ("g", "green"), ("b", "blue"), ("c", "blue")):
        paint(tmp_path / "p" / f"{name}.png", colour)
    lines = ["images\tcaptions", "p/r.png\ta red one", "p/r.png\tred, again", "p/g.png\tgreen tissue"]
    lines += ["p/b.png\tblue tissue", "p/c.png\tblue tissue"]
    (tmp_path / "Twitter_retrieval.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path / "Twitter_retrieval.tsv"


def run(data: Path, out: Path, model: ColourModel, protocol: str = "corrected"):
    config = EvaluateConfig(
        benchmark="retrieval", data=data, out=out, ks=(1, 2), protocol=protocol, num_resamples=10
    )
    return evaluate(config, model=model)


def test_a_table_of_pairs_is_scored_and_equal_captions_are_right_for_either(
    pairs: Path, model: ColourModel, tmp_path: Path
) -> None:
    report = run(pairs, tmp_path / "out", model)
    record = strict(tmp_path / "out/result.json")
    jsonschema.validate(record, schema("result"))
    assert record["dataset"] == "Twitter_retrieval"
    assert report.counts == {"total": 5, "scored": 5, "bad": 0, "texts": 4}
    assert report.metrics["image_to_text"]["R@1"] == report.metrics["text_to_image"]["R@1"] == 1.0


def test_plips_row_to_row_takes_the_same_caption_of_another_picture_for_a_miss(
    pairs: Path, model: ColourModel, tmp_path: Path
) -> None:
    report = run(pairs, tmp_path / "out", model, "plip-compat")
    found = report.metrics["text_to_image"]
    assert (found["gallery"], found["queries"]) == (5, 5)  # rows, not different pictures
    assert found["R@1"] == pytest.approx(3 / 5)  # of twins only the first is found at once
    assert found["R@2"] == 1.0
    assert found["random"]["R@1"] == pytest.approx(1 / 5)
    assert "row_to_row" in report.provenance["protocol"]["quirks"]


def test_a_csv_may_name_split_and_group(pairs: Path, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(
        "image,caption,group,split\np/r.png,one,x,test\np/g.png,two,x,test\np/b.png,no,y,train\n"
    )
    data = read_shards(table)
    assert (data.name, data.split, data.keys) == ("pairs/test", "test", ("p/r.png", "p/g.png"))
    assert data.groups == ("x", "x")
    assert data.positives == data.keys
    with pytest.raises(UserError, match="has no split 'val'; choose one: test, train"):
        read_shards(table, "val")


@pytest.mark.parametrize(
    ("text", "split", "expected"),
    [
        (
            "picture,caption\na,b\n",
            None,
            "lacks a column image or images",
        ),
        ("image,words\na,b\n", None, "lacks a column caption or captions"),
        ("image,caption\na.png,x\nb.png,\n", None, "line 3: an empty cell"),
        ("image,caption\na.png,x\n", None, "1 pictures with captions; retrieval needs at least two"),
        ("image,caption\na.png,x\nb.png,y\n", "test", "has no column 'split'"),
        ("", None, "is no table"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, text: str, split: str | None, expected: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        read_shards(tmp_path / "t.csv", split)
    assert "\n" not in str(caught.value)


def test_real_pairs_are_read(data_dir: Path) -> None:
    data = read_shards(data_dir / "tiles/pairs.csv", "test")
    assert len(data.keys) == len(set(data.keys)) == 480
    assert all(isinstance(path, Path) and path.is_file() for path in data.pictures)
