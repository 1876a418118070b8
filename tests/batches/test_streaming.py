"""Streams of shards that lie here only for a while: the batches of a folder, with few shards on the disk."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonschema import Draft202012Validator
from shard_factory import make_dataset
from stores import Store
from torch import Tensor
from web import Web, serve

from pathclip.batches import Batch, BatchConfig, ShardLoader
from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import read_json
from pathclip.core.remote import Place
from pathclip.shards import Dataset, LostShardError, ShardReader
from pathclip.shards.mirror import cache_folder

COUNT, SHARDS = 40, 8
SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "schemas" / "counted.schema.json"


def tokenize(texts: list[str]) -> Tensor:
    return torch.tensor([[len(t), ord(t[0])] for t in texts])


def loader(
    where: object, *, window: int | None = 2, weights: tuple[float, ...] = (), **options: object
) -> ShardLoader:
    names = where if isinstance(where, list) else [where]
    ranks = {name: options.pop(name) for name in ("rank", "world_size") if name in options}
    datasets = [Dataset.open(name, stream=window is not None) for name in names]
    config = BatchConfig(**{"size": 5, "workers": 0, **options})
    common = {"image_size": 16, "seed": 3, "weights": weights, "window": window}
    return ShardLoader(datasets, "train", config, tokenize, **common, **ranks)


def take(stream: ShardLoader, count: int) -> list[Batch]:
    batches = iter(stream)
    try:
        return list(islice(batches, count))
    finally:
        batches.close()


def same(first: list[Batch], second: list[Batch]) -> bool:
    tensors = ("images", "tokens", "positive_ids", "caption_ids")
    return [b.keys for b in first] == [b.keys for b in second] and all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(first, second, strict=True)
        for name in tensors
    )


def keys(batches: list[Batch]) -> list[str]:
    return [key for batch in batches for key in batch.keys]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATHCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pathclip.shards.fetch.DELAYS_S", (0.01,) * 7)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data"), COUNT, shards=SHARDS)


@pytest.fixture(scope="module")
def expected(data: Path) -> list[Batch]:
    """Three passes over the folder, which is not fetched."""
    return take(loader(data), 3 * COUNT // 5)


@pytest.fixture
def web(data: Path, tmp_path: Path) -> Iterator[Web]:
    shutil.copytree(data, tmp_path / "web")
    with serve(tmp_path / "web") as served:
        yield served


def put(store: Store, data: Path) -> str:
    files = {path.relative_to(data): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    store.fs().pipe({f"{store.root}/{name.as_posix()}": content for name, content in files.items()})
    return store.url


def listed(web: Web) -> str:
    return web.url + "/shards/train-{000000..000007}.tar"


def piped(data: Path) -> str:
    return f"pipe:cat {data}/shards/train-{{000000..000007}}.tar"


def left(cache: Path) -> list[Path]:
    return sorted((cache / "windows").rglob("*"))


def test_a_stream_of_a_store_gives_the_batches_of_the_folder(
    store: Store, data: Path, cache: Path, expected: list[Batch]
) -> None:
    stream = loader(put(store, data), workers=2)
    assert same(take(stream, len(expected)), expected)
    passed = stream.shards.passed
    assert 2 <= passed.peak_shards <= 4  # two windows of two, where there are eight
    assert passed.peak_bytes <= stream.shards.most_bytes(2)
    assert passed.retried == 0
    assert 3 * SHARDS - 4 <= passed.shards <= 3 * SHARDS + 4
    assert left(cache) == []
    assert not list(cache.rglob("*.tar"))


def test_foreign_shards_of_a_web_server_and_of_a_command_do_too(
    web: Web, data: Path, expected: list[Batch]
) -> None:
    assert same(take(loader(listed(web)), 9), expected[:9])
    assert same(take(loader(piped(data), workers=1), 9), expected[:9])
    assert same(take(loader(web.url), 9), expected[:9])


def test_a_pass_holds_what_a_pass_over_the_mapped_whole_holds(data: Path, expected: list[Batch]) -> None:
    """Same pictures, same captions, to the last byte: the order alone is another."""
    whole = take(loader(data, window=None), COUNT // 5)

    def content(batches: list[Batch]) -> dict[str, tuple[bytes, int]]:
        return {
            key: (image.contiguous().numpy().tobytes(), int(caption))
            for b in batches
            for key, image, caption in zip(b.keys, b.images, b.caption_ids, strict=True)
        }

    assert len(content(whole)) == COUNT
    assert content(expected[: COUNT // 5]) == content(whole)
    assert keys(expected[: COUNT // 5]) != keys(whole)


@pytest.mark.parametrize(
    "options", [{}, {"workers": 3, "prefetch": 4}, {"workers": 1, "processes": True}], ids=str
)
def test_workers_change_nothing(
    memory: Store, data: Path, cache: Path, expected: list[Batch], options: dict[str, object]
) -> None:
    stream = loader(put(memory, data), **options)
    assert same(take(stream, len(expected)), expected)
    assert stream.shards.passed.peak_shards <= 6 < SHARDS  # four batches under way reach over three windows
    assert left(cache) == []


@pytest.mark.parametrize("stop", [1, 5, 8, 13])
def test_a_stream_goes_on_where_another_stopped_and_needs_its_window_alone(
    memory: Store, data: Path, expected: list[Batch], stop: int
) -> None:
    first = loader(put(memory, data), workers=2)
    take(first, stop)
    second = loader(memory.url, workers=1)
    second.load_state_dict(first.state_dict())
    assert same(take(second, 2), expected[stop : stop + 2])
    assert second.shards.passed.shards <= 6  # this window, the next, and one more where a batch ended this
    with pytest.raises(UserError, match="made with window 2, this run has 3"):
        loader(memory.url, window=3).load_state_dict(first.state_dict())


def test_ranks_share_batches_and_what_was_fetched(
    memory: Store, data: Path, expected: list[Batch], cache: Path
) -> None:
    ranks = [loader(put(memory, data), rank=r, world_size=3) for r in range(3)]
    streams = [iter(rank) for rank in ranks]
    shared = 0
    for batch in expected[:16]:
        shares = [next(stream) for stream in streams]
        assert [key for share in shares for key in share.keys] == batch.keys
        assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
        here = [p.stat().st_ino for p in (cache / "windows").rglob("*.tar")]
        shared += len(here) > len(set(here))
        assert (
            len(set(here)) <= 6
        )  # two windows of two, and the one that a rank ahead of the others has begun
    assert shared > 12
    assert (
        sum(rank.shards.passed.shards for rank in ranks) <= 2 * SHARDS + 4
    )  # two passes and what lies ahead
    for stream in streams:
        stream.close()
    assert left(cache) == []


def test_datasets_are_mixed_by_weight(memory: Store, data: Path, tmp_path: Path) -> None:
    other = make_dataset(
        tmp_path / "b", 6, shards=3, change=lambda s: dataclasses.replace(s, sample_id="x" + s.sample_id[1:])
    )
    where = [put(memory, data), other]
    stream = loader(where, weights=(0.5, 5.0))
    assert stream.count == 20 + 30
    got = keys(take(stream, 20))
    assert sorted(key for key in got if key.startswith("x")) == sorted(
        10 * [f"x{'r'}{n:014d}" for n in range(6)]
    )
    assert len({key for key in got if not key.startswith("x")}) == COUNT
    again = loader(where, weights=(0.5, 5.0))
    again.load_state_dict(stream.state_dict())
    assert same(take(again, 3), take(loader(where, weights=(0.5, 5.0)), 23)[20:])


def test_a_bad_sample_is_replaced_within_its_shard(tmp_path: Path, memory: Store, data: Path) -> None:
    def broken(sample):
        bad = int(sample.sample_id[2:]) in (7, 39)  # 39 is the last of its shard, and of all
        return dataclasses.replace(sample, jpg=sample.jpg[:400]) if bad else sample

    stream = loader(
        put(memory, make_dataset(tmp_path / "hurt", COUNT, shards=SHARDS, change=broken)), workers=2
    )
    stands_for = {"tr00000000000007": "tr00000000000008", "tr00000000000039": "tr00000000000035"}
    whole = keys(take(loader(data), 8))
    assert keys(take(stream, 8)) == [stands_for.get(key, key) for key in whole]
    assert set(stream.bad) == {f"train-{n:06d}.tar, key tr{k:014d}" for n, k in ((1, 7), (7, 39))}


def test_a_connection_that_breaks_is_tried_again(
    web: Web, expected: list[Batch], caplog: pytest.LogCaptureFixture
) -> None:
    web.cut["train-000003.tar"] = 2
    web.refused["train-000005.tar"] = 3
    with caplog.at_level(logging.WARNING, "pathclip"):
        stream = loader(web.url, workers=1)
        assert same(take(stream, 8), expected[:8])
    assert stream.shards.passed.retried == 5
    assert "train-000003.tar" in caplog.text
    assert "503" in caplog.text


def test_a_server_that_refuses_is_asked_twice_and_one_without_sizes_may_refuse_them(web: Web) -> None:
    web.forbidden = {"sizes.json", "train-000003.tar"}
    with pytest.raises(LostShardError, match=r"train-000003\.tar: .*403.*given up at attempt 2"):
        Dataset.open(listed(web), stream=True)
    web.forbidden = {"sizes.json"}
    assert Dataset.open(listed(web), stream=True).count("train") == COUNT


def test_a_damaged_index_is_made_anew(memory: Store, data: Path, expected: list[Batch]) -> None:
    put(memory, data)
    memory.write("shards/train-000004.idx", b"PCIDX1")
    assert same(take(loader(memory.url), 8), expected[:8])


def test_a_server_that_stays_away_is_named(web: Web) -> None:
    web.cut["train-000003.tar"] = 99
    with pytest.raises(LostShardError, match=r"train-000003\.tar.*given up at attempt 8.*--resume"):
        take(loader(web.url), 8)
    assert web.asked["train-000003.tar"] == 8


def hurt_and_take(memory: Store, data: Path, hurt) -> None:
    name = "shards/train-000004.tar"
    stream = loader(put(memory, data))
    hurt(name)
    take(stream, 8)


def test_a_shard_that_is_gone_cut_or_another_is_named_not_skipped(memory: Store, data: Path) -> None:
    good = (data / "shards/train-000004.tar").read_bytes()
    faults = {
        r"train-000004\.tar: FileNotFoundError.*given up at attempt 2": memory.remove,
        rf"{len(good) // 2} bytes came, {len(good)} are stated.*given up at attempt 3": lambda name: (
            memory.write(name, good[: len(good) // 2])
        ),
        r"train-000004\.tar: other bytes came": lambda name: memory.write(name, good[:-1] + b"x"),
    }
    for text, hurt in faults.items():
        with pytest.raises(LostShardError, match=text):
            hurt_and_take(memory, data, hurt)


def test_a_command_that_fails_is_told_with_its_last_words(tmp_path: Path, data: Path) -> None:
    take(loader(piped(data)), 1)  # counted
    moved = data / "shards/train-000001.tar"
    moved.rename(tmp_path / "away")
    try:
        with pytest.raises(
            LostShardError, match=r"pipe:cat .*train-000001.tar: exit status 1: cat: .*No such file"
        ):
            take(loader(piped(data)), 8)
    finally:
        (tmp_path / "away").rename(moved)
    between = int(ShardReader(moved).rows[1, 0]) - 512  # where a sample ends and the next begins
    with pytest.raises(
        LostShardError, match=r"no whole tar came: unexpected end of data; given up at attempt 3"
    ):
        loader(f"pipe:head -c {between} {moved}")


def test_a_full_disk_is_told(memory: Store, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(memory, data)

    def full(self: Place, name: str, path: Path, stopped: object = None) -> None:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise FaultError(f"{self.url}: cannot read {name}") from error

    monkeypatch.setattr(Place, "get", full)
    with pytest.raises(LostShardError, match=r"the disk of .*windows.* is full: make room"):
        take(loader(memory.url), 1)
    monkeypatch.setattr("pathclip.shards.window.shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(UserError, match=r"data\.stream_shards = 2 takes up to 0\.\d MB .*PATHCLIP_CACHE"):
        loader(memory.url)


def test_a_cache_that_cannot_be_made_is_told(data: Path, cache: Path) -> None:
    stream = piped(data)
    loader(stream)
    (cache / "windows").rmdir()
    (cache / "windows").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot make .*windows: File exists; set PATHCLIP_CACHE"):
        loader(stream)


def test_samples_are_counted_once_and_kept(web: Web, cache: Path) -> None:
    with pytest.raises(UserError, match=r"nothing states how many samples 8 of 8 shards hold.*sizes\.json"):
        Dataset.open(listed(web), stream=True, count=False)
    dataset = Dataset.open(listed(web), stream=True)
    assert dataset.count("train") == COUNT
    asked = web.asked.total()
    again = Dataset.open(listed(web), stream=True, count=False)
    assert again == dataset
    assert web.asked.total() == asked
    assert not list(cache.rglob("*.tar"))
    kept = read_json(cache_folder(listed(web)) / "counted.json")
    Draft202012Validator(read_json(SCHEMA)).validate(kept)
    assert len(kept["shards"]) == SHARDS


def test_counting_goes_on_after_a_shard_was_lost(web: Web, data: Path) -> None:
    web.cut["train-000007.tar"] = 8
    with pytest.raises(LostShardError):
        Dataset.open(listed(web), stream=True)
    before = web.asked["train-000000.tar"]
    assert Dataset.open(listed(web), stream=True).count("train") == COUNT
    assert web.asked["train-000000.tar"] == before


def test_sizes_beside_the_shards_are_believed_and_checked(
    web: Web, tmp_path: Path, expected: list[Batch]
) -> None:
    sizes = tmp_path / "web/shards/sizes.json"
    sizes.write_text("{" + ",".join(f'"train-{n:06d}.tar": 5' for n in range(SHARDS)) + "}")
    stream = loader(listed(web))
    assert web.asked.total() == 1
    assert stream.shards.most_bytes(2) is None
    assert same(take(stream, 8), expected[:8])
    sizes.write_text(sizes.read_text().replace('3.tar": 5', '3.tar": 6'))
    with pytest.raises(LostShardError, match=r"train-000003\.tar: 5 samples came, 6 are stated"):
        take(loader(listed(web)), 8)
    sizes.write_text("[1]")
    with pytest.raises(UserError, match=r"sizes\.json is no table of shards"):
        loader(listed(web))


def test_shards_are_named_with_braces_and_joined() -> None:
    from pathclip.shards.urls import is_listed, shard_urls

    assert shard_urls("s3://b/{08..10}.tar::gs://c/{a,b}-{1..2}.tar") == [
        *(f"s3://b/{n}.tar" for n in ("08", "09", "10")),
        *(f"gs://c/{x}-{n}.tar" for x in "ab" for n in "12"),
    ]
    assert shard_urls("pipe:curl -s 'http://h/{0..1}.tar' | awk '{print $1}'") == [
        f"pipe:curl -s 'http://h/{n}.tar' | awk '{{print $1}}'" for n in "01"
    ]
    assert is_listed("https://host/a.tar?signature=x/y")
    assert not is_listed("s3://bucket/dataset")
    assert not is_listed("folder/a.tar")
    for text, reason in {
        "s3://b/{5..3}.tar": "runs backwards",
        "s3://b/{1..2}.tar::s3://b/2.tar": r"s3://b/2\.tar is listed twice.*data\.weights",
        "s3://b/{0..99999999}.tar": "more than 1000000",
        "s4://b/1.tar": "fsspec knows no s4",
        "http://me:secret@h/1.tar": "holds a password",
    }.items():
        with pytest.raises(UserError, match=reason):
            shard_urls(text)


def test_a_list_without_a_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"list of shards: they can be streamed only \(data\.stream_shards = 8\)"
    ):
        Dataset.open("https://host/{000..009}.tar")


def test_what_a_killed_process_held_is_removed_by_the_next(memory: Store, data: Path, cache: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom pathclip.shards import Dataset, ShardWindow\n"
        f"w = ShardWindow([Dataset.open({piped(data)!r}, stream=True)], 'train')\n"
        "w.want(range(3)); w.wait(range(3)); print('here', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    held = list((cache / "windows").rglob("*.tar"))
    assert len(held) == 3
    take(loader(put(memory, data)), 1)
    assert all(path.exists() for path in held)  # it lives
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    take(loader(memory.url), 1)
    assert left(cache) == []


def test_a_stream_that_is_closed_does_not_wait_for_what_is_under_way(data: Path, cache: Path) -> None:
    take(loader(piped(data)), 1)  # counted
    slow = re.sub("pipe:", "pipe:sleep 30;", piped(data))
    known = cache_folder(piped(data)) / "counted.json"
    cache_folder(slow).mkdir(parents=True)
    text = known.read_text().replace("pipe:", "pipe:sleep 30;")
    (cache_folder(slow) / "counted.json").write_text(text)
    stream = loader(slow)
    stream.shards.want(range(3))
    started = time.monotonic()
    time.sleep(0.1)
    stream.shards.close()
    assert time.monotonic() - started < 10
    assert left(cache) == []
