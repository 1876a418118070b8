from __future__ import annotations

from pathlib import Path

import pytest
from looking import codes, shard_bytes

from pathclip.core.errors import UserError
from pathclip.core.files import read_json
from pathclip.ingest import IngestConfig, check, ingest, look


@pytest.fixture
def config(dump, tmp_path, key_file):
    for n in range(8):
        dump.picture(f"p{n}.jpg", n, side=160 + 10 * n)
        dump.post(str(n + 1), f"Melanoma {n} of the skin", f"p{n}")
    return IngestConfig(
        sources=(dump.tweets,),
        media=dump.media,
        out=tmp_path / "out",
        key_file=key_file,
        pack={"shard_samples": 3},
    )


@pytest.fixture
def unreadable(monkeypatch):
    """Names of files whose bytes cannot be read."""
    broken, read = set(), Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name in broken:
            raise OSError(5, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return broken


def parts(out):
    return {p.name: p.read_bytes() for p in (out / "private" / "parts").rglob("*") if p.is_file()}


def test_what_could_not_be_read_is_retried_and_nothing_else(config, unreadable, tmp_path, monkeypatch):
    unreadable.add("p3.jpg")
    first = ingest(config)
    assert (first.kept, codes(config.out)) == (7, {"x:4:3_4p3": "image_unreadable"})
    assert ingest(config).state == "unchanged"
    unreadable.clear()
    looked = []
    look_at = look.look_at
    monkeypatch.setattr(look, "look_at", lambda path, *how: looked.append(path.name) or look_at(path, *how))
    report = ingest(config.replace(retry_failed=True))
    assert looked == ["p3.jpg"]
    assert report.messages[0] == "looking again for 1 pictures that were missing or unreadable"
    fresh = ingest(config.replace(out=tmp_path / "fresh"))
    assert report.data == fresh.data
    assert shard_bytes(config.out) == shard_bytes(tmp_path / "fresh")
    assert parts(config.out) == parts(tmp_path / "fresh")
    assert check(config.out).ok


def test_a_mount_that_was_away_comes_back(config, dump, tmp_path):
    away = tmp_path / "away"
    dump.media.rename(away)
    dump.media.mkdir()
    (away / "p1.jpg").rename(dump.media / "p1.jpg")
    assert ingest(config).data["by_code"] == {"image_missing": 7}
    for path in away.iterdir():
        path.rename(dump.media / path.name)
    with pytest.raises(UserError, match=r"media: 1 files then, 8 now.*--retry-failed"):
        ingest(config)
    report = ingest(config.replace(retry_failed=True))
    fresh = ingest(config.replace(out=tmp_path / "fresh"))
    assert report.data == fresh.data
    assert shard_bytes(config.out) == shard_bytes(tmp_path / "fresh")
    assert parts(config.out) == parts(tmp_path / "fresh")
    assert read_json(config.out / "private" / "run.json") == read_json(
        tmp_path / "fresh" / "private" / "run.json"
    )
    assert ingest(config).state == "unchanged"
    assert ingest(config.replace(retry_failed=True)).state == "unchanged"


def test_a_retry_with_fewer_pictures_than_before_is_refused(config, dump):
    ingest(config)
    (dump.media / "p0.jpg").unlink()
    with pytest.raises(UserError, match="media: 8 files then, 7 now"):
        ingest(config.replace(retry_failed=True))


@pytest.mark.parametrize("moment", ["set_aside", "write_json", "look_at_many", "forget_known", "plan"])
def test_a_killed_retry_loses_nothing(config, unreadable, tmp_path, monkeypatch, moment):
    unreadable.add("p3.jpg")
    ingest(config)
    unreadable.clear()
    places = {"set_aside": "record", "write_json": "record", "plan": "run"}

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"pathclip.ingest.{places.get(moment, 'collect')}.{moment}", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(config.replace(retry_failed=True))
    ingest(config.replace(retry_failed=True))
    ingest(config.replace(out=tmp_path / "fresh"))
    assert shard_bytes(config.out) == shard_bytes(tmp_path / "fresh")
    assert parts(config.out) == parts(tmp_path / "fresh")
