from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from benchmark_layouts import picture, strict, tar_of, wds
from colour_model import ColourModel, schema
from sklearn import metrics as sk

from pathclip.core.errors import FaultError, UserError
from pathclip.evaluation import EvaluateConfig, evaluate
from pathclip.evaluation.wds import read_wds


def theirs(root: Path, split: str, part: str) -> list[tuple[Any, Any]]:
    """The samples as clip_benchmark 1.6.1 reads them: grouped, decoded and chosen by webdataset."""
    from webdataset.autodecode import Decoder, ImageHandler
    from webdataset.filters import to_tuple
    from webdataset.tariterators import group_by_keys

    def files() -> Iterator[dict[str, Any]]:
        for number in range(int((root / split / "nshards.txt").read_text())):
            with tarfile.open(root / split / f"{number}.tar") as tar:
                for member in tar:
                    data = tar.extractfile(member)
                    assert data is not None
                    yield {"fname": member.name, "data": data.read(), "__url__": f"{number}.tar"}

    images = ["webp", "png", "jpg", "jpeg"]
    decoder = Decoder([ImageHandler("pil", extensions=images)])
    return list(to_tuple(images, part)(map(decoder, group_by_keys(files()))))


def run(root: Path, out: Path, model: ColourModel, **changes: Any):
    config = EvaluateConfig(benchmark="wds", data=root, out=out, num_resamples=20, **changes)
    return evaluate(config, model=model)


@pytest.fixture
def classified(tmp_path: Path) -> Path:
    return wds(tmp_path / "set", tmp_path)


def test_a_folder_is_read_as_clip_benchmark_reads_it(classified: Path) -> None:
    ours = read_wds(classified)
    assert ours.classnames == ("red tissue", "green tissue", "blue tissue")
    assert ours.templates == ("a photo of {c}", "{c}")
    expected = theirs(classified, "test", "cls")
    assert [ours.classnames.index(label) for label in ours.truth] == [label for _, label in expected]
    from pathclip.encoders.pictures import as_rgb

    for mine, (other, _) in zip(ours.pictures, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(as_rgb(mine)), np.asarray(other))


def test_classes_and_sentences_of_the_folder_are_used(
    classified: Path, model: ColourModel, tmp_path: Path
) -> None:
    report = run(classified, tmp_path / "out", model)
    record = strict(tmp_path / "out/result.json")
    jsonschema.validate(record, schema("result"))
    assert record["task"] == "zeroshot_classification"
    assert record["classnames"] == ["red tissue", "green tissue", "blue tissue"]
    assert record["templates"] == ["a photo of {c}", "{c}"]
    assert report.metrics["accuracy"] == 1.0
    assert [row["support"] for row in report.classes] == [3, 3, 0]  # a class the data lack stays a class
    names = report.predictions["image"].to_list()
    assert names[0] == "test/0.tar#s0000000.png"
    again = run(classified, tmp_path / "two", model, templates=("{}",))
    assert again.templates == ("{}",)


def test_several_classes_a_picture_are_judged_by_average_precision(
    model: ColourModel, tmp_path: Path
) -> None:
    root = wds(tmp_path / "set", tmp_path, "multilabel")
    report = run(root, tmp_path / "out", model)
    record = strict(tmp_path / "out/result.json")
    jsonschema.validate(record, schema("result"))
    assert record["task"] == "zeroshot_multilabel"
    data = read_wds(root)
    np.testing.assert_array_equal(data.targets, [label for _, label in theirs(root, "test", "npy")])
    features = model.encode_images(list(data.pictures))
    prompts = [[t.replace("{c}", name) for t in data.templates] for name in data.classnames]
    classifier = np.stack([model.encode_text(p).mean(dim=0).numpy() for p in prompts], axis=1)
    classifier /= np.linalg.norm(classifier, axis=0)
    scores = features.numpy() @ classifier
    expected = [sk.average_precision_score(data.targets[:, c], scores[:, c]) for c in range(3)]
    assert [row["average_precision"] for row in record["labels"]] == pytest.approx(expected)
    assert report.metrics["mean_average_precision"] == pytest.approx(np.mean(expected))
    assert record["baselines"]["chance"]["mean_average_precision"] == pytest.approx(0.5)
    low, high = record["intervals"]["mean_average_precision"]
    assert low <= report.metrics["mean_average_precision"] <= high
    page = (tmp_path / "out/report.html").read_text()
    assert "average precision" in page


def test_captions_are_lines_and_every_line_counts(model: ColourModel, tmp_path: Path) -> None:
    root = wds(tmp_path / "set", tmp_path, "retrieval")
    data = read_wds(root)
    assert [list(c) for c in data.captions] == [text.splitlines() for _, text in theirs(root, "test", "txt")]
    report = run(root, tmp_path / "out", model, ks=(1, 3))
    assert report.task == "zeroshot_retrieval"
    assert report.metrics["image_to_text"]["R@1"] == 1.0
    assert report.counts["texts"] == 3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda r: (r / "test/nshards.txt").unlink(), r"expects test/nshards\.txt and test/0\.tar there"),
        (lambda r: (r / "test/nshards.txt").write_text("many"), "holds 'many'; expected the number of tars"),
        (lambda r: (r / "test/nshards.txt").write_text("3"), r"2\.tar missing; nshards\.txt names 3 tars"),
        (lambda r: (r / "classnames.txt").unlink(), r"expects classnames\.txt there, a line each"),
        (
            lambda r: (r / "classnames.txt").write_text("red\n"),
            r"sample s0000001 has class '1'; expected 0 to 0",
        ),
        (lambda r: (r / "dataset_type.txt").write_text("retrieval"), "has no txt; it has"),
        (lambda r: (r / "test/1.tar").write_bytes(b"no tar at all"), r"1\.tar cannot be read"),
        (lambda r: tar_of(r / "test/1.tar", [{"cls": b"0"}]), "sample s0000000 has no picture"),
    ],
)
def test_what_does_not_fit_the_layout_is_named_in_a_line(classified: Path, change: Any, text: str) -> None:
    change(classified)
    with pytest.raises(UserError, match=text) as caught:
        read_wds(classified)
    assert "\n" not in str(caught.value)


def test_npy_of_another_width_and_pickles_are_refused(tmp_path: Path) -> None:
    root = wds(tmp_path / "set", tmp_path, "multilabel")
    (root / "classnames.txt").write_text("red\ngreen\n")
    with pytest.raises(UserError, match=r"npy of shape \(3,\) for 2 classes"):
        read_wds(root)
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for number in (0, 1):
        tar_of(root / f"test/{number}.tar", [{"png": picture(tmp_path, "red"), "npy": buffer.getvalue()}])
    with pytest.raises(UserError, match="sample s0000000: npy cannot be read"):
        read_wds(root)


def test_a_picture_in_a_tar_that_does_not_decode_is_counted(model: ColourModel, tmp_path: Path) -> None:
    root = wds(tmp_path / "set", tmp_path)
    tar_of(
        root / "test/1.tar",
        [{"png": b"no picture", "cls": b"0"}, {"png": picture(tmp_path, "green"), "cls": b"1"}],
    )
    report = run(root, tmp_path / "out", model)
    assert [item.name for item in report.bad] == ["test/1.tar#s0000000.png"]
    assert report.counts["scored"] == 4
    for number in (0, 1):
        tar_of(root / f"test/{number}.tar", [{"png": b"x", "cls": b"0"}])
    with pytest.raises(FaultError, match="none of 2 pictures could be read"):
        run(root, tmp_path / "out", model)


def build(paths: list[Path], output: Path) -> list[dict[str, str]]:
    """The table that ``clip_benchmark build`` makes, by the lines of its 1.6.1."""
    rows, fieldnames = [], set()
    for path in paths:
        data = strict(path)
        row = {}
        row.update(data["metrics"])
        row.update(data)
        del row["metrics"]
        row["model_fullname"] = row["model"] + " " + row["pretrained"]
        fieldnames |= row.keys()
        rows.append(row)
    with open(output, "w") as handle:
        writer = csv.DictWriter(handle, fieldnames=fieldnames)
        writer.writeheader()
        for row in rows:
            writer.writerow(row)
    with open(output) as handle:
        return list(csv.DictReader(handle))


def test_clip_benchmark_builds_its_table_of_every_kind_of_result(model: ColourModel, tmp_path: Path) -> None:
    paths = []
    for kind in ("classification", "multilabel", "retrieval"):
        root = wds(tmp_path / kind, tmp_path, kind)
        run(root, tmp_path / f"out-{kind}", model, ks=(1, 3))
        paths.append(tmp_path / f"out-{kind}/result.json")
    rows = build(paths, tmp_path / "benchmark.csv")
    assert [row["task"] for row in rows] == [
        "zeroshot_classification",
        "zeroshot_multilabel",
        "zeroshot_retrieval",
    ]
    assert float(rows[0]["acc1"]) == float(rows[0]["mean_per_class_recall"]) == 1.0
    assert rows[0]["acc5"] == ""  # null, not NaN
    assert 0 < float(rows[1]["mean_average_precision"]) <= 1
    assert float(rows[2]["text_retrieval_recall@1"]) == 1.0
    assert all(row["model_fullname"].strip() for row in rows)


def test_features_of_members_of_a_tar_are_kept_and_found_again(
    classified: Path, model: ColourModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(classified, tmp_path / "one", model, cache=tmp_path / "cache")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a picture was encoded again")

    monkeypatch.setattr(type(model), "encode_pixels", refuse)
    again = run(classified, tmp_path / "two", model, cache=tmp_path / "cache")
    assert again.metrics == first.metrics
