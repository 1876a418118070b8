from __future__ import annotations

import poisonous
import pyarrow.parquet as pq
import pytest
from looking import codes, rejects, shard_bytes

from pathclip.core.errors import FaultError
from pathclip.ingest import IngestConfig, check, collect, ingest, look
from pathclip.tweets import Chunk, halves


@pytest.fixture
def config(dump, tmp_path, key_file):
    for n in range(5):
        dump.picture(f"p{n}.jpg", n)
        dump.post(str(n + 1), f"Melanoma {n} of the skin", f"p{n}")
    return IngestConfig(
        sources=(dump.tweets,), media=dump.media, out=tmp_path / "out", key_file=key_file, workers=1
    )


def shards(out):
    return {name: sha for name, sha in shard_bytes(out).items() if name != "report.json"}


def test_a_picture_that_kills_its_process_is_rejected_alone(config, dump, tmp_path, monkeypatch):
    clean = ingest(config.replace(out=tmp_path / "clean"))
    dump.picture("poison.jpg", 9)
    dump.post("9", "Melanoma of the eyelid", "poison")
    monkeypatch.setattr(look, "_rows", poisonous.rows)
    monkeypatch.setattr(collect, "look_at_many", poisonous.look_at_many)
    report = ingest(config.replace(sources=(dump.tweets,), engine="processes"))
    assert codes(config.out) == {"x:9:3_9poison": "image_poison"}
    assert "two processes died" in rejects(config.out)[0]["detail"]
    assert report.kept == clean.kept == 5
    assert shards(config.out) == shards(tmp_path / "clean")
    thumbs = pq.read_table(config.out / "private" / "thumbs.parquet").to_pylist()
    assert [row["jpg"] for row in thumbs if row["code"] == "image_poison"] == [None], "it is not opened again"
    assert check(config.out).ok


def test_a_line_that_kills_its_process_is_rejected_alone(config, dump, tmp_path, monkeypatch):
    clean = ingest(config.replace(out=tmp_path / "clean"))
    lines = dump.tweets.read_text().splitlines(keepends=True)
    dump.tweets.write_text("".join([*lines[:3], '{"id": "9", "text": "poison"}\n', "\n", *lines[3:]]))
    poisoned = config.replace(sources=(dump.folder / "tweets.jsonl",), engine="processes")
    monkeypatch.setattr(collect, "_held_items", poisonous.held_items)
    monkeypatch.setattr(collect, "_read_chunk", poisonous.read_chunk)
    report = ingest(poisoned)
    assert codes(config.out) == {"l:tweets.jsonl:4": "line_poison"}
    assert (report.data["lines"], report.kept, clean.data["lines"]) == (6, 5, 5)
    assert shards(config.out) == shards(tmp_path / "clean")
    assert check(config.out).ok


def test_a_source_that_kills_its_reader_and_has_no_plain_lines_is_named(config, tmp_path, monkeypatch):
    table = tmp_path / "table.csv"
    table.write_text("image,caption\np1.jpg,poison\n")
    monkeypatch.setattr(collect, "_read_chunk", poisonous.read_chunk)
    with pytest.raises(FaultError, match=r"two processes died reading .*table\.csv"):
        ingest(config.replace(sources=(table,), engine="processes"))


@pytest.mark.parametrize(
    "text", ["a\nb\n\ncc\n", "a", "a\n", "\n\n\n", "long line first\nb", "b\nlong line last\n"]
)
def test_halves_hold_the_same_lines(tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    found, waiting = [], [Chunk(path, "a", "jsonl")]
    while waiting:
        chunk = waiting.pop(0)
        parts = halves(chunk)
        waiting = [*parts, *waiting]
        if not parts:
            found.append((chunk.first_line, path.read_bytes()[chunk.start : chunk.end].decode()))
    assert found == list(enumerate(text.splitlines(keepends=True), 1))
