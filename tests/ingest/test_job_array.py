from __future__ import annotations

import multiprocessing
import socket

import pytest
from looking import shard_bytes

from pathclip.core.errors import UserError
from pathclip.core.files import claim
from pathclip.ingest import IngestConfig, collect, ingest


@pytest.fixture
def config(synthetic_dump, tmp_path, key_file):
    """The synthetic dump as five files, some lines repeated."""
    lines = synthetic_dump.tweets.read_bytes().splitlines(keepends=True)
    sources = [tmp_path / f"part{number}.jsonl" for number in range(5)]
    for number, source in enumerate(sources):
        source.write_bytes(b"".join(lines[number :: len(sources)] or lines[:1]))
    return IngestConfig(
        sources=tuple(sources), media=synthetic_dump.media, out=tmp_path / "array", key_file=key_file
    )


def files(out, name):
    return {path.name for path in (out / "private" / "parts").glob(name)}


def test_ranks_share_the_work_and_give_the_dataset_of_one_run(config, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "PICTURES_PER_TASK", 5)
    ranks = [config.replace(rank=rank, world_size=3) for rank in range(3)]
    first = ingest(ranks[1])
    assert (first.state, first.data, first.funnel()) == ("share", {}, [])
    assert files(config.out, "chunk-*") == {"chunk-00001.lines", "chunk-00004.lines"}
    assert first.messages == (
        "rank 1 of 3: read its share; 3 chunks are with others: then run the array again",
    )
    ingest(ranks[0])
    assert not files(config.out, "pictures-*")
    assert "looked at its share" in ingest(ranks[2]).messages[0]
    pictures = files(config.out, "pictures-*")
    assert pictures
    assert all(int(name[9:14]) % 3 == 2 for name in pictures)
    ingest(ranks[0])
    assert "run once more without rank and world_size" in ingest(ranks[1]).messages[0]
    monkeypatch.setattr("pathclip.ingest.look.look_at", None)
    monkeypatch.setattr(collect, "read", None)
    whole = ingest(config)
    monkeypatch.undo()
    alone = ingest(config.replace(out=tmp_path / "alone"))
    assert whole.data == alone.data
    assert shard_bytes(config.out) == shard_bytes(tmp_path / "alone")
    assert "all is collected" in ingest(ranks[0]).messages[0]
    assert ingest(config).state == "unchanged"


def test_ranks_may_start_at_once(config, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ranks = [config.replace(rank=rank, world_size=2) for rank in range(2)]
    for _ in range(2):
        runs = [spawn.Process(target=ingest, args=(rank,)) for rank in ranks]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        assert [run.exitcode for run in runs] == [0, 0]
    assert len(files(config.out, "chunk-*")) == 5
    ingest(config)
    ingest(config.replace(out=tmp_path / "alone"))
    assert shard_bytes(config.out) == shard_bytes(tmp_path / "alone")


def test_ranks_and_ordinary_runs_keep_out_of_each_others_way(config, monkeypatch):
    rank = config.replace(rank=1, world_size=2)
    ingest(rank)
    with claim(config.out / "private" / "lock.rank-00001"):
        with pytest.raises(UserError, match="rank 1 of 2 already works"):
            ingest(rank)
        with pytest.raises(UserError, match=r"1 ranks of a job array .* remove .*lock\.rank-00001"):
            ingest(config)
    monkeypatch.setattr("pathclip.ingest.job_array.WAIT_S", 0.3)
    with claim(config.out / "private" / "lock"), pytest.raises(UserError, match="another run is writing"):
        ingest(rank)
    (config.out / "private" / "lock.rank-00007").write_text("99999999 " + socket.gethostname())
    assert ingest(config).kept > 20
    with pytest.raises(UserError, match="made from something else"):
        ingest(rank.replace(collect={"max_bytes": 9999}))


@pytest.mark.parametrize(
    "wrong", [{"rank": 2, "world_size": 2}, {"rank": 1}, {"force_new": True}, {"dry_run": True}]
)
def test_a_share_that_makes_no_sense_is_refused(config, wrong):
    with pytest.raises(ValueError, match=r"must be below world_size|not for the ranks of a job array"):
        ingest(config.replace(**{"world_size": 1 if "rank" in wrong else 2, **wrong}))
    assert not config.out.exists()
