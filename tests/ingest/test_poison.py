from __future__ import annotations

import poisonous
import pyarrow.parquet as pq
import pytest
from looking import codes, rejects, shard_bytes

from pathclip.ingest import IngestConfig, check, collect, ingest, look


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
