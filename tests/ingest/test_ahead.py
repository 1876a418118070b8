"""Pictures stored ahead change how often a picture is decoded, and nothing else."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
from looking import shard_bytes

from pathclip.core.config import load_config
from pathclip.core.errors import UserError
from pathclip.ingest import IngestConfig, ingest
from pathclip.pairs import PackConfig, stored_jpeg

LOOK = sys.modules["pathclip.ingest.look"]
MATERIALISE = sys.modules["pathclip.ingest.materialise"]
RUN = sys.modules["pathclip.ingest.run"]
KILLED = "killed here"


@pytest.fixture
def large(dump, key_file, tmp_path) -> IngestConfig:
    """Twelve posts, every second of a picture that must be scaled down, one of them no English."""
    for n in range(12):
        dump.picture(f"p{n}.jpg", n, side=1100 if n % 2 else 200)
        dump.post(
            f"10{n}", f"Case {n}: ductal carcinoma of the breast", f"p{n}", lang="pt" if n == 5 else "en"
        )
    return IngestConfig(
        sources=(dump.tweets,),
        media=dump.media,
        out=tmp_path / "out",
        key_file=key_file,
        pack={"shard_samples": 4},
    )


def counted(monkeypatch, module, name: str) -> list[int]:
    calls, original = [], getattr(module, name)

    def count(*args, **options):
        calls.append(1)
        return original(*args, **options)

    monkeypatch.setattr(module, name, count)
    return calls


@pytest.mark.parametrize("pack", [{}, {"short_side_px": 300}, {"passthrough": False}, {"chroma": "half"}])
def test_shards_are_the_same_bytes_with_and_without(large, tmp_path, pack):
    config = large.replace(pack=large.pack.replace(**pack))
    ingest(config)
    ingest(config.replace(out=tmp_path / "twice", ahead=False))
    assert len(shard_bytes(config.out)) > 3
    assert shard_bytes(config.out) == shard_bytes(tmp_path / "twice")
    assert not (config.out / "private" / "parts" / "ahead").exists()


def test_a_kept_picture_is_decoded_once_and_a_rejected_one_not_encoded(large, monkeypatch):
    stored = counted(monkeypatch, LOOK, "stored_jpeg")
    passed = counted(monkeypatch, LOOK, "passed_through")
    again = counted(monkeypatch, MATERIALISE, "stored_jpeg")
    report = ingest(large)
    assert report.kept == 11
    assert (len(stored), len(passed)) == (5, 11), "of six large ones one is no English"
    assert not again


def test_killed_between_the_phases_it_goes_on_with_what_was_stored(large, tmp_path, monkeypatch):
    ingest(large.replace(out=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(RUN, "plan", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt(KILLED)))
        with pytest.raises(KeyboardInterrupt):
            ingest(large)
    assert list((large.out / "private" / "parts" / "ahead").rglob("*.bin"))
    again = counted(monkeypatch, MATERIALISE, "stored_jpeg")
    ingest(large)
    assert not again
    assert shard_bytes(large.out) == shard_bytes(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["other settings", "cut", "gone", "index gone"])
def test_what_was_stored_ahead_may_be_lost_or_out_of_date(large, tmp_path, monkeypatch, damage):
    changed = large.replace(pack=large.pack.replace(quality=60)) if damage == "other settings" else large
    ingest(changed.replace(out=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(RUN, "plan", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt(KILLED)))
        with pytest.raises(KeyboardInterrupt):
            ingest(large)
    (stored,) = (large.out / "private" / "parts" / "ahead").rglob("*.bin")
    if damage == "cut":
        stored.write_bytes(stored.read_bytes()[:1000])
    elif damage == "gone":
        stored.unlink()
    elif damage == "index gone":
        stored.with_suffix(".json").unlink()
    ingest(changed)
    assert shard_bytes(large.out) == shard_bytes(tmp_path / "whole")
    assert not (large.out / "private" / "parts" / "ahead").exists()


def test_a_picture_at_hand_changes_no_byte(dump):
    sizes = itertools.product((160, 600, 1100, 2100), (512, 200), ("full", "half"))
    for number, (side, short, chroma) in enumerate(sizes):
        path = Path(dump.media / f"{number}.jpg")
        dump.picture(path.name, number, side=side)
        config = LOOK.CollectConfig()
        pack = PackConfig(short_side_px=short, chroma=chroma, passthrough=False)
        columns, stored = LOOK.look_at(path, config, pack)
        assert columns["code"] is None
        assert stored == stored_jpeg(path.read_bytes(), pack)
        assert LOOK.look_at(path, config) == (columns, None)


def test_without_a_hash_there_are_no_near_duplicates_to_ask_for(large):
    with pytest.raises(UserError, match="so no near duplicates can be found"):
        load_config(IngestConfig, None, ["collect.phash=false"])
    with pytest.raises(UserError, match="so no picture can be judged"):
        load_config(IngestConfig, None, ["collect.scores=false"])
    dedup = large.dedup.replace(drop_radius=-1, tie_radius=-1)
    report = ingest(large.replace(collect=large.collect.replace(phash=False), dedup=dedup))
    assert report.kept == 11
