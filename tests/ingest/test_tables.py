from __future__ import annotations

import csv
from collections import defaultdict

import numpy as np
from looking import codes, kept, rejects, samples
from PIL import Image

from pathclip.ingest import IngestConfig, ingest


def write(folder, rows, pictures=None, columns=("image", "caption", "group", "split")):
    folder.mkdir(exist_ok=True)
    for name, seed in (pictures or {}).items():
        small = np.random.default_rng(seed).integers(0, 256, (10, 10, 3), np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((160, 160), Image.Resampling.BICUBIC).save(folder / name, quality=92)
    with open(folder / "pairs.csv", "w", newline="") as handle:
        csv.writer(handle).writerows([columns, *rows])
    return folder / "pairs.csv"


def run(table, out, **more):
    return ingest(IngestConfig(sources=(table,), out=out, **more))


def by_picture(out):
    return {key: record for (_, key), record in kept(out).items()}


def test_given_splits_win_and_groups_tie(tmp_path):
    rows = [(f"p{n}.jpg", f"Tissue {n}", f"g{n // 2}", ("train", "val", "test")[n // 2]) for n in range(6)]
    table = write(tmp_path / "t", rows, {f"p{n}.jpg": n for n in range(6)})
    report = run(table, tmp_path / "out")
    records = by_picture(tmp_path / "out")
    assert {name: record["split"] for name, record in records.items()} == {row[0]: row[3] for row in rows}
    assert report.data["splits"] == {"train": 2, "val": 2, "test": 2}
    assert report.data["by_source"] == {"table": 6}
    groups = defaultdict(set)
    for n in range(6):
        groups[records[f"p{n}.jpg"]["group_id"]].add(n // 2)
    assert sorted(map(sorted, groups.values())) == [[0], [1], [2]]
    assert len({r["positive_id"] for r in records.values()}) == 6, "a case is no positive"


def test_members_of_a_test_group_are_rejected_from_training(tmp_path):
    rows = [
        ("a.jpg", "Tissue a", "g1", "train"),
        ("b.jpg", "Tissue b", "g1", "val"),
        ("c.jpg", "Tissue c", "g1", "test"),
        ("d.jpg", "Tissue d", "g2", "train"),
        ("e.jpg", "Tissue e", "g2", "val"),
        ("f.jpg", "Tissue f", "g3", "train"),
        ("g.jpg", "Tissue g", "g1", ""),
    ]
    table = write(tmp_path / "t", rows, {row[0]: n for n, row in enumerate(rows)})
    run(table, tmp_path / "out")
    assert codes(tmp_path / "out") == {
        "t:a.jpg#0": "group_in_test",
        "t:b.jpg#0": "group_in_test",
        "t:d.jpg#0": "group_in_val",
    }
    splits = {name: record["split"] for name, record in by_picture(tmp_path / "out").items()}
    assert splits == {"c.jpg": "test", "e.jpg": "val", "f.jpg": "train", "g.jpg": "test"}


def test_a_near_copy_of_a_test_picture_may_not_be_trained_on(tmp_path):
    rows = [("a.jpg", "Tissue a", "g1", "train"), ("b.jpg", "Tissue b", "g2", "test")]
    table = write(tmp_path / "t", rows, {"a.jpg": 1, "b.jpg": 1})
    run(table, tmp_path / "out")
    assert codes(tmp_path / "out") == {"t:a.jpg#0": "group_in_test"}


def test_rows_that_name_one_picture_merge(tmp_path):
    rows = [("a.jpg", "Nevus"), ("./a.jpg", "Blue nevus"), ("a.jpg", "Nevus"), ("b.jpg", "Melanoma")]
    table = write(tmp_path / "t", rows, {"a.jpg": 1, "b.jpg": 2}, columns=("image", "caption"))
    report = run(table, tmp_path / "out")
    assert sorted(c["text"] for c in by_picture(tmp_path / "out")["a.jpg"]["captions"]) == [
        "Blue nevus",
        "Nevus",
    ]
    assert sorted(codes(tmp_path / "out").values()) == ["used_as_caption", "used_as_caption"]
    assert (report.data["in"], report.kept) == (4, 2)


def test_without_splits_groups_are_shared_out_whole(tmp_path):
    rows = [(f"p{n}.jpg", f"Tissue {n}", f"g{n // 3}") for n in range(60)]
    table = write(
        tmp_path / "t", rows, {f"p{n}.jpg": n for n in range(60)}, columns=("image", "caption", "group")
    )
    report = run(table, tmp_path / "out", split={"val": 0.2, "test": 0.2})
    assert report.data["splits"] == {"train": 36, "val": 12, "test": 12}
    homes = defaultdict(set)
    for name, record in by_picture(tmp_path / "out").items():
        homes[int(name[1:-4]) // 3].add(record["split"])
    assert all(len(splits) == 1 for splits in homes.values())


def test_bad_rows_and_paths_are_explained(tmp_path):
    rows = [
        ("", "x"),
        ("a.jpg", ""),
        ("gone.jpg", "x"),
        ("../a.jpg", "x"),
        ("/etc/passwd", "x"),
        ("a.jpg", "https://t.co/x"),
    ]
    table = write(tmp_path / "t", rows, {"a.jpg": 1}, columns=("image", "caption"))
    run(table, tmp_path / "out")
    found = {row["source"]: row["code"] for row in rejects(tmp_path / "out")}
    assert found == {
        "pairs.csv:2": "bad_row",
        "pairs.csv:3": "bad_row",
        "pairs.csv:4": "image_missing",
        "pairs.csv:5": "image_outside",
        "pairs.csv:6": "image_outside",
        "pairs.csv:7": "no_caption",
    }
    assert samples(tmp_path / "out") == []


def test_two_tables_with_the_same_names_do_not_mix(tmp_path):
    first = write(tmp_path / "one", [("a.jpg", "Nevus")], {"a.jpg": 1}, columns=("image", "caption"))
    second = write(tmp_path / "two", [("a.jpg", "Melanoma")], {"a.jpg": 2}, columns=("image", "caption"))
    ingest(IngestConfig(sources=(first, second), out=tmp_path / "out"))
    assert sorted(c["text"] for r in samples(tmp_path / "out") for c in r["captions"]) == [
        "Melanoma",
        "Nevus",
    ]


def test_media_overrides_the_tables_own_folder(tmp_path):
    write(tmp_path / "pictures", [], {"sub/a.jpg": 1})
    table = write(tmp_path / "t", [("sub/a.jpg", "Nevus")], columns=("image", "caption"))
    assert run(table, tmp_path / "out").kept == 0
    assert run(table, tmp_path / "out2", media=tmp_path / "pictures").kept == 1
