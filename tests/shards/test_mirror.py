"""Datasets read from a store: fetched once, checked, kept in step, and trained from like those at hand."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from shard_factory import make_dataset
from stores import Store
from train_cases import TINY_MODEL

from pathclip.core.errors import FaultError, UserError
from pathclip.core.remote import Place
from pathclip.evaluation import read_shards
from pathclip.heads.index.sources import open_source
from pathclip.shards import Dataset
from pathclip.shards.mirror import cache_folder
from pathclip.training import TrainConfig, read_metrics, train


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATHCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", 24, splits=("train", "val"))


def put(store: Store, data: Path) -> None:
    for path in sorted(p for p in data.rglob("*") if p.is_file()):
        store.write(path.relative_to(data).as_posix(), path.read_bytes())


def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tars that are fetched from now on."""
    names: list[str] = []
    get = Place.get

    def noted(self: Place, name: str, path: Path) -> None:
        names.append(name)
        get(self, name, path)

    monkeypatch.setattr(Place, "get", noted)
    return names


def contents(dataset: Dataset, split: str) -> list[tuple[bytes, str]]:
    return [(bytes(jpg), record["sample_id"]) for jpg, record in dataset.samples(split)]


def test_a_split_is_fetched_when_it_is_read_and_only_once(
    store: Store, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, data)
    names = fetched(monkeypatch)
    there, here = Dataset.open(store.url), Dataset.open(data)
    assert there.url == store.url
    assert there.splits == here.splits
    assert names == []
    assert contents(there, "train") == contents(here, "train")
    assert sorted(names) == [shard.path for shard in here.shards("train")]
    assert contents(Dataset.open(Path(store.url)), "train") == contents(here, "train")
    assert len(names) == len(here.shards("train"))


def test_a_changed_shard_is_fetched_again_and_one_that_is_gone_is_dropped(
    store: Store, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, data)
    first = Dataset.open(store.url)
    first.readers("train")
    first.readers("val")
    other = make_dataset(tmp_path / "other", 16, splits=("train", "val"))
    for name in store.objects():
        store.remove(name)
    put(store, other)
    names = fetched(monkeypatch)
    assert contents(Dataset.open(store.url), "train") == contents(Dataset.open(other), "train")
    same = {s.path: s.sha256 for split in first.splits.values() for s in split}
    wanted = {s.path: s.sha256 for split in Dataset.open(other).splits.values() for s in split}
    assert set(names) == {s.path for s in Dataset.open(other).shards("train") if same.get(s.path) != s.sha256}
    left = {p.relative_to(first.root).as_posix() for p in first.root.rglob("*.tar")}
    assert left == {path for path in wanted if path in names or same.get(path) == wanted[path]}


def test_other_bytes_than_the_index_states_are_not_taken(store: Store, data: Path) -> None:
    put(store, data)
    shard = Dataset.open(data).shards("train")[0]
    good = (data / shard.path).read_bytes()
    store.write(shard.path, good[:-1] + b"x")
    dataset = Dataset.open(store.url)
    with pytest.raises(FaultError, match=r"is not the shard that index\.json states"):
        dataset.readers("train")
    assert not (dataset.root / shard.path).exists()
    store.write(shard.path, good)
    assert contents(dataset, "train") == contents(Dataset.open(data), "train")
    assert not list(dataset.root.rglob("*.tmp*"))


def test_a_store_that_is_away_leaves_what_is_here(
    data: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store("memory://away/ds")
    put(store, data)
    Dataset.open(store.url).readers("train")

    def gone(self: Place, name: str) -> bytes:
        raise FaultError(f"{store.url}: cannot read {name}: ConnectionError")

    monkeypatch.setattr(Place, "read", gone)
    with caplog.at_level(logging.WARNING, "pathclip"):
        again = Dataset.open(store.url)
    assert "the index of the last time is used" in caplog.text
    assert contents(again, "train") == contents(Dataset.open(data), "train")
    shutil.rmtree(cache_folder(store.url))
    with pytest.raises(FaultError, match=r"cannot read index\.json"):
        Dataset.open(store.url)


@pytest.mark.parametrize("path", ["../../etc/x.tar", "/etc/x.tar", "shards/x.sh"])
def test_an_index_cannot_write_outside_of_its_folder(data: Path, path: str) -> None:
    store = Store("memory://evil/ds")
    index = json.loads((data / "index.json").read_text())
    index["splits"]["train"]["shards"][0]["path"] = path
    store.write("index.json", json.dumps(index).encode())
    with pytest.raises(UserError, match="which is no shard of its folder"):
        Dataset.open(store.url)


def test_mistakes_are_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("memory://mistakes/ds")
    with pytest.raises(UserError, match=r"memory://mistakes/ds is no dataset: there is no index\.json"):
        Dataset.open(store.url)
    with pytest.raises(UserError, match="fsspec knows no s4"):
        Dataset.open("s4://bucket/ds")
    for broken in (b"[]", b"{", b'{"schema": "pathclip.index/1", "splits": {"train": {}}}'):
        store.write("index.json", broken)
        with pytest.raises(UserError, match=r"is no index of schema pathclip\.index/1"):
            Dataset.open(store.url)
    put(store, data)
    full = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=10))
    monkeypatch.setattr("pathclip.shards.mirror.shutil", full)
    with pytest.raises(UserError, match="set PATHCLIP_CACHE to a larger disk"):
        Dataset.open(store.url).readers("train")


def test_the_index_and_retrieval_read_a_url_too(data: Path) -> None:
    store = Store("memory://readers/ds")
    put(store, data)
    assert len(open_source(store.url).rows) == len(open_source(data).rows) == 48
    there, here = read_shards(Path(store.url), "val"), read_shards(data, "val")
    assert [bytes(p) for p in there.pictures] == [bytes(p) for p in here.pictures]
    assert there.name == "ds/val"


def test_a_file_url_is_read_in_place(data: Path, cache: Path) -> None:
    assert Dataset.open(Path(f"file://{data}")).root == data
    dataset = Dataset.open(f"file://{data}")
    assert contents(dataset, "val") == contents(Dataset.open(data), "val")
    assert dataset.url is None
    assert not cache.exists()


def test_training_from_a_url_is_training_from_the_folder_also_after_a_resume(
    data: Path, tmp_path: Path
) -> None:
    store = Store("memory://train/ds")
    put(store, data)
    model = tmp_path / "mini.json"
    model.write_text(json.dumps(TINY_MODEL))
    common = {"model": {"name": str(model)}, "batch": {"size": 8, "workers": 0}, "threads": 1}
    common |= {"schedule": {"steps": 6}, "checkpoint": {"every_steps": 3}, "eval": {"retrieval": {"val": {}}}}

    def losses(run: Path) -> list[float]:
        return [row["loss"] for row in read_metrics(run / "metrics.jsonl")]

    def run(name: str, dataset: object) -> Path:
        config = {**common, "out": tmp_path / name, "data": {"dataset": dataset}}
        return train(TrainConfig.model_validate(config)).run

    here, there = run("here", data), run("there", store.url)
    assert losses(there) == losses(here)
    assert "memory:/" in (there / "config.toml").read_text()
    shutil.rmtree(there / "checkpoints" / "step-00000006")
    (there / "latest").write_text("checkpoints/step-00000003")
    shutil.rmtree(cache_folder(store.url))
    assert losses(train(resume=there).run) == losses(here)
