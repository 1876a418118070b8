from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.shards import Dataset, Sample, ShardReader, verify, write_index, write_shard
from pathclip.shards.rows import scan_tar

SCHEMAS = Path(__file__).parents[2] / "docs/reference/schemas"


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def sample(i: int, split: str = "train") -> Sample:
    key = f"{i:016d}".translate(str.maketrans("0123456789", "abcdefghij"))
    captions = ((f"caption {i} µ", "tweet"), ("second", "reply"))
    return Sample(
        key,
        f"g{split}".ljust(15, "a") + key[-1],
        f"p{split}".ljust(15, "a") + key[-1],
        captions,
        "dermpath",
        40,
        30,
        None,
        split,
        picture(i),
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    infos = {
        "train": [
            write_shard(tmp_path / "shards/train-000000.tar", map(sample, range(3)), root=tmp_path),
            write_shard(tmp_path / "shards/train-000001.tar", map(sample, range(3, 5)), root=tmp_path),
        ],
        "test": [
            write_shard(tmp_path / "shards/test-000000.tar", [sample(9, "test")], root=tmp_path),
        ],
    }
    write_index(tmp_path, infos)
    return tmp_path


def test_what_is_written_is_read_back(dataset: Path) -> None:
    opened = Dataset.open(dataset)
    assert (opened.count("train"), opened.count("test")) == (5, 1)
    reader = opened.readers("train")[1]
    assert bytes(reader.jpg(1)) == picture(4)
    assert reader.txt(1) == "caption 4 µ"
    assert reader.key(1) == reader.record(1)["sample_id"] == sample(4).sample_id
    assert reader.record(1)["captions"][1] == {"text": "second", "source": "reply"}
    assert len(list(opened.samples("train"))) == 5


def test_the_shards_folder_opens_as_its_dataset(dataset: Path) -> None:
    assert Dataset.open(dataset / "shards").splits == Dataset.open(dataset).splits


def test_every_file_fits_its_schema(dataset: Path) -> None:
    opened = Dataset.open(dataset)
    records = [record for split in opened.splits for _, record in opened.samples(split)]
    stats = [json.loads(path.read_text()) for path in (dataset / "shards").glob("*.stats.json")]
    index = json.loads((dataset / "index.json").read_text())
    assert (len(records), len(stats)) == (6, 3)
    for name, documents in (("sample", records), ("shard-stats", stats), ("index", [index])):
        schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
        for document in documents:
            jsonschema.validate(document, schema)


def test_readers_travel_to_other_processes(dataset: Path) -> None:
    reader = Dataset.open(dataset).readers("train")[0]
    reader.jpg(0)
    assert bytes(pickle.loads(pickle.dumps(reader)).jpg(2)) == picture(2)


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    a = write_shard(tmp_path / "a/train-000000.tar", map(sample, range(4)), root=tmp_path / "a")
    b = write_shard(tmp_path / "b/train-000000.tar", map(sample, range(4)), root=tmp_path / "b")
    assert a == b
    assert (tmp_path / "a/train-000000.idx").read_bytes() == (tmp_path / "b/train-000000.idx").read_bytes()


def test_a_shard_is_byte_by_byte_what_tarfile_writes(tmp_path: Path) -> None:
    samples = [
        dataclasses.replace(sample(i), jpg=b"x" * size) for i, size in enumerate((0, 1, 511, 512, 70_000))
    ]
    info = write_shard(tmp_path / "train-000000.tar", samples, root=tmp_path)
    with tarfile.open(tmp_path / "plain.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for one in samples:
            contents = {"jpg": one.jpg, "txt": one.captions[0][0].encode(), "json": one.to_json()}
            for extension, data in contents.items():
                member = tarfile.TarInfo(f"{one.sample_id}.{extension}")
                member.size, member.mode = len(data), 0o444
                tar.addfile(member, io.BytesIO(data))
    written = (tmp_path / "train-000000.tar").read_bytes()
    assert written == (tmp_path / "plain.tar").read_bytes()
    assert (info.bytes, info.sha256) == (len(written), hashlib.sha256(written).hexdigest())


def test_the_index_names_the_bytes_that_tarfile_sees(dataset: Path) -> None:
    tar = dataset / "shards/train-000000.tar"
    with tarfile.open(tar) as handle:
        members = handle.getmembers()
    rows = ShardReader(tar).rows
    assert [m.offset_data for m in members] == rows[:, 0::2].ravel().tolist()
    assert [m.size for m in members] == rows[:, 1::2].ravel().tolist()
    assert {m.mtime for m in members} == {0}


def test_a_foreign_webdataset_is_scanned(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "part-0.tar", "w") as tar:
        for i in range(3):
            for extension, data in (("png", picture(i)), ("txt", b"words")):
                member = tarfile.TarInfo(f"{i:05d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    reader = Dataset.open(tmp_path).readers("train")[0]
    assert (len(reader), reader.key(2), reader.txt(2)) == (3, "00002", "words")
    assert reader.record(2) == {"sample_id": "00002", "captions": [{"text": "words", "source": "table"}]}


def test_verify_accepts_what_was_written(dataset: Path) -> None:
    report = verify(dataset)
    assert report.ok, report.problems
    assert (report.shards, report.samples) == (3, 6)


def test_verify_names_a_cut_shard(dataset: Path) -> None:
    path = dataset / "shards/train-000000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    problems = "\n".join(verify(dataset).problems)
    assert "train-000000.tar: SHA-256 differs" in problems
    assert "train-000000.tar cannot be read as a tar" in problems


def test_verify_names_a_missing_shard_and_a_leaking_group(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "shards/train-000000.tar", [sample(1)], root=tmp_path)
    leak = Sample(
        **{**{f: getattr(sample(2, "test"), f) for f in Sample.__slots__}, "group_id": sample(1).group_id}
    )
    two = write_shard(tmp_path / "shards/test-000000.tar", [leak], root=tmp_path)
    gone = write_shard(tmp_path / "shards/val-000000.tar", [sample(3, "val")], root=tmp_path)
    (tmp_path / gone.path).unlink()
    write_index(tmp_path, {"train": [one], "val": [gone], "test": [two]})
    problems = verify(tmp_path).problems
    assert len(problems) == 2
    assert problems[0] == "shards/val-000000.tar: missing"
    assert f"group_id {sample(1).group_id} also lies in train" in problems[1]


def test_reading_a_cut_shard_names_the_remedy(dataset: Path) -> None:
    path = dataset / "shards/test-000000.tar"
    path.write_bytes(path.read_bytes()[:1200])
    with pytest.raises(UserError, match=r"test-000000.tar is cut: 1200 bytes, its index ends at \d+"):
        Dataset.open(dataset).readers("test")[0].jpg(0)


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no dataset: expected index\.json"):
        Dataset.open(tmp_path)
    with pytest.raises(UserError, match="no split 'nope'"):
        Dataset(tmp_path, {}).shards("nope")


def test_an_unfinished_ingest_is_no_dataset(dataset: Path) -> None:
    (dataset / "index.json").unlink()
    (dataset / "private").mkdir()
    with pytest.raises(UserError, match="its ingest did not finish; run the same command again"):
        Dataset.open(dataset / "shards")


def test_a_damaged_index_names_the_remedy(dataset: Path) -> None:
    idx = dataset / "shards/test-000000.idx"
    idx.write_bytes(idx.read_bytes()[:-1])
    with pytest.raises(UserError, match="is damaged; delete it"):
        len(Dataset.open(dataset).readers("test")[0])


def foreign_tar(path: Path, members: dict[str, bytes], end: bool = True) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        size = tar.offset
    if not end:
        path.write_bytes(path.read_bytes()[:size])
    return path


def test_a_foreign_sample_takes_its_caption_from_its_text_or_its_json(tmp_path: Path) -> None:
    tar = foreign_tar(
        tmp_path / "00000.tar",
        {
            "000000001.jpg": picture(1),
            "000000001.json": b'{"caption": "of the json", "url": "https://host/1.jpg"}',
            "000000002.jpg": picture(2),
            "000000002.txt": b"of the text",
            "000000002.json": b'{"caption": "of the json"}',
            "000000003.jpg": picture(3),
            "000000003.json": b'{"caption": null}',
        },
    )
    records = [ShardReader(tar).record(i) for i in range(3)]
    assert [r["sample_id"] for r in records] == ["000000001", "000000002", "000000003"]
    assert [r["captions"][0]["text"] for r in records] == ["of the json", "of the text", ""]


def test_a_tar_cut_between_two_samples_is_known_by_its_missing_end(tmp_path: Path) -> None:
    tar = foreign_tar(tmp_path / "00000.tar", {"a.jpg": picture(1), "a.txt": b"a"}, end=False)
    assert len(scan_tar(tar)) == 1
    with pytest.raises(UserError, match="unexpected end of data"):
        scan_tar(tar, marked=True)
