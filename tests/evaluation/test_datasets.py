from __future__ import annotations

from pathlib import Path

import pytest
from colour_model import paint

from pathclip.core.errors import UserError
from pathclip.evaluation import benchmarks, read_csv, read_folder, read_shards
from pathclip.heads import shipped_prompts


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for colour in ("red", "green"):
            for seed in range(2):
                paint(tmp_path / "tiles" / split / f"{colour}_tissue" / f"{seed}.jpg", colour, seed=seed)
    return tmp_path / "tiles"


@pytest.mark.parametrize(("asked", "found"), [(None, "test"), ("test", "test"), ("train", "train")])
def test_a_folder_of_splits_gives_the_asked_one_and_test_by_default(
    tiles: Path, asked: str | None, found: str
) -> None:
    data = read_folder(tiles, asked)
    assert (data.split, data.name, data.root) == (found, f"tiles/{found}", tiles / found)
    assert data.labels == ("green_tissue", "red_tissue")
    assert data.truth == ("green_tissue",) * 2 + ("red_tissue",) * 2
    assert [data.relative(path) for path in data.pictures[:2]] == ["green_tissue/0.jpg", "green_tissue/1.jpg"]


def test_the_folder_of_one_split_can_be_given_itself(tiles: Path) -> None:
    assert read_folder(tiles / "test").pictures == read_folder(tiles, "test").pictures
    assert read_folder(tiles / "test", "test").pictures == read_folder(tiles, "test").pictures


def test_classes_named_like_anything_but_splits_are_classes(tiles: Path) -> None:
    (tiles / "train").rename(tiles / "odd")
    assert read_folder(tiles).labels == ("odd", "test")


def test_other_files_are_ignored_and_counted_and_pictures_found_at_any_depth(tiles: Path) -> None:
    (tiles / "test/red_tissue/notes.txt").write_text("x")
    (tiles / "test/red_tissue/.DS_Store").write_text("x")
    paint(tiles / "test/red_tissue/slide 7/deep.PNG", "red")
    data = read_folder(tiles)
    assert [path.name for path in data.ignored] == ["notes.txt"]
    assert data.truth.count("red_tissue") == 3


def test_equal_data_have_equal_fingerprints_wherever_they_lie(tiles: Path) -> None:
    before = read_folder(tiles).fingerprint()
    tiles.rename(tiles.with_name("moved"))
    moved = tiles.with_name("moved")
    assert read_folder(moved).fingerprint() == before
    (moved / "test/red_tissue/0.jpg").rename(moved / "test/green_tissue/9.jpg")
    assert read_folder(moved).fingerprint() != before


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda t: t / "absent", "absent does not exist"),
        (lambda t: t / "test/red_tissue/0.jpg", "is a file; benchmark 'folder' expects"),
        (lambda t: t / "test/red_tissue", "two classes or more; found none"),
    ],
)
def test_a_folder_that_is_none_is_named(tiles: Path, prepare: object, text: str) -> None:
    with pytest.raises(UserError, match=text):
        read_folder(prepare(tiles))  # type: ignore[operator]


def test_one_class_is_no_classification(tiles: Path) -> None:
    for file in (tiles / "test/red_tissue").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="no pictures in red_tissue; fill or remove"):
        read_folder(tiles)
    (tiles / "test/red_tissue").rmdir()
    with pytest.raises(UserError, match="two classes or more; found only 'green_tissue'"):
        read_folder(tiles)


def test_an_unknown_split_names_those_that_are_there(tiles: Path) -> None:
    with pytest.raises(UserError, match="has no split 'val'; it has test, train"):
        read_folder(tiles, "val")


def test_a_dataset_of_shards_points_to_the_other_benchmark(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(UserError, match="--benchmark retrieval"):
        read_folder(tmp_path)


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_gives_paths_labels_and_groups_of_the_split(tmp_path: Path) -> None:
    path = table(
        tmp_path, "path,split,label,group,x\na.jpg,train,red,p1,\nb.jpg,test,red,p2,\nc.jpg,test,007,p3,\n"
    )
    data = read_csv(path)
    assert (data.split, data.name) == ("test", f"{'labels'}/test")
    assert data.pictures == (tmp_path / "b.jpg", tmp_path / "c.jpg")
    assert data.truth == ("red", "007")  # labels are texts, whatever they look like
    assert data.groups == ("p2", "p3")


def test_a_table_without_split_and_group_is_taken_whole(tmp_path: Path) -> None:
    data = read_csv(table(tmp_path, "label,path\nred,a.jpg\ngreen,b.jpg\n"))
    assert (data.split, data.groups, len(data.pictures)) == (None, None, 2)


@pytest.mark.parametrize(
    ("text", "split", "expected"),
    [
        ("image,label\na,b\n", None, "lacks the column path; it has image, label"),
        ("path,label\na.jpg,\nb.jpg,x\n", None, "line 2: label is empty"),
        ("path,label\na.jpg,x\n  ,y\n", None, "line 3: path is empty"),
        ("path,label\na.jpg,x\nb.jpg,x\n", None, r"two classes or more; found \['x'\]"),
        ("path,label\na.jpg,x\n", "test", "has no column 'split'"),
        (
            "path,label,split\na.jpg,x,dev\nb.jpg,y,dev\n",
            None,
            "has no split 'test'; choose one with --split: dev",
        ),
        ("path,label,split\na.jpg,x,dev\nb.jpg,y,dev\n", "val", "has no split 'val'; it has dev"),
        ("path,label,group\na.jpg,x,1\nb.jpg,y,\n", None, "line 3: group is empty"),
        ("", None, "is no CSV table"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, text: str, split: str | None, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        read_csv(table(tmp_path, text), split)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv does not exist; benchmark 'csv' expects"):
        read_csv(tmp_path / "absent.csv")


def test_every_benchmark_names_its_task_and_refuses_what_is_not_there(tmp_path: Path) -> None:
    assert {"folder", "csv", "retrieval"} <= set(benchmarks)
    for name in benchmarks:
        benchmark = benchmarks[name]
        assert benchmark.task in (
            "zeroshot_classification",
            "zeroshot_retrieval",
            "image_retrieval",
            "multiple_choice",
            "by data",
        )
        assert benchmark.summary
        assert set(filter(None, (benchmark.prompts, benchmark.plip_prompts))) <= set(shipped_prompts())
        for place in (tmp_path / "absent", tmp_path):
            with pytest.raises(
                UserError, match=r"expect|does not exist|two classes|no split|index"
            ) as caught:
                benchmark.read(place, None, "corrected")
            assert "\n" not in str(caught.value)


def test_an_unknown_benchmark_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'folder'"):
        benchmarks["foldr"]


def test_shards_without_captions_cannot_be_retrieved(tmp_path: Path) -> None:
    import io
    import tarfile

    jpg = paint(tmp_path / "a.jpg", "red").read_bytes()
    with tarfile.open(tmp_path / "foreign.tar", "w") as tar:
        info = tarfile.TarInfo("0001.jpg")
        info.size = len(jpg)
        tar.addfile(info, io.BytesIO(jpg))
    with pytest.raises(UserError, match="has no split 'test'; choose one with --split: train"):
        read_shards(tmp_path)
    with pytest.raises(UserError, match="0 pictures with captions"):
        read_shards(tmp_path, "train")
